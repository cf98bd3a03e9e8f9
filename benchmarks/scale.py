"""Measure training on two processes of one thread each, against one process of two threads.

    python benchmarks/scale.py [--quick] [--json] [--out FILE]

Both ways train the same batches on the same two cores, in turns: while one process works with two threads, the other
waits. The ratio is the median over rounds of the throughput of two processes over that of one. Batch statistics are
synchronised. The processes are joined by gloo over the loopback device, and exchange tensors through memory that they
share (``--network``: by gloo as well). The time of exchanges includes waiting for the slower process.

The other table is arithmetic from the measured bytes: the time of all exchanges of a step for N GPUs, each with the
batch of the case. A sum over GPUs moves ``2 (N - 1) / N`` times its bytes through each network card, and gathering
``N - 1`` times the bytes of one GPU. Each exchange also takes ``LATENCY`` for each doubling of N, which is assumed and
not measured. Exchanges are not hidden behind computation. The last column says how long the computation of a step must
take so that exchanges are 5 % of a step.
"""

import argparse
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # as the command line does, and before torch

import torch
import torch.distributed as dist
from torch import Generator, multiprocessing

from metarep.data.augment import preset
from metarep.data.batch import BatchShape
from metarep.data.batches import draw_batch
from metarep.data.images import ImageBank
from metarep.data.labels import Labels
from metarep.encoders import Preprocess, build_encoder
from metarep.encoders.normalisation import synchronised
from metarep.machine import faster
from metarep.machine import ranks as exchange
from metarep.machine.device import hardware, keep_freed_memory
from metarep.machine.ranks import average_gradients, joined
from metarep.methods import build_method

RANKS, LATENCY = 2, 20e-6
GPUS, GBIT = (8, 64, 1000), (25, 400)


@dataclass(frozen=True)
class Case:
    """One training: the method, its batch and the side of its images in pixels."""

    name: str
    method: str
    shape: BatchShape
    side: int = 28
    channels: int = 1
    augment: str = "none"


CASES = [
    Case("protonet, 60-way 1-shot, 28 px", "protonet", BatchShape(ways=60, shots=1, queries=5)),
    Case("maml, 8 tasks of 5-way 1-shot, 28 px", "maml", BatchShape(ways=5, shots=1, queries=15, tasks=8)),
    Case("simclr, 256 images, 28 px", "simclr", BatchShape(images=256), augment="views-drawings"),
    Case("protonet, 5-way 5-shot, 84 px", "protonet", BatchShape(ways=5, shots=5, queries=15), 84, 3),
]


class Exchanges:
    """Counts the bytes and the seconds of all exchanges, by kind."""

    def __init__(self) -> None:
        self.kind = ""
        self.bytes: dict[str, int] = {}
        self.calls: dict[str, int] = {}
        self.seconds = 0.0

    def counted(self, kind: str, function: Callable[[torch.Tensor], Any]) -> Callable[[torch.Tensor], Any]:
        """The function of an exchange, which also counts it."""

        def exchanged(own: torch.Tensor) -> Any:
            name, began = self.kind or kind, time.perf_counter()
            result = function(own)
            self.seconds += time.perf_counter() - began
            self.bytes[name] = self.bytes.get(name, 0) + own.numel() * own.element_size()
            self.calls[name] = self.calls.get(name, 0) + 1
            return result

        return exchanged

    @contextmanager
    def counting(self) -> Iterator[None]:
        """A context in which exchanges are counted; the sum of gathered gradients is a kind of its own."""
        rows = exchange._GatherRows
        add_all, all_of, backward = exchange.add_all, exchange.all_of, rows.backward

        def marked(ctx: Any, above: torch.Tensor) -> Any:
            self.kind = "gradients of gathered rows"
            try:
                return backward(ctx, above)
            finally:
                self.kind = ""

        exchange.add_all, exchange.all_of = self.counted("sum", add_all), self.counted("gather", all_of)
        rows.backward = staticmethod(marked)
        try:
            yield
        finally:
            exchange.add_all, exchange.all_of, rows.backward = add_all, all_of, staticmethod(backward)


def trainer(case: Case) -> Callable[[], None]:
    """A function that trains one step of a case."""
    generator = Generator().manual_seed(0)
    pixels = (100 * 20, case.channels, case.side, case.side)
    bank = ImageBank(torch.randint(0, 256, pixels, dtype=torch.uint8, generator=generator))
    labels, augment = Labels.of([i // 20 for i in range(len(bank))]), preset(case.augment)
    torch.manual_seed(0)
    mean = (0.5,) * case.channels
    encoder = build_encoder("conv4", Preprocess((case.side, case.side), case.channels, mean, mean))
    method = build_method(case.method, encoder, {}).train()
    optimizer = method.optimizer(1e-3, 1e-4)

    def step() -> None:
        batch = draw_batch(method.eats, bank, labels, case.shape, augment, generator, spans=method.spans_batch)
        with synchronised():
            result = method.step(batch, progress=0.0, generator=generator)
        optimizer.zero_grad(set_to_none=True)
        (result.loss * batch.weight).backward()
        average_gradients(method)
        optimizer.step()
        method.after_step(result.carry, 0.0)

    return step


def measure(case: Case, rounds: int, steps: int) -> dict[str, Any]:
    """The row of a case; only rank 0 returns figures that mean anything."""
    first, counts = dist.get_rank() == 0, Exchanges()
    alone, together = trainer(case), trainer(case)
    one, two, shares = [], [], []
    for round_ in range(rounds + 1):
        torch.set_num_threads(RANKS)
        dist.barrier()
        if first:
            began = time.perf_counter()
            for _ in range(steps):
                alone()
            one.append((time.perf_counter() - began) / steps)
        torch.set_num_threads(1)
        dist.barrier()
        counts.__init__()
        with joined(), counts.counting():
            began = time.perf_counter()
            for _ in range(steps):
                together()
            two.append((time.perf_counter() - began) / steps)
        shares.append(counts.seconds / steps / two[-1])
        if round_ == 0:  # the first round warms up
            one, two, shares = [], [], []
    if not first:
        return {}
    return {
        "case": case.name,
        "one_process_ms": round(1000 * statistics.median(one), 1),
        "two_processes_ms": round(1000 * statistics.median(two), 1),
        "throughput_of_two": round(statistics.median(a / b for a, b in zip(one, two, strict=True)), 3),
        "share_of_exchanges": f"{statistics.median(shares):.1%}",
        "exchanges": sum(counts.calls.values()) // steps,
        "kB_a_step": round(sum(counts.bytes.values()) / steps / 1000, 1),
        "counts": {kind: (counts.bytes[kind] / steps, counts.calls[kind] / steps) for kind in counts.bytes},
    }


def work(rank: int, folder: str, rounds: int, steps: int, network: bool) -> None:
    """Run all cases on one of the processes."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    if network:
        faster.shared_memory = lambda: None
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS)
    keep_freed_memory()
    rows = [measure(case, rounds, steps) for case in CASES]
    if rank == 0:
        Path(folder, "rows.json").write_text(json.dumps(rows))
    dist.destroy_process_group()


def seconds_of(counts: dict[str, tuple[float, float]], gpus: int, gbit: float) -> float:
    """The seconds of all exchanges of a step on so many GPUs, each with the batch that was measured for two.

    Args:
        counts: for each kind of exchange, the bytes that a process gave, and the number of calls.
        gpus: number of GPUs.
        gbit: speed of the network card of each, in Gbit/s.
    """
    part = RANKS  # gathered rows are those of half the batch of a case; a GPU has the whole batch
    moved = 0.0
    for kind, (size, _) in counts.items():
        if kind == "sum":
            moved += 2 * (gpus - 1) / gpus * size
        elif kind == "gather":
            moved += (gpus - 1) * size * part
        else:  # the gradients of the gathered rows of all GPUs are summed
            moved += 2 * (gpus - 1) / gpus * size * gpus
    calls = sum(calls for _, calls in counts.values())
    return moved * 8 / (gbit * 1e9) + calls * LATENCY * math.log2(gpus)


def arithmetic(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of the second table."""
    table = []
    for row in rows:
        for gbit in GBIT:
            times = {gpus: seconds_of(row["counts"], gpus, gbit) for gpus in GPUS}
            table.append(
                {
                    "case": row["case"],
                    "Gbit/s": gbit,
                    **{f"{gpus:,} GPUs, ms": round(1000 * seconds, 1) for gpus, seconds in times.items()},
                    "ms of computation for 5 %, 1,000 GPUs": round(19_000 * times[GPUS[-1]]),
                }
            )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument("--network", action="store_true", help="exchange all tensors by gloo")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--out", type=Path, help="write the file of the first table; the second is beside it")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rounds, steps = (3, 3) if args.quick else (15, 10)
        multiprocessing.spawn(work, (folder, rounds, steps, args.network), nprocs=RANKS)
        rows = json.loads(Path(folder, "rows.json").read_text())
    torch.set_num_threads(RANKS)
    more = arithmetic(rows)
    joined_by = "are joined by gloo over the loopback device" if args.network else "share memory"
    measured = {
        "hardware": f"{hardware()}, torch {torch.__version__}",
        "note": f"Medians over {rounds} rounds of {steps} steps, the two ways in turns; two processes of one "
        f"thread each {joined_by}; the share of exchanges includes waiting for the "
        "other process",
        "rows": [{name: value for name, value in row.items() if name != "counts"} for row in rows],
    }
    expected = {
        "hardware": "none: this is arithmetic from the bytes above",
        "note": f"Each GPU has the batch of the case; {LATENCY * 1e6:.0f} µs for each exchange and doubling of the "
        "number of GPUs is assumed; exchanges are not hidden behind computation",
        "rows": more,
    }
    if args.out:
        args.out.write_text(json.dumps(measured, indent=1) + "\n")
        beside = args.out.with_name(f"{args.out.stem}-arithmetic.json")
        beside.write_text(json.dumps(expected, indent=1) + "\n")
    if args.json:
        print(json.dumps([measured, expected], indent=1))
        return
    for row in [*measured["rows"], *more]:
        print("  ".join(f"{name} {value}" for name, value in row.items()))


if __name__ == "__main__":
    main()
