"""ToldForward: the forward of a layer that is more than a batch norm, told whose statistics to use."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from metarep.errors import MetarepError
from metarep.normalisation.explicit import normalise
from metarep.normalisation.told import Told, like


class ToldForward:
    """The forward of a layer that is more than a batch norm, with its call of ``batch_norm`` told what to use.

    So a subclass, a patched forward and hooks keep what they add (timm's ``BatchNormAct2d`` has its activation inside).

    Args:
        layer: a copy; this is to become its ``forward``.
        forward: what ran there until now.
        differentiable: as of :class:`ExplicitNorm`.
        path: of the layer, for errors.
    """

    def __init__(self, layer: _BatchNorm, forward: Callable[..., Any], *, differentiable: bool, path: str) -> None:
        self.called, self.forward, self.differentiable = type(layer).__name__, forward, differentiable
        self.told = Told(path, like(layer))

    def __call__(self, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401
        before = self.told.calls
        with _Told(self.told, self.differentiable):
            found = self.forward(*arguments, **named)
        if self.told.calls != before + 1:
            raise MetarepError(
                f"the norm layer {self.told.path!r} is a {self.called}, which keeps running statistics and computes in "
                "a way of its own; gradient descent on a task cannot tell it whose statistics to use. Put a "
                "BatchNorm2d, GroupNorm or LayerNorm there, or take a method that does not adapt the body (protonet, "
                "anil)"
            )
        return found


class _Told(TorchFunctionMode):
    """While a layer runs: its ``functional.batch_norm`` is the explicit one."""

    def __init__(self, told: Told, differentiable: bool) -> None:
        super().__init__()
        self.told, self.differentiable = told, differentiable

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        if func is not functional.batch_norm:
            return func(*args, **(kwargs or {}))
        return _instead(self, *args, **(kwargs or {}))


def _instead(
    mode: _Told,
    input: Tensor,
    running_mean: Tensor | None,  # noqa: ARG001
    running_var: Tensor | None,  # noqa: ARG001
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,  # noqa: ARG001
    momentum: float = 0.1,  # noqa: ARG001
    eps: float = 1e-5,
) -> Tensor:
    return normalise(input, weight, bias, eps, mode.told, differentiable=mode.differentiable)
