"""Measure a label-free training step: loss and SimCLR step against other libraries, and the parts of a step.

    python benchmarks/contrastive.py [--quick] [--json] [--case NAME] [--out results/timings/contrastive.json]

One process, one thread, the ways in turns; figures are medians of CPU time, which other programs on the machine
disturb less than the clock. Cases called ``loss`` are NT-Xent of 512 pairs of 128 numbers, forward and backward. In
cases called ``step`` network, precision and optimiser are the same for both libraries; views and loss are their own.
Cases called ``parts`` are steps of our methods; ``outside percent`` is what neither the forward nor the backward pass
takes: drawing views, the optimiser, queue and target (goal: under 10). Memory is the peak of a process of its own, less
what it held before. A library that is not installed is left out with the reason: pip install 'metarep[rivals]' for
pytorch-metric-learning; lightly needs torchvision, and so an environment of its own.
"""

import argparse
import json
import multiprocessing
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from contrastive_rivals import LOSSES, lightly_views
from torch import Generator, Tensor

from metarep.data.augment import preset
from metarep.data.batch import BatchShape, ViewBatch
from metarep.data.batches import draw_batch
from metarep.data.images import ImageBank
from metarep.data.labels import Labels
from metarep.encoders import Preprocess, build_encoder
from metarep.machine.device import hardware, keep_freed_memory, pick_precision
from metarep.methods import METHODS, Method
from metarep.methods.contrastive import nt_xent

Run = Callable[[], None]
Loss = Callable[[Tensor, Tensor, float], Tensor]


class Case(NamedTuple):
    name: str
    images: int
    side: int = 32
    channels: int = 3
    augment: str = "views-32"


LOSS = Case("loss-512-pairs", 512)
STEPS = (Case("step-32px-256-images", 256), Case("step-84px-64-images", 64, 84, 3, "few-shot-84"))
PARTS = (
    Case("parts-28px-512-drawings", 512, 28, 1, "views-drawings"),
    Case("parts-32px-256-photographs", 256),
    Case("parts-84px-64-photographs", 64, 84, 3, "few-shot-84"),
)


def ours(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    return nt_xent(first, second, temperature)


def loss_run(loss: str) -> Run:
    """A function that computes a loss and its gradient, by name of the loss."""
    value = ours if loss == "metarep" else LOSSES[loss]()
    g = Generator().manual_seed(0)
    pair = [torch.randn(LOSS.images, 128, generator=g).requires_grad_() for _ in range(2)]

    def run() -> None:
        torch.autograd.grad(value(*pair, 0.1), pair)

    return run


def method_of(case: Case, name: str) -> Method:
    shape = (case.side, case.side)
    plain = Preprocess(shape, case.channels, (0.5,) * case.channels, (0.25,) * case.channels)
    encoder = build_encoder("conv4", plain)
    encoder.precision = pick_precision("auto", torch.device("cpu"))
    method = METHODS[name](encoder).train()
    if hasattr(method, "target"):
        method.target[0].precision = encoder.precision
    return method


def bank_of(case: Case) -> ImageBank:
    g = Generator().manual_seed(0)
    return ImageBank(torch.randint(256, (2048, case.channels, case.side, case.side), dtype=torch.uint8, generator=g))


def step_run(case: Case, library: str, name: str = "simclr", parts: dict[str, list[float]] | None = None) -> Run:
    """A whole step, from the bank of pixels to changed weights; with ``parts`` the time of each part goes there."""
    method, bank, generator = method_of(case, name), bank_of(case), Generator().manual_seed(0)
    optimizer = method.optimizer(1e-3, 1e-4)
    labels = Labels.of([0] * len(bank))
    shape = BatchShape(images=case.images)
    views = lightly_views(case.augment, case.side) if library == "lightly" else None
    value = LOSSES["lightly"]() if library == "lightly" else None

    def run() -> None:
        clock = [time.process_time()]
        if views is None:
            batch = draw_batch(ViewBatch, bank, labels, shape, preset(case.augment), generator)
            clock.append(time.process_time())
            step = method.step(batch, progress=0.5, generator=generator)
            loss, carry = step.loss, step.carry
        else:
            rows = torch.randperm(len(bank), generator=generator)[: case.images]
            both = views(bank.pixels(rows))
            clock.append(time.process_time())
            first, second = method.projector(method.learner.embed(torch.cat(both))).chunk(2)
            loss, carry = value(first, second, 0.1), None
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        clock.append(time.process_time())
        optimizer.step()
        method.after_step(carry, 0.5)
        clock.append(time.process_time())
        if parts is not None:
            for part, before, after in zip(("views", "passes", "rest"), clock, clock[1:], strict=False):
                parts[part].append(after - before)

    return run


def compare(case: Case, makers: dict[str, partial], seconds: float, *, quick: bool) -> list[dict[str, object]]:
    """Rows of a case: ways in turns until ``seconds`` are over, three times or more; what takes longer, only once."""
    runs: dict[str, Run] = {}
    times: dict[str, list[float]] = {}
    missing: dict[str, str] = {}
    for name, make in makers.items():
        try:
            run = make()
            first = processor_ms(run)
        except (ImportError, RuntimeError) as error:
            missing[name] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            continue
        if first > seconds * 1e3:
            times[name] = [first]
        else:
            runs[name], times[name] = run, []
    started = time.perf_counter()
    while len(times["metarep"]) < 3 or time.perf_counter() - started < seconds:
        for name, run in runs.items():
            times[name].append(processor_ms(run))
    base = statistics.median(times["metarep"])
    rows: list[dict[str, object]] = [
        {
            "case": case.name,
            "implementation": name,
            "median_ms": round(statistics.median(values), 1),
            "of_metarep": round(statistics.median(values) / base, 2),
            "repeats": len(values),
            "peak_mib": None if quick else peak(makers[name]),
        }
        for name, values in times.items()
    ]
    return rows + [{"case": case.name, "implementation": name, "left_out": why} for name, why in missing.items()]


def processor_ms(run: Run) -> float:
    before = time.process_time()
    run()
    return (time.process_time() - before) * 1e3


def parts_of(case: Case, seconds: float) -> list[dict[str, object]]:
    """The share of each part in the time of a step of metarep's methods."""
    rows: list[dict[str, object]] = []
    for name in ("simclr", "moco", "byol"):
        parts: dict[str, list[float]] = {"views": [], "passes": [], "rest": []}
        run = step_run(case, "metarep", name, parts)
        run()
        for values in parts.values():
            values.clear()
        started = time.perf_counter()
        while len(parts["views"]) < 3 or time.perf_counter() - started < seconds / 3:
            run()
        medians = {part: statistics.median(values) * 1e3 for part, values in parts.items()}
        whole = sum(medians.values())
        rows.append(
            {
                "case": case.name,
                "implementation": f"metarep {name}",
                "median_ms": round(whole, 1),
                "repeats": len(parts["views"]),
                "views_percent": round(100 * medians["views"] / whole, 1),
                "outside_percent": round(100 * (1 - medians["passes"] / whole), 1),
            }
        )
    return rows


def peak(make: partial) -> int | None:
    """Peak memory of one run in MiB, in a process of its own; None where that failed."""
    context = multiprocessing.get_context("spawn")
    answer = context.SimpleQueue()
    process = context.Process(target=_child, args=(make, answer))
    process.start()
    process.join(300)
    return answer.get() if process.exitcode == 0 else None


def _child(make: partial, answer) -> None:
    torch.set_num_threads(1)
    run = make()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of the imports
    before = _peak_kib()
    run()
    answer.put((_peak_kib() - before) // 1024)


def _peak_kib() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def main() -> None:
    names = [case.name for case in (LOSS, *STEPS, *PARTS)]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two seconds a case, without memory")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, default=20, help="a case (default: 20)")
    parser.add_argument("--out", type=Path, help="also write the rows and the hardware to this file")
    parser.add_argument("--case", action="append", choices=names, help="only this one")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    keep_freed_memory()
    seconds, chosen = 2 if args.quick else args.seconds, args.case or names
    rows: list[dict[str, object]] = []
    for case in (LOSS, *STEPS, *PARTS):
        if case.name not in chosen:
            continue
        if case is LOSS:
            makers = {name: partial(loss_run, name) for name in ("metarep", *LOSSES)}
            new = compare(case, makers, seconds, quick=args.quick)
        elif case in STEPS:
            makers = {name: partial(step_run, case, name) for name in ("metarep", "lightly")}
            new = compare(case, makers, seconds, quick=args.quick)
        else:
            new = parts_of(case, seconds)
        rows += new
        if not args.json:
            for row in new:
                print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    if args.json:
        json.dump(rows, sys.stdout, indent=1)
        print()
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        note = "Medians of processor time of one thread, ways in turns in one process; peak memory in MiB"
        args.out.write_text(json.dumps({"hardware": hardware(), "note": note, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
