"""Device, precision and memory of this process, and the environment that a number was measured in."""

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
    """The device called ``name``; ``auto`` takes a CUDA GPU, then Apple's, then the CPU."""
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
    """``float32`` or ``bfloat16``; ``auto`` takes bfloat16 where the processor computes in it, not merely stores it.

    Raises:
        MetarepError: bfloat16 is asked for and the processor lacks it: it would be emulated, and slow.
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
    if kind == "cuda":
        return torch.cuda.get_device_capability()[0] >= 8
    cpuinfo = Path("/proc/cpuinfo")
    if kind != "cpu" or not cpuinfo.exists():
        return False
    flags = cpuinfo.read_text()
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", "bf16 "))


def environment() -> dict[str, Any]:
    """What could make a difference to a number: versions, processor, threads."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = __version__ if package == "metarep" else "not installed"  # it runs from a checkout
    return {
        "python": sys.version.split()[0],
        "packages": versions,
        "platform": platform.platform(),
        "hardware": hardware(),
        "threads": torch.get_num_threads(),
    }


def hardware() -> str:
    """The processor as results name it: ``2 x AMD EPYC (avx512)``, or the GPU's name."""
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
    """Let this process keep freed memory for its next use rather than hand it back. True where that could be done.

    glibc maps every large tensor anew and unmaps it when freed, so each step of a training pays for thousands of page
    faults: on two cores a Conv4 step of 360 images takes 1.7 times as long. Called by ``train``, ``evaluate`` and
    whatever encodes images; Linux with glibc only. Trap: tensors of many sizes fill what is kept with gaps, so memory
    grows with the largest batch; an encoder takes a few images at a time (``AT_ONCE``).
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    map_threshold, trim_threshold = -3, -1  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD of malloc.h
    return bool(libc.mallopt(map_threshold, 1 << 30) and libc.mallopt(trim_threshold, (1 << 31) - 1))


def resident_bytes() -> int:
    """Memory that this process holds now; its largest so far where the system does not say."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most << 10
