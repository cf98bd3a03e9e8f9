"""What ``metarep evaluate`` measures: tasks that are drawn or come from a file, data sets, or arrays of features."""

import argparse
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from metarep.cli.options import print_json
from metarep.data.labels import Labels
from metarep.data.split import Split
from metarep.data.task_file import load_tasks, save_tasks
from metarep.errors import counted
from metarep.experiments.measurement.features import evaluate_features, features_row, read_features
from metarep.experiments.measurement.measure import Setting
from metarep.experiments.measurement.report import Balance
from metarep.experiments.measurement.results import read, record
from metarep.experiments.measurement.retrieval import checked_features, measure_retrieval
from metarep.experiments.measurement.shards import Shard
from metarep.learners import read_learner

SHAPE = ("ways", "shots", "queries", "seed", "balance", "within")
BALANCES = [
    each for each in get_args(Balance) if each != "unbalanced"
]  # that of a file of tasks, which is not asked for
OF_IMAGES = ("split", "size", "depth", "data_dir", "skip_bad", "no_references")  # no meaning for arrays


def number_or_file(text: str) -> int | Path:
    """Read the value of ``--tasks``.

    >>> number_or_file("200"), number_or_file("tasks.json").name
    (200, 'tasks.json')
    """
    try:
        return int(text)
    except ValueError:
        return Path(text)


def shard_of(text: str) -> Shard:
    """Read the value of ``--shard``."""
    try:
        return Shard.read(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of several parts, such as 1/4") from error


def names_of(data: str) -> list[str]:
    """The data sets of ``--data``: one, or several with commas between. A folder with a comma in its name is one.

    >>> names_of("omniglot,cifar-fs"), names_of("folder:PHOTOS")
    (['omniglot', 'cifar-fs'], ['folder:PHOTOS'])
    """
    _, _, argument = data.partition(":")
    if argument and Path(argument).exists():
        return [data]
    return list(dict.fromkeys(name.strip() for name in data.split(",")))  # twice the same is measured once


def refuse_shape(args: argparse.Namespace, shape: Sequence[str] = SHAPE) -> None:
    """End with a usage error if a shape of tasks is given beside a file of tasks.

    Args:
        args: what the user has given.
        shape: the flags that say which tasks are drawn.
    """
    changed = [name.replace("_", "-") for name in shape if getattr(args, name) != args.parser.get_default(name)]
    if changed:
        args.parser.error(f"--{changed[0]} goes with tasks that are drawn; those of {args.tasks} have their own")


def settings_of(args: argparse.Namespace, split: Split | Labels) -> list[Setting]:
    """The tasks of each measurement."""
    if isinstance(args.tasks, Path):
        settings = [Setting.of_tasks(load_tasks(args.tasks, split))]
    else:
        how = {"queries": args.queries, "tasks": args.tasks, "seed": args.seed, "balance": args.balance}
        how["within"] = args.within
        settings = [Setting(ways, shots, **how) for ways in args.ways for shots in args.shots]
    if args.save_tasks and len(settings) > 1:
        args.parser.error("--save-tasks writes one set of tasks; give one number or range of ways and of shots")
    return settings


class FewImagesWarning(UserWarning):
    """Warns that a task takes most of the images there are, so the interval says little about other images."""


def warn_of_few_images(split: Split, settings: Sequence[Setting]) -> None:
    """Warn if a task takes more than half of the images: all tasks are then nearly the same one.

    Args:
        split: the images.
        settings: the tasks.

    Warns:
        FewImagesWarning: see above.
    """
    largest = max(max(each.ways) * (max(each.shots) + each.queries) for each in settings)
    if 2 * largest > len(split.bank):
        warnings.warn(
            f"{split.name} has {counted(len(split.bank), 'image')}, and a task takes up to {largest}: the intervals "
            "are over tasks of these images, and other images may give accuracies far outside of them",
            FewImagesWarning,
            stacklevel=2,
        )


def measure_features(args: argparse.Namespace) -> int:
    """Measure the arrays of ``--features``."""
    given = {"data": args.data, "shard": args.shard, "normalisation": args.normalisation}
    given |= {"test-steps": args.test_steps, "within": args.within}
    given |= {name.replace("_", "-"): getattr(args, name) != args.parser.get_default(name) for name in OF_IMAGES}
    if wrong := next((name for name, value in given.items() if value), None):
        args.parser.error(f"--{wrong} does not go with --features")
    features, labels, training = read_features(args.features)
    learner, own = read_learner(args.learner or "prototypes")
    rows, known = checked_features(features, labels)
    if args.results:
        read(args.results)  # fail before the measurements if the table cannot be read
    settings = settings_of(args, known)
    if args.save_tasks:
        save_tasks(args.save_tasks, known, settings[0].draw(known))
    found: list[dict[str, Any]] = []
    for setting in settings:
        report = evaluate_features(
            rows,
            known,
            learner,
            tasks=setting.draw(known),
            split=args.features.stem,
            reliability=args.reliability,
            training=training,
            **own,
        )
        report = replace(report, balance=setting.balance)
        found.append(features_row(args.features, report, rows.shape[1]))
        if not args.json:
            print(f"{'features':<18} {report}", flush=True)
            if report.reliability:
                print(f"{'':<18} {report.reliability}", flush=True)
    if args.retrieval:
        retrieval = measure_retrieval(features, labels)
        found = [row | {"retrieval": retrieval.as_dict()} for row in found]
        if not args.json:
            print(f"{'retrieval':<18} {retrieval}")
    if args.results:
        record(args.results, found)
    if args.json:
        print_json(found)
    return 0
