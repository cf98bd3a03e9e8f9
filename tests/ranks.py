"""run_ranks: call a function on several processes that are joined by gloo, as torchrun joins them."""

import os
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import multiprocessing

from metarep.machine.ranks import joined

LIMIT = timedelta(minutes=10)  # of waiting for each other


def run_ranks(n: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """The results of ``function(*arguments)`` on each of ``n`` processes; an error on one of them is raised."""
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(_work, (n, folder, function, arguments), nprocs=n)
        return [torch.load(Path(folder, str(rank)), weights_only=False) for rank in range(n)]


def _work(rank: int, n: int, folder: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=n, timeout=LIMIT)
    with joined():
        torch.save(function(*arguments), Path(folder, str(rank)))
    dist.destroy_process_group()
