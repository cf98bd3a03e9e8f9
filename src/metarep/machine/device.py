"""Device, precision and memory of this process, and the environment of a measurement."""

import ctypes
import functools
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch

from metarep.errors import Advice, MetarepError
from metarep.machine.version import __version__

Precision = Literal["float32", "bfloat16"]
PACKAGES = ("metarep", "torch", "numpy", "pillow", "safetensors")


def pick_device(name: torch.device | str = "auto") -> torch.device:
    """The device with this name.

    Args:
        name: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``, or a device. ``auto`` takes a CUDA GPU, else an Apple
            GPU, else the CPU.

    Raises:
        MetarepError: the device cannot be used on this machine.

    >>> pick_device("cpu")
    device(type='cpu')
    """
    if isinstance(name, torch.device):
        return name
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise MetarepError(
            f"device {name!r} cannot be used here: {str(error).splitlines()[0]}. Try cpu, cuda or auto"
        ) from error
    return device


def pick_precision(name: str, device: torch.device) -> Precision:
    """The precision with this name, ``float32`` or ``bfloat16``.

    Args:
        name: ``float32``, ``bfloat16``, or ``auto``, which takes bfloat16 if the device has arithmetic in it.
        device: the device to compute on.

    Raises:
        MetarepError: an unknown name; or bfloat16 on a device without arithmetic in it, which would emulate it slowly.

    >>> pick_precision("float32", torch.device("cpu"))
    'float32'
    """
    able = _computes_bfloat16(device.type)
    if name == "auto":
        return "bfloat16" if able else "float32"
    if name not in ("float32", "bfloat16"):
        raise MetarepError(f"precision {name!r} is not one of auto, float32, bfloat16")
    if name == "bfloat16" and not able:
        raise MetarepError(
            f"this {device.type} has no bfloat16 arithmetic",
            advice=Advice("use {precision} or auto", precision="float32"),
        )
    return "bfloat16" if name == "bfloat16" else "float32"


@functools.cache
def _computes_bfloat16(kind: str) -> bool:
    """Whether a kind of device has arithmetic in bfloat16."""
    if kind == "cuda":
        return torch.cuda.get_device_capability()[0] >= 8
    cpuinfo = Path("/proc/cpuinfo")
    if kind != "cpu" or not cpuinfo.exists():
        return False
    flags = cpuinfo.read_text()
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", "bf16 "))


def environment() -> dict[str, Any]:
    """The parts of the machine that a result can depend on: versions, platform, hardware and number of threads.

    >>> sorted(environment())
    ['hardware', 'packages', 'platform', 'python', 'threads']
    """
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = __version__ if package == "metarep" else "not installed"  # metarep runs from a checkout
    return {
        "python": sys.version.split()[0],
        "packages": versions,
        "platform": platform.platform(),
        "hardware": hardware(),
        "threads": torch.get_num_threads(),
    }


def hardware() -> str:
    """The name of the GPU; without one, that of the CPU with its threads: ``2 threads of AMD EPYC (AVX512)``."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    threads = torch.get_num_threads()
    return f"{threads} thread{'s' if threads != 1 else ''} of {model} ({torch.backends.cpu.get_cpu_capability()})"


@functools.cache
def keep_freed_memory() -> bool:
    """Make this process keep freed memory for its next use, instead of returning it to the system.

    glibc maps the memory of every large tensor anew and unmaps it when the tensor is freed. So each step of a training
    causes thousands of page faults: on two cores a Conv4 step of 360 images takes 1.7 times as long. ``train``,
    ``evaluate`` and all functions that encode images call this. Trap: tensors of many sizes leave gaps in the memory
    that is kept, so it grows with the largest batch. An encoder takes a few images at a time (``AT_ONCE``).

    Returns:
        Whether the setting was changed. It is changed on Linux with glibc only.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    map_threshold, trim_threshold = -3, -1  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD of malloc.h
    return bool(libc.mallopt(map_threshold, 1 << 30) and libc.mallopt(trim_threshold, (1 << 31) - 1))


def return_freed_memory() -> None:
    """Return freed memory to the system, also what :func:`keep_freed_memory` keeps; without glibc nothing happens."""
    if platform.system() == "Linux" and platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def available_bytes(device: torch.device | str = "cpu") -> int:
    """The free memory of a GPU, or the memory of this machine that processes can still take, in bytes.

    Where a container may have less than the machine, its limit counts. Systems that do not tell count as having none.

    Args:
        device: a CUDA device; any other device counts as the CPU.

    >>> available_bytes() >= 0
    True
    """
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = 0
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) << 10
    for limit, taken in (("max", "current"), ("limit_in_bytes", "usage_in_bytes")):  # of both versions of cgroups
        folder = "/sys/fs/cgroup/" if limit == "max" else "/sys/fs/cgroup/memory/"
        most, used = _lines(f"{folder}memory.{limit}"), _lines(f"{folder}memory.{taken}")
        if most and used and most[0].isdecimal():
            free = min(free, max(0, int(most[0]) - int(used[0])))
    return free


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def resident_bytes() -> int:
    """The resident memory of this process in bytes; on systems without ``/proc`` its largest value so far."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most << 10
