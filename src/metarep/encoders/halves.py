"""Halves of a body: a trunk that is run once, and a tail that a training on few images changes."""

import copy
import math
from collections import OrderedDict
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from metarep.encoders.efficientnet_lite import EfficientNetLite, InvertedResidual, SameConv
from metarep.encoders.encoder import Encoder
from metarep.encoders.fused import fused_layers
from metarep.encoders.preprocess import Preprocess
from metarep.encoders.vit import ViT
from metarep.encoders.vit.halves import FirstBlocks, LastBlocks

SHARE = 0.6  # of the weights; the tail is the shortest that holds so many


class Halves:
    """The layers of an encoder, as a trunk and a tail. Both share their weights with the encoder if these are float32.

    What the trunk gives for an image can be kept, so that many passes cost those of the tail only. Only a sequence of
    layers and a ``ViT`` have a trunk; of any other body the tail is the whole. The weights of the tail have the names
    that they have in the body. Maps and tail are in float32, whatever the dtype of the body.

    Args:
        encoder: an encoder in evaluation mode.
        most: floating-point operations of the tail for an image. The tail of a vision transformer has as many blocks
            as need no more, one at least and half of them at most; the other tails do not depend on it.

    Attributes:
        trunk, tail: the layers.
        share: of the weights of the tail, from the last layer on, that a training should change.

    >>> from metarep.encoders import Preprocess, build_encoder
    >>> encoder = build_encoder("conv4", Preprocess((28, 28), 1, (0.0,), (1.0,))).eval()
    >>> halves, images = Halves(encoder), torch.zeros(2, 1, 28, 28, dtype=torch.uint8)
    >>> len(halves.trunk), halves.tail(halves.maps(images)).equal(encoder(images))
    (2, True)
    """

    def __init__(self, encoder: Encoder, most: float = math.inf) -> None:
        self.encoder = encoder
        body = encoder.body
        self.mirror = bool(getattr(body, "mirror", False))  # at test time, also encode the mirror image
        in_turn = isinstance(body, EfficientNetLite) or type(body).forward is nn.Sequential.forward
        layers = dict(body.named_children()) if isinstance(body, nn.Sequential) and in_turn else {}
        cut = _cut(list(layers.values()))
        self.trunk = nn.Sequential(*list(layers.values())[:cut]).eval()
        self.tail: nn.Module = nn.Sequential(OrderedDict(list(layers.items())[cut:])).eval() if cut else body
        if isinstance(body, ViT):
            cut = len(body.blocks) - _blocks(body, encoder.preprocess, most)
            self.trunk = nn.Sequential(FirstBlocks(body, cut)).eval()
            self.tail = LastBlocks(body, cut, encoder.preprocess.size).eval()
        self.share = 1.0 if len(self.trunk) else SHARE
        if encoder.kind not in (None, torch.float32):
            self.tail = copy.deepcopy(self.tail).float()

    @torch.no_grad()
    def maps(self, images: Tensor) -> Float[Tensor, "b *map"]:
        """The input of the tail for raw images: the feature maps of the trunk, or prepared images without a trunk."""
        encoder, maps = self.encoder, []
        for part in images.split(encoder.at_once):
            x = encoder.preprocess(part).to(encoder.kind or torch.float32).contiguous(memory_format=encoder.layout)
            fused = fused_layers(self.trunk, x, SameConv, InvertedResidual) if len(self.trunk) else None
            for layer in fused or self.trunk:
                x = layer(x)
            maps.append(x.to(torch.float32, copy=True))
        return torch.cat(maps)

    def plain(self, images: Tensor) -> list[Float[Tensor, "b *map"]]:
        """The maps from which an image is classified: of the image, and of its mirror image if the encoder uses it."""
        return [self.maps(images), *([self.maps(images.flip(-1))] if self.mirror else [])]


def operations(part: nn.Module, x: Tensor) -> int:
    """The floating-point operations of convolutions and matrix products in a forward pass.

    >>> operations(nn.Linear(10, 20), torch.zeros(3, 10))  # a product and a sum for each weight and row
    1200
    """
    with torch.no_grad(), _Counter() as counter:
        part(x)
    return counter.total


class _Counter(TorchDispatchMode):
    """Adds up the operations of all calls by torch's formulas.

    torch's ``FlopCounterMode`` also follows modules, and fails where a parameter is expanded and handed to one.
    """

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        found = func(*args, **(kwargs or {}))
        if formula := flop_registry.get(func.overloadpacket):
            self.total += formula(*args, **(kwargs or {}), out_val=found)
        return found


def _blocks(body: ViT, preprocess: Preprocess, most: float) -> int:
    """The number of blocks in the tail of a vision transformer: half of them at most, and one at least."""
    weight = body.patch.weight
    with torch.no_grad():
        tokens, _, _ = body.embedded(weight.new_zeros(1, preprocess.channels, *preprocess.size))
    return int(max(1, min(len(body.blocks) // 2, most / operations(body.blocks[-1], tokens))))


def _cut(layers: list[nn.Module]) -> int:
    """The number of layers in the trunk."""
    weights = [sum(weight.numel() for weight in layer.parameters()) for layer in layers]
    kept = 0
    for cut in range(len(layers) - 1, 0, -1):
        kept += weights[cut]
        if kept >= SHARE * sum(weights):
            return cut
    return 0
