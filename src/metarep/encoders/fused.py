"""Convolution, norm and ReLU6 as one operation, for images that are only looked at: no training, no gradient."""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from metarep.encoders.eager import eager_on_cpu

Run = Callable[[Tensor], Tensor]
KNOWN = (nn.BatchNorm2d, nn.ReLU6, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Sequential)

_kept: WeakKeyDictionary[nn.Module, tuple[object, list[Run]]] = WeakKeyDictionary()


@runtime_checkable
class Fusing(Protocol):
    """A layer that is made of several."""

    def fused(self) -> Run: ...


def fused_layers(body: nn.Sequential, x: Float[Tensor, "b c h w"], *own: type[nn.Module]) -> list[Run] | None:
    """What to call in turn instead of a body's layers, equal but for rounding; None where they must run as they are.

    That is where ``x`` or a weight asks for a gradient, where the body trains, on an accelerator, in another precision
    than float32, and where a layer is not what it was made as: another norm, a subclass or a hook would be passed over.
    It is also where a number is none, since ReLU6 inside a convolution makes 6 of NaN and hides it.

    Args:
        body: the layers.
        x: the images.
        own: kinds of layers that the body has besides the common ones.
    """
    if body.training or torch.is_grad_enabled() or not eager_on_cpu(x) or torch.is_autocast_enabled("cpu"):
        return None
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled and x.dtype == torch.float32):  # pyright: ignore[reportAttributeAccessIssue]
        return None
    numbers = [*body.parameters(), *(value for value in body.buffers() if value.is_floating_point())]
    if any(value.dtype != torch.float32 or value.device != x.device for value in numbers):
        return None
    if not all(type(each) in (*KNOWN, *own, type(body)) and _untouched(each) for each in body.modules()):
        return None
    norms = torch.stack(torch._foreach_norm(numbers))  # also sees what is written through ``.data``
    if not bool(norms.isfinite().all()) or not bool(x.isfinite().all()):
        return None
    state = [(value.data_ptr(), value._version) for value in numbers], norms.tolist()
    found = _kept.get(body)
    if found is None or found[0] != state:
        _kept[body] = found = state, fuse_layers(list(body))
    return found[1]


def fuse_layers(layers: Sequence[nn.Module]) -> list[Run]:
    """Each convolution with the norm and the ReLU6 that follow it, and the other layers."""
    rest, found = list(layers), list[Run]()
    while rest:
        layer = rest.pop(0)
        if isinstance(layer, nn.Conv2d) and rest and isinstance(norm := rest[0], nn.BatchNorm2d):
            relu6 = isinstance(rest[1] if len(rest) > 1 else None, nn.ReLU6)
            rest = rest[1 + relu6 :]
            found.append(fuse(layer, norm, relu6=relu6))
        else:
            found.append(layer.fused() if isinstance(layer, Fusing) else layer)
    return found


def fuse(convolution: nn.Conv2d, norm: nn.BatchNorm2d, *, relu6: bool) -> Run:
    """A convolution under TensorFlow's rule "same", the norm behind it, and ReLU6.

    The norm's factor goes into the filters and its shift becomes the bias. At stride 2 an even side has its odd pixel
    of padding below and right; a row and a column of zeros before the filter say the same with equal padding, and no
    padded copy of the map is made.
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor = norm.weight * (norm.running_var + norm.eps).rsqrt()
    bias = torch.addcmul(norm.bias, norm.running_mean, factor, value=-1)
    weight = (convolution.weight * factor.view(-1, 1, 1, 1)).detach()
    (kernel, _), (stride, _), groups = convolution.kernel_size, convolution.stride, convolution.groups
    activation, limits = ("hardtanh", [0.0, 6.0]) if relu6 else ("none", [])
    strides, packed = [stride] * 2, dict[bool, Tensor]()

    def pack(wide: bool, padding: list[int], shape: torch.Size) -> Tensor:
        """Filters in the order in which oneDNN reads them, once."""
        if wide not in packed:
            own = functional.pad(weight, (1, 0, 1, 0)) if wide else weight
            packed[wide] = torch.ops.mkldnn._reorder_convolution_weight(own, padding, strides, [1, 1], groups, shape)
        return packed[wide]

    def run(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        sides, padding = [side % stride for side in x.shape[-2:]], [kernel // 2] * 2
        if sides in ([0, 1], [1, 0]):
            down, across = (kernel - 2 + side for side in sides)
            x = functional.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2))
            own, padding = weight, [0, 0]
        else:
            own = pack(stride == 2 and sides == [0, 0], padding, x.shape)
        return torch.ops.mkldnn._convolution_pointwise(
            x, own, bias, padding, strides, [1, 1], groups, activation, limits, ""
        )

    return run


def _untouched(module: nn.Module) -> bool:
    """No hook, no forward of somebody else's, and a norm that has statistics and a scale of its own."""
    if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
        return False
    return not isinstance(module, nn.BatchNorm2d) or (module.affine and module.track_running_stats)
