"""Measure how much bfloat16 changes MAML's meta-gradient, on the same tasks and weights as float64.

    python benchmarks/rounding.py [--data-dir DIR] [--gpu] [--out results/timings/rounding.json]

Omniglot, 5-way 1-shot with 15 queries a class, batches of four tasks, Conv4-64, support statistics; at a new start, and
after it has been trained a little. Goal: cosine at least 0.999, loss within 1 %. ``float32_lowest`` is the lowest
cosine of float32 alone: what no lower precision can be asked to beat.

With ``--gpu`` it is the path of GPUs, and what goes into a float32 convolution is rounded to ten bits, as their matrix
units do by default: everywhere, and with the support's gradient as a sum of three products, which is what metarep does
there. Queries are in bfloat16; with heads that start from prototypes they are in float32, rounded so.
"""

import argparse
import json
import statistics
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn import functional

from metarep import Preprocess, build_encoder, load_dataset
from metarep.data.batch import BatchShape, TaskBatch
from metarep.data.batches import draw_batch
from metarep.data.split import Split
from metarep.fast import convolution
from metarep.learners import GradientDescent
from metarep.learners.inner_loop import HeadKind
from metarep.machine.device import hardware


class Case(NamedTuple):
    head: HeadKind
    inner_lr: float
    steps: int


CASES = [Case(head, lr, steps) for head, lr in (("rows", 0.4), ("prototype", 0.01)) for steps in (1, 5)]
BATCHES, TRAINED = 8, 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--gpu", action="store_true", help="as a GPU would, emulated")
    parser.add_argument("--out", type=Path, help="also write the rows and the hardware to this file")
    args = parser.parse_args()
    split = load_dataset("omniglot:vinyals", "train", data_dir=args.data_dir)
    rows = []
    for case in CASES:
        torch.manual_seed(0)
        encoder = build_encoder("conv4", Preprocess.of(split.bank))
        settings = {"head": case.head, "steps": case.steps, "inner_lr": case.inner_lr}
        learner = GradientDescent(encoder, ways=5, scope="all", **settings).train()
        for start in ("new", "trained"):
            if start == "trained":
                train(learner, split)
            for way in ("one product", "three products") if args.gpu else ("",):
                found = [compare(learner, split, 1000 + seed, way) for seed in range(BATCHES)]
                cosines, singles, losses = zip(*found, strict=True)
                name = f"{case.head}, {case.steps} step{'s' * (case.steps > 1)}, {start}"
                rows.append({
                    "case": f"{name}, {way}" if way else name,
                    "cosine_median": round(statistics.median(cosines), 5),
                    "cosine_lowest": round(min(cosines), 5),
                    "float32_lowest": round(min(singles), 5),
                    "loss_off_percent": round(100 * max(losses), 3),
                })  # fmt: skip
                print(rows[-1], flush=True)
    if args.out:
        note = f"{BATCHES} batches of 4 tasks; against float64; loss: the furthest off of all batches"
        args.out.write_text(json.dumps({"hardware": hardware(), "note": note, "rows": rows}, indent=1) + "\n")


def loss_of(learner: GradientDescent, split: Split, queries: int, seed: int) -> Tensor:
    shape = BatchShape(ways=5, shots=1, queries=queries, tasks=4)
    batch = draw_batch(TaskBatch, split.bank, split.labels, shape, None, Generator().manual_seed(seed))
    kind = next(learner.parameters()).dtype
    return learner.task_loss(*batch.tasks.of(learner.prepare(batch.images).to(kind)))


def train(learner: GradientDescent, split: Split) -> None:
    optimizer = torch.optim.Adam(learner.parameters(), 1e-3)
    for step in range(TRAINED):
        optimizer.zero_grad()
        loss_of(learner, split, 5, step).backward()
        optimizer.step()


def compare(learner: GradientDescent, split: Split, seed: int, way: str) -> tuple[float, float, float]:
    """The cosines of bfloat16 and float32 to the exact meta-gradient, and by what share the loss of bfloat16 is off."""
    exact_loss, exact = gradient_of(learner.double(), split, seed)
    _, single = gradient_of(learner.float(), split, seed)
    learner.encoder.precision = "bfloat16"
    with as_on_a_gpu(learner, way) if way else nullcontext():
        loss, found = gradient_of(learner, split, seed)
    learner.encoder.precision = "float32"
    cosines = [functional.cosine_similarity(exact, other, dim=0).item() for other in (found, single)]
    return cosines[0], cosines[1], abs(loss / exact_loss - 1)


def gradient_of(learner: GradientDescent, split: Split, seed: int) -> tuple[float, Tensor]:
    """The loss and the meta-gradient of a batch."""
    learner.zero_grad(set_to_none=True)
    loss = loss_of(learner, split, 15, seed)
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten().double() for p in learner.parameters() if p.grad is not None])


@contextmanager
def as_on_a_gpu(learner: GradientDescent, way: str) -> Iterator[None]:
    """The path of GPUs, whose float32 convolutions round; all of them, or those of ``three products`` without harm."""
    plain, back, pad = functional.conv2d, torch.ops.aten.convolution_backward, functional.pad
    before = convolution.functional, convolution._aten, convolution._rounds
    convolution.functional = SimpleNamespace(pad=pad, conv2d=lambda x, w, **own: plain(rounded(x), rounded(w), **own))
    convolution._aten = SimpleNamespace(
        convolution_backward=lambda d, x, w, *rest: back(rounded(d), rounded(x), rounded(w), *rest)
    )
    convolution._rounds = lambda x, *_: way == "three products" and x.dtype == torch.float32
    learner.path = "stacked"
    yield
    learner.path = "auto"
    convolution.functional, convolution._aten, convolution._rounds = before


def rounded(x: Tensor) -> Tensor:
    """A tensor whose values are rounded to ten bits."""
    if x.dtype != torch.float32:
        return x
    return ((x.contiguous().view(torch.int32) + (1 << 12)) & -(1 << 13)).view(torch.float32).view_as(x)


if __name__ == "__main__":
    main()
