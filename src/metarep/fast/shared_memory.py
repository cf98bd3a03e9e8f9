"""Sums and gathers of the processes of one machine, through memory that they share.

gloo sends each number through the network of the machine, and a process that waits sleeps. On the machines where this
was measured, waking it took longer than the exchange: a sum of 129 numbers took 1 ms or more, of a step of 130 ms
that has ten. Here a process writes its tensor into shared memory and looks at it until the others have done the same.
"""

import mmap
import os
import secrets
import time
import weakref
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from metarep.fast.c import call_for_result, library

CAPACITY, TOTAL = 4 << 20, 64 << 20  # bytes of a tensor, and of all processes together; pages are taken when written
LINE = 16  # as in meeting.c
TOKEN, HEAD = 32, 128  # bytes by which a process knows that it has opened the right memory, and before the rest
AWAKE, GLANCE = 5000, 50  # microseconds of looking without a pause: at first, and between two naps
NAP, LONGEST_NAP = 5e-4, 5e-3  # seconds; a nap is a twentieth of the time that was waited, within these
LOOK_AFTER = 0.5  # seconds after which a process looks whether the others are alive
LIMIT = 1800.0  # seconds of waiting for a process that is alive, if the process group has no limit of its own


def shared_memory() -> "SharedMemory | None":
    """As :func:`metarep.machine.faster.shared_memory`."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    able = dist.get_backend() == "gloo" and hasattr(os, "memfd_create") and hasattr(library(), "metarep_meet")
    token = secrets.token_bytes(TOKEN)
    descriptor = _made(_size(ranks), token) if able and rank == 0 else -1
    try:
        offers: list[tuple[bool, int, int, bytes]] = [(False, 0, 0, b"")] * ranks
        dist.all_gather_object(offers, (able and (rank > 0 or descriptor >= 0), os.getpid(), descriptor, token))
        shared = _opened(offers[0], _size(ranks)) if all(offer[0] for offer in offers) else None
        seen, processes = [False] * ranks, [offer[1] for offer in offers]
        dist.all_gather_object(seen, shared is not None and all(map(_is_alive, processes)))
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    return SharedMemory(shared, rank, processes, _limit()) if shared is not None and all(seen) else None


class SharedMemory:
    """Exchanges tensors on the CPU with the other processes. All must call the same methods in the same order.

    Each exchange has one barrier (a meeting): all processes wait there until all have written. They write to one half
    of the memory before odd meetings, and to the other half before even ones. So a process can go on at once after a
    meeting. It writes to the same half again after the next one, to which the others come when they have read.

    Args:
        memory: the memory, which all processes map.
        rank: the number of this process.
        processes: the process ids of all.
        limit: seconds to wait for a process that is alive.
    """

    def __init__(self, memory: mmap.mmap, rank: int, processes: list[int], limit: float) -> None:
        self.rank, self.processes, self.limit, self.meetings = rank, processes, limit, 0
        ranks = len(processes)
        numbers = torch.frombuffer(memory, dtype=torch.int64, offset=HEAD)
        self.arrived = numbers[: ranks * LINE]
        self.left = self.arrived.view(ranks, LINE)[:, 1]  # 1 for each process that exchanges no more
        self.slots = numbers[ranks * LINE :].view(torch.uint8).view(2, ranks, -1)
        weakref.finalize(self, self.left[rank].fill_, 1)

    def takes(self, tensor: Tensor) -> bool:
        """Whether the memory has room for a tensor, and the tensor is on the CPU."""
        return tensor.device.type == "cpu" and tensor.numel() * tensor.element_size() <= self.slots.shape[-1]

    def add_all(self, tensor: Tensor) -> None:
        """Replaces a tensor by the sum over processes, the same on each to the last bit."""
        first, second, *others = self.gather(tensor)
        torch.add(first, second, out=tensor)
        for other in others:
            tensor.add_(other)

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Returns the tensors of all processes, in order. They must be copied before the next call."""
        size = tensor.numel() * tensor.element_size()
        rows = self.slots[(self.meetings + 1) % 2, :, :size].view(tensor.dtype)
        every = [row.view(tensor.shape) for row in rows]
        every[self.rank].copy_(tensor.detach())
        self._meet()
        return every

    def _meet(self) -> None:
        """Waits until all processes have come here as often as this one."""
        self.meetings += 1
        began = looked = time.monotonic()
        awake = AWAKE
        while call_for_result("metarep_meet", (self.arrived,), self.meetings, self.rank, len(self.processes), awake):
            now = time.monotonic()
            awake = GLANCE
            time.sleep(min(LONGEST_NAP, max(NAP, (now - began) / 20)))
            if now - looked > LOOK_AFTER:
                looked = now
                self._refuse_lost()
            if now - began > self.limit:
                raise RuntimeError(f"Connection timed out: a process has not come for {self.limit:.0f} s")

    def _refuse_lost(self) -> None:
        """Raises an error if a process that has not come here never will."""
        lost = [rank for rank, process in enumerate(self.processes) if self.left[rank] or not _is_alive(process)]
        for rank in lost:  # it may have come and then ended
            if self.arrived[rank * LINE] < self.meetings:
                raise RuntimeError(f"Connection closed by peer: process {rank} has ended, or has left the others")


def _size(ranks: int) -> int:
    return HEAD + ranks * (LINE * 8 + 2 * min(CAPACITY, TOTAL // ranks // HEAD * HEAD))


def _limit() -> float:
    """Returns the seconds that the process group waits for a process."""
    assert dist.group.WORLD is not None
    try:
        return dist.group.WORLD._get_backend(torch.device("cpu")).options._timeout.total_seconds()
    except (AttributeError, RuntimeError):  # torch does not promise these names
        return LIMIT


def _made(size: int, token: bytes) -> int:
    """Returns the descriptor of new memory without a name, which goes with its last process; -1 if there is none."""
    try:
        descriptor = os.memfd_create("metarep")
    except OSError:
        return -1
    try:
        os.truncate(descriptor, size)
        os.pwrite(descriptor, token, 0)
    except OSError:
        os.close(descriptor)
        return -1
    return descriptor


def _opened(offer: tuple[bool, int, int, bytes], size: int) -> mmap.mmap | None:
    """Maps the memory that the first process made.

    Returns None if that process runs elsewhere, also in another network or container of this machine, or if this one
    may not open its memory.
    """
    _, process, descriptor, token = offer
    first = Path(f"/proc/{process}")
    path = first / f"fd/{descriptor}"
    try:
        near = all((first / space).samefile(Path("/proc/self", space)) for space in ("ns/net", "ns/pid"))
        if not near or not path.is_file() or path.stat().st_size != size:
            return None
        with path.open("r+b") as file:
            memory = mmap.mmap(file.fileno(), size)
    except OSError:
        return None
    return memory if memory[:TOKEN] == token else None


def _is_alive(process: int) -> bool:
    """Returns whether a process runs; one that has ended is still listed until its parent asks for its status."""
    try:
        state = Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()[0]  # a name may be any bytes
    except OSError:
        return False
    return state not in b"ZX"
