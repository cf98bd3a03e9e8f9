"""Peak: the most memory that a piece of work took."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from metarep.machine.device import return_freed_memory

RESET = Path("/proc/self/clear_refs")
STATUS = Path("/proc/self/status")
RESET_PEAK = "5"  # proc(5): set the peak of the resident memory to its present value


class Peak:
    """The most memory that was taken, in bytes; None while the work runs, or if the system does not tell."""

    bytes: int | None = None


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Peak]:
    """A context that measures how much memory its work takes at most, in addition to what was taken before.

    On a CUDA device it is the memory of the tensors there. Elsewhere it is the resident memory of the process, which
    Linux alone tells.

    Args:
        device: where the work runs.

    >>> with peak_memory(torch.device("cpu")) as peak:
    ...     many = torch.ones(100_000_000)
    >>> peak.bytes is None or 300_000_000 < peak.bytes < 500_000_000
    True
    """
    gc.collect()
    peak = Peak()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield peak
        peak.bytes = torch.cuda.max_memory_allocated(device) - before
        return
    return_freed_memory()
    with suppress(OSError):
        RESET.write_text(RESET_PEAK)
    start = _resident("VmHWM")
    yield peak
    end = _resident("VmHWM")
    peak.bytes = None if start is None or end is None else end - start


def _resident(field: str) -> int | None:
    """A number of bytes from the status of this process; None where there is none."""
    with suppress(OSError, ValueError, StopIteration):
        lines = STATUS.read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
    return None
