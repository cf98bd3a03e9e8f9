"""PlainNorm: layer and instance normalisation that can be differentiated twice under vmap."""

from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm


class PlainNorm(nn.Module):
    """Layer or instance normalisation in plain arithmetic.

    Trap: torch's own have a second derivative under vmap that is off, by about a ten-thousandth; group normalisation is
    right.

    Ba et al., Layer Normalization, 2016; Ulyanov et al., Instance Normalization, 2016.

    Args:
        layer: the layer; its parameters are shared.
    """

    weight: Tensor | None
    bias: Tensor | None

    def __init__(self, layer: nn.LayerNorm | _InstanceNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = layer.weight, layer.bias, layer.eps
        self.sides = len(layer.normalized_shape) if isinstance(layer, nn.LayerNorm) else 0  # 0: all places of a channel

    def forward(self, x: Tensor) -> Tensor:
        axes = tuple(range(x.ndim - self.sides if self.sides else 2, x.ndim))
        centred = x - x.mean(axes, keepdim=True)
        x = centred * (centred.square().mean(axes, keepdim=True) + self.eps).rsqrt()
        places = () if self.sides else (1,) * (x.ndim - 2)  # a weight of channels stands before their places
        x = x if self.weight is None else x * self.weight.reshape(*self.weight.shape, *places)
        return x if self.bias is None else x + self.bias.reshape(*self.bias.shape, *places)
