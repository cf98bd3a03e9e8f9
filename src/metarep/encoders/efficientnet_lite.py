"""EfficientNetLite: a small encoder of photographs whose ImageNet weights a package brings."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from metarep.encoders.fused import fuse_layers, fused_layers
from metarep.encoders.initialise import initialise
from metarep.errors import MetarepError

EPS = 1e-3  # of every norm layer, as the weights were trained
STEM, FEATURES = 32, 1280
STAGES = ((1, 3, 1), (6, 3, 2), (6, 5, 2), (6, 3, 2), (6, 5, 1), (6, 5, 2), (6, 3, 1))  # expansion, kernel, stride
WIDTHS = (
    (16, 24, 40, 80, 112, 192, 320),
    (16, 24, 40, 80, 112, 192, 320),
    (16, 24, 48, 88, 120, 208, 352),
)  # channels of each stage, for each variant
DEPTHS = ((1, 2, 2, 3, 3, 4, 1), (1, 3, 3, 4, 4, 5, 1), (1, 3, 3, 4, 4, 5, 1))  # blocks of each stage


class SameConv(nn.Conv2d):
    """A convolution whose output has ``ceil(side / stride)`` pixels; an odd pixel of padding goes below and right.

    TensorFlow's rule, under which the weights were trained. Trap: torch's ``padding=kernel // 2`` looks at other pixels
    wherever the stride is 2 and the side even.
    """

    def forward(self, input: Tensor) -> Tensor:
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        height, width = (max(0, (-(-side // stride) - 1) * stride + kernel - side) for side in input.shape[-2:])
        if height == width and height % 2 == 0:
            return functional.conv2d(input, self.weight, None, stride, height // 2, 1, self.groups)
        padded = functional.pad(input, (width // 2, width - width // 2, height // 2, height - height // 2))
        return functional.conv2d(padded, self.weight, None, stride, 0, 1, self.groups)


class InvertedResidual(nn.Module):
    """Widen by 1x1, filter each channel, narrow by 1x1; with a shortcut where the shape stays."""

    def __init__(self, channels: int, width: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = channels * expansion
        layers = _layer(channels, wide, 1) if expansion > 1 else []
        layers += _layer(wide, wide, kernel, stride, groups=wide)
        layers += _layer(wide, width, 1)[:-1]
        self.branch = nn.Sequential(*layers)
        self.shortcut = stride == 1 and channels == width

    def forward(self, x: Tensor) -> Tensor:
        return self.branch(x) + x if self.shortcut else self.branch(x)

    def fused(self) -> Callable[[Tensor], Tensor]:
        """The same for :func:`metarep.encoders.fused.fuse_layers`."""
        layers = fuse_layers(list(self.branch))

        def run(x: Tensor) -> Tensor:
            y = x
            for layer in layers:
                y = layer(y)
            return y.add_(x) if self.shortcut else y

        return run


class EfficientNetLite(nn.Sequential):
    """EfficientNet without squeeze-and-excitation, with ReLU6: 1,280 numbers an image.

    Tan, Le, EfficientNet, 2019; the ``lite`` variants are its authors' own, for processors. Images of any size; the
    weights that :mod:`metarep.pretrained` finds were trained at 224, 240 and 260 px.

    Args:
        channels: of the images.
        variant: 0, 1 or 2; larger is slower and better.
        mirror: at test time the features are the mean of the image's and its mirror image's: twice the time, and
            about a point more on photographs of few classes.

    >>> import torch
    >>> EfficientNetLite(3).eval()(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 1280])
    """

    def __init__(self, channels: int, *, variant: int = 0, mirror: bool = False) -> None:
        if variant not in range(len(WIDTHS)):
            raise MetarepError(f"variant must be 0, 1 or 2, not {variant}")
        layers: list[nn.Module] = _layer(channels, STEM, 3, 2)
        before = STEM
        for (expansion, kernel, stride), width, depth in zip(STAGES, WIDTHS[variant], DEPTHS[variant], strict=True):
            for block in range(depth):
                layers.append(InvertedResidual(before, width, expansion, kernel, 1 if block else stride))
                before = width
        super().__init__(*layers, *_layer(before, FEATURES, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.mirror = mirror
        initialise(self)

    def forward(self, input: Tensor) -> Tensor:
        both = self.mirror and not self.training
        layers = fused_layers(self, input, SameConv, InvertedResidual)
        if layers is None:
            features = super().forward(input)
            return (features + super().forward(input.flip(-1))) / 2 if both else features
        x = torch.cat([input, input.flip(-1)]) if both else input  # in one batch: filters are fetched once
        x = x.contiguous(memory_format=torch.channels_last)
        for layer in layers:
            x = layer(x)
        return (x[: len(input)] + x[len(input) :]) / 2 if both else x


def _layer(channels: int, width: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    convolution = SameConv(channels, width, kernel, stride, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(width, EPS, momentum=0.01), nn.ReLU6()]
