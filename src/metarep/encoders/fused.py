"""Layer fusion for inference on a CPU: convolution, batch norm and ReLU6 run as one oneDNN operation."""

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
    """A layer made of several layers, which can give a fused version of itself."""

    def fused(self) -> Run:
        """A function that computes what the layer computes, with its parts fused."""
        ...


def fused_layers(body: nn.Sequential, x: Float[Tensor, "b c h w"], *own: type[nn.Module]) -> list[Run] | None:
    """The fused functions to call in order instead of a body's layers; None where the layers must run as they are.

    The results are equal up to rounding. Layers are not fused in training, with gradients enabled, on an accelerator,
    or in another precision than float32. They are not fused either if one of them is of an unknown type or has a hook,
    which would be skipped. NaN and infinite values are not fused, because ReLU6 inside a oneDNN convolution turns NaN
    into 6 and hides it. The fused functions are kept until a weight changes.

    Args:
        body: the layers.
        x: the images.
        own: types of layers that the body has in addition to the common ones.
    """
    if body.training or torch.is_grad_enabled() or not eager_on_cpu(x) or torch.is_autocast_enabled("cpu"):
        return None
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled and x.dtype == torch.float32):  # pyright: ignore[reportAttributeAccessIssue]
        return None
    modules, known = list(body.modules()), {*KNOWN, *own, type(body)}
    if not all(type(each) in known and _untouched(each) for each in modules):
        return None
    own_values = (values for each in modules for values in (each._parameters.values(), each._buffers.values()))
    weights = [value for values in own_values for value in values if value is not None and value.is_floating_point()]
    if any(value.dtype != torch.float32 or value.device != x.device for value in weights):
        return None
    norms = torch.stack(torch._foreach_norm(weights))  # a write through ``.data`` changes these, but no version
    if not bool(norms.isfinite().all()) or not bool(x.sum().isfinite()):  # a sum takes a tenth of the time of a search
        return None
    state = [(value.data_ptr(), value._version) for value in weights], norms.tolist()
    kept = _kept.get(body)
    if kept is None or kept[0] != state:
        _kept[body] = kept = state, fuse_layers(list(body))
    return kept[1]


def fuse_layers(layers: Sequence[nn.Module]) -> list[Run]:
    """Fuse each convolution with the batch norm and the ReLU6 behind it; other layers stay as they are."""
    rest, functions = list(layers), list[Run]()
    while rest:
        layer = rest.pop(0)
        if isinstance(layer, nn.Conv2d) and rest and isinstance(norm := rest[0], nn.BatchNorm2d):
            relu6 = isinstance(rest[1] if len(rest) > 1 else None, nn.ReLU6)
            rest = rest[1 + relu6 :]
            functions.append(fuse(layer, norm, relu6=relu6))
        else:
            functions.append(layer.fused() if isinstance(layer, Fusing) else layer)
    return functions


def fuse(convolution: nn.Conv2d, norm: nn.BatchNorm2d, *, relu6: bool) -> Run:
    """One function for a convolution with TensorFlow's "same" padding, the batch norm behind it, and ReLU6.

    The scale of the norm is multiplied into the filters, and its shift becomes the bias. At stride 2, a map with an
    even side needs one extra pixel of padding below and right. Instead of padding a copy of the map, a row and a column
    of zeros are put before the filter, which is then used with equal padding on all sides.

    Args:
        convolution: a layer without a bias.
        norm: a layer with running statistics.
        relu6: whether a ReLU6 follows.
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
        """The filters in oneDNN's memory layout; they are reordered once and kept."""
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
    """Whether a layer has no hook and no patched forward, and, if it is a norm, running statistics and a scale."""
    if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
        return False
    return not isinstance(module, nn.BatchNorm2d) or (module.affine and module.track_running_stats)
