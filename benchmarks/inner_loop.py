"""Measure one meta-iteration: by metarep, by other libraries, and the floor that no implementation can be below.

    python benchmarks/inner_loop.py [--quick] [--json] [--one-thread] [--device cuda] [--case NAME] [--out FILE]

One process, the same network and tasks for all, the ways in turns, medians of the clock. All rows but those that say
otherwise use the query batch's own statistics, as the other libraries do. ``floor`` is one forward and backward pass of
the same images (support once a step) in bfloat16 and channels-last, in the best batch. Beside other programs the clock
says little: ``--one-thread`` takes CPU time on one thread instead. A library that is not installed, or does not
build, is left out with the reason: pip install 'metarep[rivals]', and inner_loop_worker.py for learn2learn. Memory is
the peak of a process of its own, less what it held before its first iteration.
"""

import argparse
import json
import multiprocessing
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # as the command line does; for all ways alike, and before torch

import torch
from inner_loop_rivals import RIVALS, Case, Images, Run, floor, images_of, peak_of, prepare, timed
from inner_loop_worker import Worker
from torch import Generator

from metarep.data.batch import TaskBatch
from metarep.data.tasks import TaskIndex
from metarep.encoders import Preprocess, build_encoder
from metarep.learners.inner_loop.meta_loss import Path
from metarep.machine.device import hardware, keep_freed_memory, pick_precision
from metarep.methods import ANIL, MAML, Method, Reptile

FIVE = Case("maml-28px-second-order-1-step", 5, 1, 15, 32, 1, 2)
CASES = [
    FIVE,
    Case("maml-28px-second-order-5-steps", 5, 1, 15, 32, 5, 2, lr=0.1),
    Case("maml-28px-first-order-1-step", 5, 1, 15, 32, 1, 1),
    Case("maml-28px-20-way-second-order-1-step", 20, 1, 15, 8, 1, 2, lr=0.1),
    Case("maml-84px-second-order-5-steps", 5, 1, 15, 4, 5, 2, side=84, channels=3, width=32, lr=0.01),
]

BUILT_BY_RUNNING = ("floor", "parallel-metalearn", "learn2learn")  # so a first iteration has no peak to show


def ours(
    case: Case, images: Images, method: str = "maml", normalisation: str = "transductive", path: Path = "auto"
) -> Run:
    """A step of a method of metarep, from a batch of tasks to gradients."""
    plain = Preprocess((case.side, case.side), case.channels, (0.0,) * case.channels, (1.0,) * case.channels)
    encoder = build_encoder("conv4", plain, width=case.width)
    encoder.precision = pick_precision("auto", torch.device(case.device))
    made: Method
    if method == "maml":
        settings = {"inner_steps": case.steps, "order": case.order, "inner_lr": case.lr, "normalisation": normalisation}
        made = MAML(encoder, ways=case.ways, **settings)
    elif method == "anil":
        made = ANIL(encoder, ways=case.ways, inner_steps=case.steps)
    else:
        made = Reptile(encoder, ways=case.ways, inner_steps=case.steps)
    made.to(case.device).train()
    if method == "maml":
        made.learner.path = path
    return step_of(made, case, images)


def step_of(made: Method, case: Case, images: Images) -> Run:
    """A function that computes the loss of a method on these tasks and its gradient."""
    rows = torch.cat([images.support, images.query], 1)
    place = torch.arange(rows.shape[0] * rows.shape[1], device=case.device).view(rows.shape[:2])
    support, query = place.split([images.support.shape[1], images.query.shape[1]], 1)
    classes = torch.zeros(case.tasks, case.ways, dtype=torch.long, device=case.device)
    index = TaskIndex(support, query, images.support_y, images.query_y, classes, case.ways)
    batch = TaskBatch(rows.flatten(0, 1), place.flatten(), index)

    def run() -> None:
        made.zero_grad(set_to_none=True)
        made.step(batch, progress=1.0, generator=Generator()).loss.backward()

    return run


@dataclass(frozen=True)
class Wish:
    """The extent of the measurement, as the flags say."""

    quick: bool
    one_thread: bool
    float32: bool
    without: list[str]
    seconds: float
    repeats: int
    peaks: bool


def makers_of(case: Case, wish: Wish) -> dict[str, partial[Any]]:
    """Functions that build each timed step from images (learn2learn builds its own in its own process)."""
    makers: dict[str, partial[Any]] = {
        "metarep": partial(ours, case),
        "metarep, inductive": partial(ours, case, normalisation="support"),
        "floor": partial(floor, case),
    }
    if case.device != "cpu":
        makers["metarep, by vmap"] = partial(ours, case, path="mapped")
    if wish.quick:
        return makers | {"higher": partial(RIVALS["higher"], case, mixed=False)}
    for mixed in (False,) if wish.float32 else (False, True):
        for name in [rival for rival in RIVALS if rival not in wish.without]:
            makers[f"{name}, autocast" if mixed else name] = partial(RIVALS[name], case, mixed=mixed)
        if "learn2learn" not in wish.without:
            worker = partial(Worker, case, mixed=mixed, one_thread=wish.one_thread)
            makers["learn2learn, autocast" if mixed else "learn2learn"] = worker
    if case.name == FIVE.name:
        makers |= {
            "metarep anil": partial(ours, case, method="anil"),
            "metarep reptile": partial(ours, case, method="reptile"),
        }
    return makers


def measure(case: Case, wish: Wish) -> list[dict[str, object]]:
    images, makers = images_of(case), makers_of(case, wish)
    runs: dict[str, Callable[[], float]] = {}
    first: dict[str, float] = {}  # does not count, unless a busy machine leaves time for no other
    missing: dict[str, str] = dict.fromkeys(wish.without, "not asked for")
    started = time.perf_counter()
    for name, make in makers.items():
        try:
            runs[name] = make() if make.func is Worker else partial(timed, make(images), wish.one_thread, case.device)
            first[name] = runs[name]()
        except Exception as error:
            runs.pop(name, None)
            missing[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    times: dict[str, list[float]] = {name: [] for name in runs}
    late = wish.quick and time.perf_counter() - started > wish.seconds
    started = time.perf_counter()
    while not late and (len(times["floor"]) < wish.repeats or time.perf_counter() - started < wish.seconds):
        for name, run in runs.items():
            times[name].append(run())
        late = wish.quick and time.perf_counter() - started > wish.seconds
    for run in runs.values():
        if isinstance(run, Worker):
            run.end()
    middle = {name: statistics.median(values or [first[name]]) for name, values in times.items()}
    rows: list[dict[str, object]] = [
        {
            "case": case.name,
            "implementation": name,
            "median_ms": round(middle[name], 1),
            "of_floor": round(middle[name] / middle["floor"], 3),
            "repeats": len(times[name]) or 1,
            "peak_mib": peak(case, makers[name]) if wish.peaks and name.split(",")[0] not in BUILT_BY_RUNNING else None,
        }
        for name in runs
    ]
    return rows + [{"case": case.name, "implementation": name, "left_out": why} for name, why in missing.items()]


def peak(case: Case, make: partial) -> int | None:
    """Peak memory of one iteration in MiB, in a process of its own; None where that failed."""
    if case.device != "cpu":  # its allocator counts
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        run = make(images_of(case))
        run()
        return peak_of(run, case.device)
    context = multiprocessing.get_context("spawn")
    answer = context.SimpleQueue()
    process = context.Process(target=_child, args=(case, make, answer))
    process.start()
    process.join(300)
    return answer.get() if process.exitcode == 0 else None


def _child(case: Case, make: partial, answer) -> None:
    answer.put(peak_of(make(images_of(case)), case.device))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one case, higher alone as rival, under a minute")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one-thread", action="store_true", help="processor time on one thread, for busy machines")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--float32", action="store_true", help="without the rivals' autocast rows")
    parser.add_argument("--without", action="append", default=[], metavar="RIVAL", help="leave this one out")
    parser.add_argument("--seconds", type=float, default=60, help="a case (default: 60)")
    parser.add_argument("--repeats", type=int, default=3, help="at least (default: 3)")
    parser.add_argument("--no-peaks", action="store_true", help="do not measure memory")
    parser.add_argument("--out", type=pathlib.Path, help="also write the rows and the hardware to this file")
    parser.add_argument("--case", action="append", choices=[case.name for case in CASES], help="only this one")
    args = parser.parse_args()
    prepare(one_thread=args.one_thread)
    keep_freed_memory()
    rows: list[dict[str, object]] = []
    wish = Wish(
        args.quick,
        args.one_thread,
        args.float32,
        args.without,
        15 if args.quick else args.seconds,
        args.repeats,
        peaks=not (args.quick or args.no_peaks),
    )
    named = [case for case in CASES if not args.case or case.name in args.case]
    chosen = [replace(case, device=args.device) for case in named]
    for case in chosen[:1] if args.quick else chosen:
        rows += measure(case, wish)
        if not args.json:
            for row in rows:
                if row["case"] == case.name:
                    print("  ".join(f"{key} {value}" for key, value in row.items() if key != "case"), flush=True)
    if args.json:
        json.dump(rows, sys.stdout, indent=1)
        print()
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        clock = "processor time on one thread" if args.one_thread else "the clock"
        note = f"Medians of {clock}, interleaved runs; peak memory of one iteration beyond its start in MiB"
        args.out.write_text(json.dumps({"hardware": hardware(), "note": note, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
