"""Halves of a body: a trunk that is run once, and a tail that a training on few images changes."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metarep.encoders.efficientnet_lite import EfficientNetLite, InvertedResidual, SameConv
from metarep.encoders.encoder import Encoder
from metarep.encoders.fused import fused_layers

SHARE = 0.6  # of the weights; the tail is the shortest that holds so many


class Halves:
    """The layers of an encoder, as a trunk and a tail. Both share their weights with the encoder.

    What the trunk gives for an image can be kept, so that many passes cost those of the tail only. A body whose layers
    do not run one after the other (a vision transformer) is a tail as a whole.

    Args:
        encoder: an encoder in evaluation mode.

    >>> from metarep.encoders import Preprocess, build_encoder
    >>> encoder = build_encoder("conv4", Preprocess((28, 28), 1, (0.0,), (1.0,))).eval()
    >>> halves, images = Halves(encoder), torch.zeros(2, 1, 28, 28, dtype=torch.uint8)
    >>> len(halves.trunk), halves.tail(halves.maps(images)).equal(encoder(images))
    (2, True)
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        body = encoder.body
        self.mirror = bool(getattr(body, "mirror", False))  # at test time, also encode the mirror image
        in_turn = isinstance(body, EfficientNetLite) or type(body).forward is nn.Sequential.forward
        layers = list(body) if isinstance(body, nn.Sequential) and in_turn else []
        cut = _cut(layers)
        self.trunk = nn.Sequential(*layers[:cut]).eval()
        self.tail: nn.Module = nn.Sequential(*layers[cut:]).eval() if cut else body

    @torch.no_grad()
    def maps(self, images: Tensor) -> Float[Tensor, "b *map"]:
        """The input of the tail for raw images: the feature maps of the trunk, or prepared images without a trunk."""
        encoder, maps = self.encoder, []
        for part in images.split(encoder.at_once):
            x = encoder.preprocess(part).to(encoder.kind or torch.float32).contiguous(memory_format=encoder.layout)
            fused = fused_layers(self.trunk, x, SameConv, InvertedResidual) if len(self.trunk) else None
            for layer in fused or self.trunk:
                x = layer(x)
            maps.append(x.clone())
        return torch.cat(maps)

    def plain(self, images: Tensor) -> list[Float[Tensor, "b *map"]]:
        """The maps from which an image is classified: of the image, and of its mirror image if the encoder uses it."""
        return [self.maps(images), *([self.maps(images.flip(-1))] if self.mirror else [])]


def _cut(layers: list[nn.Module]) -> int:
    """The number of layers in the trunk."""
    weights = [sum(weight.numel() for weight in layer.parameters()) for layer in layers]
    kept = 0
    for cut in range(len(layers) - 1, 0, -1):
        kept += weights[cut]
        if kept >= SHARE * sum(weights):
            return cut
    return 0
