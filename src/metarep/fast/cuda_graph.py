"""CUDA graph of a function: its kernel launches are recorded once, then replayed as one launch."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

KEPT = 4  # recordings a module, each with memory of its own
_WARM_UP = 3  # calls before one is recorded, as torch asks for


class CapturedFunction:
    """A CUDA graph of a function of tensors: one launch replays its many small kernel launches.

    Args:
        function: of nested lists and tuples of tensors and numbers; it never waits for a value, and always does the
            same for tensors of these shapes. What it reads besides its arguments must stay where it is.
        arguments: of the shapes that it will be called with; what is not a tensor is a constant.
    """

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        leaves, shape = pytree.tree_flatten(arguments)
        self.inputs = [leaf.detach().clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        own = pytree.tree_unflatten(self.inputs, shape)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                function(*own)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, stream=stream, capture_error_mode="thread_local"):
            self.results = function(*own)

    def __call__(self, *arguments: Any) -> Any:  # noqa: ANN401
        """The same of other values. What comes back is overwritten by the next call."""
        values = pytree.tree_leaves(arguments)
        pairs = [(own, new) for own, new in zip(self.inputs, values, strict=True) if isinstance(own, Tensor)]
        for kind in {own.dtype for own, _ in pairs}:
            some = [(own, new.detach()) for own, new in pairs if own.dtype == kind]
            torch._foreach_copy_([own for own, _ in some], [new for _, new in some])
        self.graph.replay()
        return self.results


_captured: WeakKeyDictionary[nn.Module, OrderedDict[Hashable, CapturedFunction | None]] = WeakKeyDictionary()


def replay(owner: nn.Module, key: Hashable, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:  # noqa: ANN401
    """``function(*arguments)``; from the second call of the same kind on by a recording.

    Args:
        owner: recordings live as long as it does; the ones used last are kept.
        key: everything that ``function`` does depends on, but for its arguments, whose shapes and numbers are looked
            at here.
        function, arguments: as :class:`CapturedFunction` takes them.
    """
    leaves, shape = pytree.tree_flatten(arguments)
    seen = tuple((leaf.shape, leaf.dtype, leaf.device) if isinstance(leaf, Tensor) else leaf for leaf in leaves)
    captured_by_owner = _captured.setdefault(owner, OrderedDict())
    full = (key, seen, str(shape))
    if full not in captured_by_owner:
        captured_by_owner[full] = None  # what comes once only is not worth it
        while len(captured_by_owner) > KEPT:
            captured_by_owner.popitem(last=False)
        return function(*arguments)
    captured_by_owner.move_to_end(full)
    device = next(leaf.device for leaf in leaves if isinstance(leaf, Tensor))
    with torch.cuda.device(device):
        recording = captured_by_owner[full]
        if recording is None:
            recording = captured_by_owner[full] = CapturedFunction(function, arguments)
        return recording(*arguments)
