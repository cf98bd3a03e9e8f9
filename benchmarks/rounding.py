"""How far bfloat16 moves MAML's meta-gradient: the same tasks and weights in float32 and in bfloat16.

    python benchmarks/rounding.py [--data-dir DIR] [--out results/timings/rounding.json]

Omniglot, 5-way 1-shot with 15 queries a class, batches of four tasks, Conv4-64, support statistics; at a new start, and
after it has been trained a little. Goal: cosine at least 0.999, loss within 1 %.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn import functional

from metarep import Preprocess, build_encoder, load_data
from metarep.batches import BatchShape, TaskBatch, draw_batch
from metarep.datasets.split import Split
from metarep.inner_loop import HeadKind
from metarep.learners import GradientDescent
from metarep.run import hardware


class Case(NamedTuple):
    head: HeadKind
    inner_lr: float
    steps: int


CASES = [Case(head, lr, steps) for head, lr in (("rows", 0.4), ("prototype", 0.01)) for steps in (1, 5)]
BATCHES, TRAINED = 8, 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path, help="also write the rows and the hardware to this file")
    args = parser.parse_args()
    split = load_data("omniglot:vinyals", "train", data_dir=args.data_dir)
    rows = []
    for case in CASES:
        torch.manual_seed(0)
        encoder = build_encoder("conv4", Preprocess.of(split.bank))
        settings = {"head": case.head, "steps": case.steps, "inner_lr": case.inner_lr}
        learner = GradientDescent(encoder, ways=5, scope="all", **settings).train()
        for start in ("new", "trained"):
            if start == "trained":
                train(learner, split)
            found = [compare(learner, split, 1000 + seed) for seed in range(BATCHES)]
            cosines, losses = zip(*found, strict=True)
            name = f"{case.head}, {case.steps} step{'s' * (case.steps > 1)}, {start}"
            rows.append({
                "case": name,
                "cosine_median": round(statistics.median(cosines), 5),
                "cosine_lowest": round(min(cosines), 5),
                "loss_off_percent": round(100 * max(losses), 3),
            })  # fmt: skip
            print(rows[-1], flush=True)
    if args.out:
        note = f"{BATCHES} batches of 4 tasks; float32 against bfloat16; loss: the furthest off of all batches"
        args.out.write_text(json.dumps({"hardware": hardware(), "note": note, "rows": rows}, indent=1) + "\n")


def loss_of(learner: GradientDescent, split: Split, queries: int, seed: int) -> Tensor:
    shape = BatchShape(ways=5, shots=1, queries=queries, tasks=4)
    batch = draw_batch(TaskBatch, split.bank, split.labels, shape, None, Generator().manual_seed(seed))
    return learner.task_loss(*batch.tasks.of(learner.prepare(batch.images)))


def train(learner: GradientDescent, split: Split) -> None:
    optimizer = torch.optim.Adam(learner.parameters(), 1e-3)
    for step in range(TRAINED):
        optimizer.zero_grad()
        loss_of(learner, split, 5, step).backward()
        optimizer.step()


def compare(learner: GradientDescent, split: Split, seed: int) -> tuple[float, float]:
    """The cosine of the two meta-gradients, and by what share of itself the loss is off."""
    losses, gradients = [], []
    for precision in ("float32", "bfloat16"):
        learner.encoder.precision = precision
        learner.zero_grad(set_to_none=True)
        loss = loss_of(learner, split, 15, seed)
        loss.backward()
        losses.append(loss.item())
        gradients.append(torch.cat([p.grad.flatten() for p in learner.parameters() if p.grad is not None]))
    return functional.cosine_similarity(*gradients, dim=0).item(), abs(losses[1] / losses[0] - 1)


if __name__ == "__main__":
    main()
