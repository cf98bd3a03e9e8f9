"""Measure how much bfloat16 changes the meta-gradient of networks other than Conv4, in metarep and in its rivals.

    python benchmarks/peers_rounding.py [--data-dir DIR] [--out results/timings/peers-rounding.json]

The networks and inner loops are those of benchmarks/peers.py, on tasks of CIFAR-FS's training classes, from random
weights. A row has the cosine of the gradient of the encoder to that which the same library gives in float64.
"""

import argparse
import json
import statistics
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from inner_loop import step_of
from inner_loop_rivals import RIVALS, Images
from peers_networks import BODIES, SIDE, Shape, maml_of, with_head
from torch import Generator, Tensor, nn
from torch.nn import functional

from metarep.data.datasets import load_dataset
from metarep.data.split import Split
from metarep.data.tasks import draw_tasks
from metarep.machine.device import Precision, hardware

Gradient = Callable[[Shape, Images, torch.dtype, bool], Tensor]
BATCHES = 3
SHAPES = [Shape(body, 2, 1) for body in BODIES]


def images_of(split: Split, shape: Shape, seed: int, dtype: torch.dtype) -> Images:
    """Tasks of photographs, with values from -1 to 1."""
    case = shape.case
    tasks = draw_tasks(
        split.labels,
        case.tasks,
        ways=case.ways,
        shots=case.shots,
        queries=case.queries,
        generator=Generator().manual_seed(seed),
    )

    def pixels(rows: Tensor) -> Tensor:
        return split.bank.pixels(rows.flatten()).to(dtype).view(*rows.shape, 3, SIDE, SIDE) / 127.5 - 1

    return Images(pixels(tasks.support), tasks.support_y, pixels(tasks.query), tasks.query_y)


def by_metarep(shape: Shape, images: Images, dtype: torch.dtype, mixed: bool) -> Tensor:
    precision: Precision = "bfloat16" if mixed else "float32"
    method = maml_of(shape, precision).to(dtype)
    step_of(method, shape.case, images)()
    return gradient_of(method.learner.encoder.body)


def by_rival(name: str) -> Gradient:
    def gradient(shape: Shape, images: Images, dtype: torch.dtype, mixed: bool) -> Tensor:
        net = with_head(shape.body, shape.case.ways).to(dtype)
        RIVALS[name](shape.case, images, mixed=mixed, net=net)()
        return gradient_of(net[0])

    return gradient


def gradient_of(body: nn.Module) -> Tensor:
    return torch.cat([each.grad.flatten().double() for each in body.parameters() if each.grad is not None])


WAYS: dict[str, Gradient] = {"metarep": by_metarep, "higher": by_rival("higher"), "torchopt": by_rival("torchopt")}


def cosines(split: Split, shape: Shape, gradient: Gradient) -> tuple[list[float], list[float]]:
    """The cosines of float32 and of bfloat16, one for each batch of tasks, with weights of the same seed."""
    found: tuple[list[float], list[float]] = ([], [])
    for seed in range(BATCHES):
        exact, *others = (
            seeded(seed, gradient, shape, images_of(split, shape, seed, dtype), dtype, mixed)
            for dtype, mixed in ((torch.float64, False), (torch.float32, False), (torch.float32, True))
        )
        for cosines, other in zip(found, others, strict=True):
            cosines.append(functional.cosine_similarity(exact, other, dim=0).item())
    return found


def seeded(seed: int, gradient: Gradient, *of: Any) -> Tensor:
    torch.manual_seed(seed)
    return gradient(*of)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path, help="also write the rows and the hardware to this file")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    split, rows = load_dataset("cifar-fs", "train", data_dir=args.data_dir), []
    for shape in SHAPES:
        for name, gradient in WAYS.items():
            for called, found in zip((name, f"{name}, bfloat16"), cosines(split, shape, gradient), strict=True):
                rows.append({
                    "case": shape.case.name,
                    "implementation": called,
                    "cosine_median": round(statistics.median(found), 4),
                    "cosine_lowest": round(min(found), 4),
                })  # fmt: skip
                print(*rows[-1].values(), flush=True)
    if args.out:
        note = f"{BATCHES} batches of 2 tasks of CIFAR-FS, from random weights; against float64"
        args.out.write_text(json.dumps({"hardware": hardware(), "note": note, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
