"""Exchanges through shared memory: those of gloo, and an error when a process ends."""

import os
import time

import pytest
import torch
import torch.distributed as dist
from ranks import LIMIT, run_ranks
from torch import Tensor

from metarep.fast import c, shared_memory
from metarep.machine import transport
from metarep.machine.ranks import gather_rows, rank, stacked_over_ranks, sum_over_ranks

pytestmark = [
    pytest.mark.slow,  # processes that import torch take seconds to start
    pytest.mark.skipif(c.library() is None or not hasattr(os, "memfd_create"), reason="needs the C code and Linux"),
]
SHAPES = ((), (0, 3), (129,), (7, 5), (shared_memory.CAPACITY // 8 + 1, 2))  # the last is too large for the memory
TYPES = (torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8)


def own(shape: tuple[int, ...], dtype: torch.dtype, of: int) -> Tensor:
    """The tensor of a process: other numbers on each, whose sums are exact in any order."""
    return (torch.arange(max(1, torch.Size(shape).numel())) % 5 + of)[: torch.Size(shape).numel()].view(shape).to(dtype)


def exchanged() -> list[str]:
    """What went wrong."""
    wrong, n = [], dist.get_world_size()
    for again in range(3):  # both halves of the memory
        for shape in SHAPES:
            for dtype in TYPES:
                every = torch.stack([own(shape, dtype, of) for of in range(n)])
                tensor = own(shape, dtype, rank())
                total = sum_over_ranks(tensor)
                right = total.dtype == dtype and total.equal(every.sum(0, dtype=dtype)) and tensor.equal(every[rank()])
                if not (right and stacked_over_ranks(tensor).equal(every)):
                    wrong.append(f"{again} {shape} {dtype}")
    rows = torch.ones(1, 2, requires_grad=True)
    (gather_rows(rows, n) * (rank() + 1)).sum().backward()
    assert rows.grad is not None
    if rows.grad.tolist() != [[n * (n + 1) / 2] * 2]:
        wrong.append("gradient of gathered rows")
    ahead = torch.zeros(n, 2, requires_grad=True)  # its gradient is that of the gathered rows, the same tensor
    (ahead * 2 + gather_rows(rows, n)).sum().backward()
    assert ahead.grad is not None
    if ahead.grad.tolist() != [[2.0, 2.0]] * n:
        wrong.append("gradient of another branch")
    if transport.shared_memory() is None:
        wrong.append("not through shared memory")
    return wrong


def equal_digits() -> list[str]:
    """Sums of numbers whose sum depends on its order."""
    sums = [
        sum_over_ranks(torch.randn(1000, generator=torch.Generator().manual_seed(rank() + 3 * i))) for i in range(9)
    ]
    return [str(one.double().sum().item().hex()) for one in sums]


def late() -> float:
    """The sum of two exchanges, to which the first process comes late."""
    total = 0.0
    for _ in range(2):
        if rank() == 0:
            time.sleep(0.5)
        total += sum_over_ranks(torch.ones(1)).item()
    return total


def everything() -> tuple[list[str], list[str], float, float]:
    return exchanged(), equal_digits(), late(), transport.shared_memory().limit


def test_exchanges_are_those_of_gloo_and_all_processes_get_the_same_digits() -> None:
    wrong, digits, waited, limits = zip(*run_ranks(3, everything), strict=True)
    assert wrong == ([],) * 3
    assert all(each == digits[0] for each in digits)
    assert waited == (6.0,) * 3
    assert limits == (LIMIT.total_seconds(),) * 3


def lose(how: str) -> str:
    """The error on the process that waits for another one."""
    transport.shared_memory().limit = 1.0
    destroy = dist.destroy_process_group
    dist.destroy_process_group = lambda: None  # run_ranks would wait in it for the other
    if rank() == 1:
        if how == "leave":
            destroy()
        if how != "end":
            time.sleep(2)
        return ""
    try:
        sum_over_ranks(torch.ones(1))
    except RuntimeError as error:
        return str(error)
    return "no error"


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("end", "Connection closed by peer: process 1 has ended, or has left the others"),
        ("leave", "Connection closed by peer: process 1 has ended, or has left the others"),
        ("sleep", "Connection timed out: a process has not come for 1 s"),
    ],
)
def test_a_process_that_does_not_come_is_noticed(how: str, message: str) -> None:
    assert run_ranks(2, lose, how) == [message, ""]


def late_end() -> str:
    """What a process that is held up says of one that has come to the last meeting and ended meanwhile."""
    shared = transport.shared_memory()
    if rank() == 1:
        time.sleep(1)
        shared.add_all(torch.ones(1))
        return ""
    real, shared_memory._is_alive = shared_memory._is_alive, lambda _: time.sleep(1)  # the other one comes meanwhile
    tensor = torch.ones(1)
    shared.add_all(tensor)
    shared_memory._is_alive = real
    return str(tensor.item())


def test_a_process_that_came_and_ended_is_not_lost() -> None:
    assert run_ranks(2, late_end) == ["2.0", ""]


def without_shared_memory() -> list[tuple[str, bool, float]]:
    """What takes shared memory from one process, whether this one has it, and the sum of an exchange."""
    spoilt = [("library", 1), ("_made", 0), ("_opened", 1)]  # no C compiler; forbidden; on another machine
    results = []
    for name, of in spoilt:
        before = getattr(shared_memory, name)
        if rank() == of:
            setattr(shared_memory, name, lambda *_, name=name: -1 if name == "_made" else None)
        transport._memories.clear()
        has = transport.shared_memory() is not None
        results.append((name, has, sum_over_ranks(torch.ones(1)).item()))
        setattr(shared_memory, name, before)
    return results


def test_all_processes_fall_back_to_gloo_together() -> None:
    for results in run_ranks(2, without_shared_memory):
        assert results == [("library", False, 2.0), ("_made", False, 2.0), ("_opened", False, 2.0)]
