"""ExplicitForward: runs a layer that is more than a batch norm with explicitly chosen statistics."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from metarep.encoders.normalisation.explicit import normalise
from metarep.encoders.normalisation.pass_statistics import PassStatistics, like
from metarep.errors import MetarepError


class ExplicitForward:
    """Replaces the ``forward`` of a batch norm subclass: it runs as before, but ``batch_norm`` uses chosen statistics.

    So a subclass, a patched forward and hooks keep what they add (timm's ``BatchNormAct2d`` has its activation inside).

    Args:
        layer: a copy of the layer; this object becomes its ``forward``.
        forward: the forward of the layer until now.
        differentiable: see :class:`ExplicitNorm`.
        path: path of the layer in the network, for messages.
    """

    def __init__(self, layer: _BatchNorm, forward: Callable[..., Any], *, differentiable: bool, path: str) -> None:
        self.layer_type, self.forward, self.differentiable = type(layer).__name__, forward, differentiable
        self.statistics = PassStatistics(path, like(layer))

    def __call__(self, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401
        before = self.statistics.calls
        with _ExplicitBatchNorm(self.statistics, self.differentiable):
            output = self.forward(*arguments, **named)
        if self.statistics.calls != before + 1:
            raise MetarepError(
                f"the norm layer {self.statistics.path!r} is a {self.layer_type}, which keeps running statistics and "
                "does not call batch_norm exactly once; gradient descent on a task cannot set the statistics that it "
                "uses. Put a BatchNorm2d, GroupNorm or LayerNorm there, or take a method that does not adapt the body "
                "(protonet, anil)"
            )
        return output


class _ExplicitBatchNorm(TorchFunctionMode):
    """Replaces ``functional.batch_norm`` by :func:`normalise` while a layer runs."""

    def __init__(self, statistics: PassStatistics, differentiable: bool) -> None:
        super().__init__()
        self.statistics, self.differentiable = statistics, differentiable

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        if func is not functional.batch_norm:
            return func(*args, **(kwargs or {}))
        return _batch_norm(self, *args, **(kwargs or {}))


def _batch_norm(
    mode: _ExplicitBatchNorm,
    input: Tensor,
    running_mean: Tensor | None,  # noqa: ARG001
    running_var: Tensor | None,  # noqa: ARG001
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,  # noqa: ARG001
    momentum: float = 0.1,  # noqa: ARG001
    eps: float = 1e-5,
) -> Tensor:
    """:func:`normalise` with the parameters of ``functional.batch_norm``."""
    return normalise(input, weight, bias, eps, mode.statistics, differentiable=mode.differentiable)
