"""CUDA graph of a function: its kernel launches are recorded once, then replayed as one launch."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

KEPT = 4  # CUDA graphs of a module; each has its own memory
_WARM_UP = 3  # calls before the capture, as torch's manual recommends


class CapturedFunction:
    """A CUDA graph of a function of tensors: one launch replays its many small kernel launches.

    Args:
        function: a function of nested lists and tuples of tensors and numbers. It must not need a host synchronisation,
            and it must run the same kernels for all tensors of these shapes. Other tensors that it reads must keep
            their address in memory.
        arguments: arguments with the shapes of later calls; an argument that is not a tensor is a constant.
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
        """Returns the result for other values of the arguments. The next call overwrites the result."""
        values = pytree.tree_leaves(arguments)
        pairs = [(own, new) for own, new in zip(self.inputs, values, strict=True) if isinstance(own, Tensor)]
        for kind in {own.dtype for own, _ in pairs}:
            some = [(own, new.detach()) for own, new in pairs if own.dtype == kind]
            torch._foreach_copy_([own for own, _ in some], [new for _, new in some])
        self.graph.replay()
        return self.results


_graphs: WeakKeyDictionary[nn.Module, OrderedDict[Hashable, CapturedFunction | None]] = WeakKeyDictionary()


def replay(owner: nn.Module, key: Hashable, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:  # noqa: ANN401
    """Returns ``function(*arguments)``; from the second call with the same key and shapes on by a CUDA graph.

    Args:
        owner: its CUDA graphs are freed with it. The ``KEPT`` graphs used last are kept.
        key: everything else that the kernels of ``function`` depend on. The shapes and dtypes of the arguments, and
            the numbers among them, are part of the key in any case.
        function, arguments: as :class:`CapturedFunction` takes them.
    """
    leaves, shape = pytree.tree_flatten(arguments)
    seen = tuple((leaf.shape, leaf.dtype, leaf.device) if isinstance(leaf, Tensor) else leaf for leaf in leaves)
    graphs = _graphs.setdefault(owner, OrderedDict())
    full = (key, seen, str(shape))
    if full not in graphs:
        graphs[full] = None  # a capture is not worth its time for a single call
        while len(graphs) > KEPT:
            graphs.popitem(last=False)
        return function(*arguments)
    graphs.move_to_end(full)
    device = next(leaf.device for leaf in leaves if isinstance(leaf, Tensor))
    with torch.cuda.device(device):
        graph = graphs[full]
        if graph is None:
            graph = graphs[full] = CapturedFunction(function, arguments)
        return graph(*arguments)
