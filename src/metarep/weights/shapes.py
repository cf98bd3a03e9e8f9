"""Shapes of a network's tensors without their values, for a check before memory is taken for them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class _Undrawn(TorchFunctionMode):
    """Skips random initialisation. On tensors without values, torch would import its compiler, for over a second."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: tuple[type, ...],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the function returns
        return args[0] if func in (Tensor.normal_, Tensor.uniform_) else func(*args, **(kwargs or {}))


@contextmanager
def shapes_only() -> Iterator[None]:
    """A context in which new tensors and modules have shapes but no values, and take no memory.

    >>> with shapes_only():
    ...     layer = torch.nn.Conv2d(10**6, 10**6, 3)
    >>> layer.weight.shape
    torch.Size([1000000, 1000000, 3, 3])
    """
    with torch.device("meta"), _Undrawn():
        yield
