"""What ``fit --tune`` adds to a pretrained encoder in few-shot tasks: heads on features that are tuned in each task.

    python benchmarks/near_far_tuned.py --faces FOLDER --tasks 30

The tasks are drawn as those of ``benchmarks/near_far.py``, and the rows go into the same table, with the paired
difference to the frozen encoder on these tasks. In each task the encoder is tuned on the support as ``fit`` does it,
and the tuned encoder is taken if the verdict keeps it; otherwise the difference is 0. Tasks with one shot are not
tuned, because no image can be left out of a class.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from near_far import COLUMNS, HEADS, MOST, SETS, SLOW, at_size, features_of, images_of, shapes_of, write
from torch import Tensor

from metarep.data.labels import Labels
from metarep.experiments.measurement.measure import Setting
from metarep.experiments.measurement.results import commit
from metarep.learners import Learner, build_learner, read_learner
from metarep.machine.device import hardware
from metarep.model.model import Model
from metarep.model.tuning.tune import tune_model
from metarep.model.tuning.verdict import paired
from metarep.weights.named import load_representation
from metarep.weights.representation import Representation

CALLED, TRAINED = "tuned", "fit --tune"


@torch.no_grad()
def accuracy(learner: Learner, support: Tensor, y: Tensor, query: Tensor, query_y: Tensor, ways: int) -> float:
    """The percentage of queries that a learner of the support classifies correctly, from features."""
    state = learner.adapt(support.unsqueeze(0), y.unsqueeze(0), ways)
    return 100 * (learner.logits(state, query.unsqueeze(0))[0].argmax(-1) == query_y).float().mean().item()


def measure(
    name: str, start: Representation, images: Tensor, labels: Labels, shape: tuple[int, int, int], number: int
) -> None:
    """Write a row for each head: the accuracy of the tuned encoder on tasks of one shape, and the difference."""
    ways, shots, queries = shape
    (tasks,) = Setting(range(ways, ways + 1), range(shots, shots + 1), queries, number, 1).draw(labels)
    heads = {head: text for head, text in HEADS.items() if head != SLOW or ways * shots <= MOST}
    found: dict[str, list[tuple[float, float]]] = {head: [] for head in heads}
    for task in range(number):
        support, query = images[tasks.support[task]], images[tasks.query[task]]
        y, query_y = tasks.support_y[task], tasks.query_y[task]
        tuned, verdict = tune_model(Model(start), support, [f"class {label}" for label in y.tolist()])
        encoders = {"before": start.encoder, "after": tuned.learner.encoder if verdict.kept else start.encoder}
        features = {
            when: (features_of(encoder, support), features_of(encoder, query)) for when, encoder in encoders.items()
        }
        for head, text in heads.items():
            kind, settings = read_learner(text)
            before, after = (
                accuracy(build_learner(kind, encoders[when], **settings).eval(), own, y, others, query_y, ways)
                for when, (own, others) in features.items()
            )
            found[head].append((before, after))
        print(name, ways, shots, task, verdict.kept, found["fit"][-1], flush=True)
    rows = []
    for head, pairs in found.items():
        before, after = torch.tensor(pairs).unbind(1)
        gain, low, high = paired(after - before)
        spread = 1.96 * after.std() / number**0.5
        figures = (f"{each:.2f}" for each in (after.mean(), spread, gain, low, high))
        about: tuple[Any, ...] = (name, CALLED, head, ways, shots, SETS[name][2], queries, number, *figures)
        rows.append(dict(zip(COLUMNS, (*about, TRAINED, "", hardware(), commit()), strict=True)))
    write(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="efficientnet-lite0")
    parser.add_argument("--data", action="append", choices=list(SETS), help="again and again (default: all)")
    parser.add_argument("--shots", type=int, action="append", help="again and again (default: 5)")
    parser.add_argument("--ways", type=int, action="append", help="again and again (default: 5 and 20)")
    parser.add_argument("--faces", type=Path, help="the folder ORL_faces")
    parser.add_argument("--tasks", type=int, default=30)
    parser.add_argument("--data-dir", type=Path)
    args = parser.parse_args()
    for name in args.data or SETS:
        if name == "orl" and not args.faces:
            continue
        side = SETS[name][2]
        images, labels = images_of(name, args.faces, args.data_dir)
        start, images = load_representation(args.encoder, size=side), at_size(images, side)
        for shape in shapes_of(name):
            if shape[0] in (args.ways or [5, 20]) and shape[1] in (args.shots or [5]):
                measure(name, start, images, labels, shape, args.tasks)


if __name__ == "__main__":
    main()
