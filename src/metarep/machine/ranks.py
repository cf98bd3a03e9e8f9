"""Ranks: the processes of one training, as torchrun starts them, and what they send each other.

In a single process every function here returns its argument, at no cost. So the code that calls them is the same for
one process and for a thousand. Gradients are *averaged* over ranks: a loss that each rank computes from its own part of
a batch counts with the weight of this part, and a loss of the whole batch is computed by every rank.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from metarep.machine.transport import add_all, all_of

_joined = False  # whether this library may use the process group; another program may have made one for itself


@contextmanager
def joined(on: bool = True) -> Iterator[None]:
    """A context in which this library works on all processes of torch's default process group.

    Every process must then call the same functions in the same order.

    Args:
        on: False for work of one process alone, inside another such context.

    >>> with joined():
    ...     ranks()
    1
    """
    global _joined
    before, _joined = _joined, on and dist.is_available() and dist.is_initialized()
    try:
        yield
    finally:
        _joined = before


def rank() -> int:
    """The number of this process, from 0; 0 in a single process.

    >>> rank()
    0
    """
    return dist.get_rank() if ranks() > 1 else 0


def ranks() -> int:
    """The number of processes that work together; 1 outside of :func:`joined`.

    >>> ranks()
    1
    """
    return dist.get_world_size() if _joined else 1


@dataclass(frozen=True)
class Part:
    """The part of a sequence that belongs to one rank: contiguous, and as long as those of the others, or one longer.

    Args:
        rank: number of the rank, from 0.
        ranks: number of ranks.
        total: length of the whole sequence.

    >>> [Part(rank, 3, 8).slice for rank in range(3)]
    [slice(0, 3, None), slice(3, 6, None), slice(6, 8, None)]
    """

    rank: int
    ranks: int
    total: int

    @staticmethod
    def own(total: int) -> "Part":
        """The part of this process."""
        return Part(rank(), ranks(), total)

    @property
    def start(self) -> int:
        """The position of its first item."""
        each, more = divmod(self.total, self.ranks)
        return self.rank * each + min(self.rank, more)

    @property
    def stop(self) -> int:
        """The position after its last item."""
        return Part(self.rank + 1, self.ranks, self.total).start

    @property
    def slice(self) -> slice:
        """Its positions."""
        return slice(self.start, self.stop)

    @property
    def length(self) -> int:
        """Its number of items."""
        return self.stop - self.start

    @property
    def most(self) -> int:
        """The length of the longest part."""
        return -(-self.total // self.ranks)

    @property
    def weight(self) -> float:
        """How much the mean over this part counts in the mean over ranks; 1 if all parts have equal lengths.

        >>> Part(0, 2, 3).weight
        1.3333333333333333
        """
        return self.length * self.ranks / self.total


def gather_rows(own: Float[Tensor, "own *row"], total: int) -> Float[Tensor, "total *row"]:
    """The rows of all ranks, in their order. Gradients flow back to the rank that a row came from.

    Args:
        own: the rows of this rank, which are its :class:`Part` of all rows.
        total: number of rows of all ranks.

    >>> gather_rows(torch.ones(2, 3), 2).shape
    torch.Size([2, 3])
    """
    return own if ranks() == 1 else _GatherRows.apply(own, Part.own(total))


class _GatherRows(torch.autograd.Function):
    """Joins the rows of all ranks; the gradient of a row is the sum of those that all ranks computed for it."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, part: Part) -> Tensor:  # noqa: ANN401
        ctx.part = part
        padded = own.new_zeros(part.most, *own.shape[1:])
        padded[: len(own)] = own
        rows = all_of(padded)
        lengths = [Part(other, part.ranks, part.total).length for other in range(part.ranks)]
        return torch.cat([each[:length] for each, length in zip(rows, lengths, strict=True)])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        total = above.clone(memory_format=torch.contiguous_format)  # another branch may have the same gradient
        add_all(total)
        return total[ctx.part.slice], None


def gather_all(own: Tensor) -> Tensor:
    """The rows of all ranks, in their order, without a gradient; each may have any number of rows.

    >>> gather_all(torch.ones(2, 3)).shape
    torch.Size([2, 3])
    """
    if ranks() == 1:
        return own
    lengths = stacked_over_ranks(torch.tensor([len(own)], device=_exchange())).flatten().tolist()
    padded = own.new_zeros(max(lengths), *own.shape[1:])
    padded[: len(own)] = own.detach()
    return torch.cat([rows[:length] for rows, length in zip(stacked_over_ranks(padded), lengths, strict=True)])


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """The sum of this tensor over all ranks, without a gradient; in a single process the tensor itself.

    >>> sum_over_ranks(torch.tensor([2.0]))
    tensor([2.])
    """
    if ranks() == 1:
        return tensor
    total = tensor.detach().clone()
    add_all(total)
    return total


def stacked_over_ranks(tensor: Tensor) -> Tensor:
    """The tensors of all ranks as one, with the axis of ranks first, without a gradient. Their shapes are equal.

    >>> stacked_over_ranks(torch.tensor([2.0]))
    tensor([[2.]])
    """
    if ranks() == 1:
        return tensor.detach().unsqueeze(0)
    return torch.stack(all_of(tensor.detach().contiguous()))


def average(tensors: Iterable[Tensor], weight: float = 1.0) -> None:
    """Replace tensors by their means over ranks, in place, by one all-reduce for each dtype.

    Args:
        tensors: floating point; the same shapes on all ranks.
        weight: how much this rank counts, such as its number of tasks.
    """
    if ranks() == 1:
        return
    by_type: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        by_type.setdefault(tensor.dtype, []).append(tensor.detach())
    for some in by_type.values():
        flat = torch.cat([*(tensor.reshape(-1) for tensor in some), some[0].new_ones(1)]).mul_(weight)
        add_all(flat)
        parts = flat[:-1].div_(flat[-1]).split([tensor.numel() for tensor in some])
        torch._foreach_copy_(some, [part.view_as(tensor) for part, tensor in zip(parts, some, strict=True)])


def average_gradients(module: nn.Module) -> None:
    """Replace the gradients of a module by their means over ranks, by one flat all-reduce.

    A parameter that has no gradient on any rank must have none on all of them.
    """
    average(parameter.grad for parameter in module.parameters() if parameter.grad is not None)


def agreed(tensor: Tensor) -> Tensor:
    """The tensor of rank 0 on all ranks; in a single process the tensor itself.

    >>> agreed(torch.tensor([2]))
    tensor([2])
    """
    if ranks() == 1:
        return tensor
    copy = tensor.detach().to(_exchange()).contiguous()
    dist.broadcast(copy, 0)
    return copy.to(tensor.device)


def any_rank(flag: bool) -> bool:
    """Whether the flag is set on any rank; every rank gets the same answer.

    >>> any_rank(True)
    True
    """
    if ranks() == 1:
        return flag
    return bool(sum_over_ranks(torch.tensor([float(flag)], device=_exchange())).item())


def from_first(content: bytes | None) -> bytes:
    """The bytes that rank 0 gives, on every rank.

    Args:
        content: the bytes on rank 0; not read on other ranks.

    >>> from_first(b"state")
    b'state'
    """
    if ranks() == 1:
        assert content is not None
        return content
    size = int(agreed(torch.tensor([len(content or b"")])))
    if not size:
        return b""
    own = torch.frombuffer(bytearray(content), dtype=torch.uint8) if rank() == 0 and content else None
    return agreed(torch.zeros(size, dtype=torch.uint8) if own is None else own).numpy().tobytes()


def gather_values(value: Any) -> list[Any]:  # noqa: ANN401 - anything JSON holds
    """What each rank gives, in the order of ranks. It is sent as JSON.

    >>> gather_values({"a": 1})
    [{'a': 1}]
    """
    if ranks() == 1:
        return [value]
    text = bytearray(json.dumps(value).encode() + b"\n")
    every = gather_all(torch.frombuffer(text, dtype=torch.uint8).to(_exchange()))
    return [json.loads(line) for line in every.cpu().numpy().tobytes().splitlines()]


def _exchange() -> torch.device:
    """The device of tensors that ranks can exchange: the GPU with NCCL, otherwise the CPU."""
    return torch.device("cuda") if dist.get_backend() == "nccl" else torch.device("cpu")
