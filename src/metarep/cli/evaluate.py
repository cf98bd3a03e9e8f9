"""The command ``metarep evaluate``: measure a trained run on tasks of classes that it has not seen."""

import argparse
import warnings
from functools import partial
from pathlib import Path
from typing import Any, get_args

from torch import Tensor

from metarep.cli.options import add_data, add_machine, add_output, numbers, print_json, set_threads
from metarep.cli.parser import Parser
from metarep.cli.progress import measuring
from metarep.data.datasets import load_dataset
from metarep.data.datasets.omniglot_runs import load_runs
from metarep.data.datasets.options import Options
from metarep.encoders import computing
from metarep.encoders.normalisation import Normalisation
from metarep.errors import LeakageError, MetarepError
from metarep.experiments.evaluation import Balance, Report
from metarep.experiments.lake_runs import error_rate
from metarep.experiments.measure import Setting, measure_all, pick_learner, result_row
from metarep.experiments.results import read, record
from metarep.experiments.shards import Shard, write_shard
from metarep.learners import LEARNERS, Learner
from metarep.machine.device import pick_device, pick_precision
from metarep.machine.files import typed
from metarep.machine.ranks import rank
from metarep.weights.checkpoint import Checkpoint
from metarep.weights.shipped import load_trained, open_run, zoo_names

USAGE = "RUN"
WAYS, QUERIES = 5, 15
EXAMPLE = """examples:
  metarep evaluate runs/protonet-glyphs --ways 5,20 --shots 1,5
  metarep evaluate omniglot-protonet --data glyphs
      from handwriting to print; the scripts are not all
      unseen: it knows handwritten Armenian and Georgian
  metarep evaluate RUN --ways 5-20 --shots 1-5
      ways and shots vary from task to task
  metarep evaluate RUN --data omniglot-runs
      Lake's 20 one-shot runs, error rate
"""


def add(parser: Parser) -> None:
    parser.add_argument(
        "run",
        metavar="RUN",
        help=f"a run folder, a .safetensors file, or a model that ships with metarep: {', '.join(zoo_names())}",
    )
    parser.add_argument(
        "--split",
        default="test",
        help="test; val while you still choose settings; all for every class of another --data (default: test)",
    )
    parser.add_argument(
        "--ways",
        type=numbers,
        default=numbers(str(WAYS)),
        metavar="N",
        help=f"classes in a task: 5, a list such as 5,20, or a range such as 5-20 (default: {WAYS})",
    )
    parser.add_argument(
        "--shots", type=numbers, default=numbers("1"), metavar="N", help="support images of each class (default: 1)"
    )
    parser.add_argument(
        "--queries", type=int, default=QUERIES, metavar="N", help=f"query images of each class (default: {QUERIES})"
    )
    parser.add_argument(
        "--tasks", type=int, default=2000, metavar="N", help="tasks in each measurement (default: 2000)"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="seed of the sampled tasks (default: 1)")
    parser.add_argument(
        "--learner",
        metavar="NAME",
        help=f"{', '.join(LEARNERS)}; with settings, as in linear:strength=0.1,centre=true (default: as trained)",
    )
    parser.add_argument(
        "--balance",
        choices=get_args(Balance),
        default="balanced",
        help="how many queries a class has: all equally many, or shares drawn from a Dirichlet distribution, on which "
        "transductive learners lose accuracy (default: balanced)",
    )
    parser.add_argument(
        "--normalisation",
        choices=get_args(Normalisation),
        help="the batch statistics that norm layers use, for learners that adapt the body (default: as trained)",
    )
    parser.add_argument(
        "--test-steps", type=int, metavar="N", help="inner-loop steps in each task (default: as trained)"
    )
    parser.add_argument(
        "--no-references", action="store_true", help="do not also measure raw pixels and the untrained encoder"
    )
    parser.add_argument("--results", type=Path, metavar="CSV", help="also write the results to this table")
    parser.add_argument(
        "--shard",
        type=shard_of,
        metavar="I/N",
        help="measure only part I of N of the tasks, in a cluster that runs arrays of jobs; needs --out",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="file of the shard, for metarep merge")
    add_data(parser, None)
    add_machine(parser, precision="float32")
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    set_threads(args)
    device = pick_device(args.device)
    trained = load_trained(args.run, device)
    learner = pick_learner(trained, args.learner)
    precision = pick_precision(args.precision, device)
    with computing(learner, precision), learner.using(args.normalisation, args.test_steps):
        return _measure(args, trained, learner)


def _measure(args: argparse.Namespace, trained: Checkpoint, learner: Learner) -> int:
    own = trained.record.data
    data = args.data or own.name
    size = args.size or (own.size if args.data is None else learner.encoder.preprocess.size[0])
    if data == "omniglot-runs":
        return _one_shot_runs(args, trained, learner, size)
    if args.split in ("train", "trainval", "all") and args.data is None:
        raise LeakageError(f"{args.run} was trained on {data}; measure it on --split test, or on other --data")
    skip_bad = args.skip_bad or (args.data is None and own.skip_bad)
    depth = args.depth or own.depth
    split = load_dataset(data, args.split, size=size, data_dir=args.data_dir, skip_bad=skip_bad, depth=depth)
    trained.refuse_leak(split.labels, split.name, data, args.split)
    how = {"queries": args.queries, "tasks": args.tasks, "seed": args.seed, "balance": args.balance}
    settings = [Setting(ways, shots, **how) for ways in args.ways for shots in args.shots]
    if (args.shard is None) != (args.out is None):
        args.parser.error("--shard and --out belong together")
    if args.shard and args.results:
        args.parser.error("a shard is not a result; give --results to metarep merge")
    if args.results:
        read(args.results)  # fail before the measurements if the table cannot be read
    rows: list[dict[str, Any]] = []
    each_task: list[Tensor] = []
    watch: dict[str, Any] = {"watching": partial(measuring, quiet=args.json), "shard": args.shard}
    for name, report in measure_all(learner, split, settings, references=not args.no_references, **watch):
        rows.append(result_row(trained, name, report, args.run))
        each_task.append(report.per_task)
        if not args.json:
            _print(name, report)
    if args.shard and rank() == 0:
        write_shard(args.out, args.shard, list(zip(rows, each_task, strict=True)))
    if args.results and rank() == 0:
        record(args.results, rows)
    if args.json:
        print_json(rows)
    return 0


def suggest(
    run: Path, *, ways: int = WAYS, shots: tuple[int, ...] = (1,), data_dir: Path | None = None, skip_bad: bool = False
) -> str | None:
    """Suggest a command that measures a run on the test classes of its data; None if no such command would work.

    Args:
        run: a run folder.
        ways: the largest number of classes in a task, unless the run fixes it.
        shots: the numbers of support images of each class to measure.
        data_dir, skip_bad: the options of the training.
    """
    try:
        trained = open_run(run)
        data = trained.record.data
        with warnings.catch_warnings(action="ignore"):  # the training has shown them already
            bad = skip_bad or data.skip_bad
            split = load_dataset(data.name, "test", size=data.size, data_dir=data_dir, skip_bad=bad, depth=data.depth)
        trained.refuse_leak(split.labels, split.name, data.name, "test")
    except MetarepError:
        return None
    fixed, most = trained.learner.ways, max(shots)
    classes = {queries: int(split.labels.can_give(most, queries).sum()) for queries in (QUERIES, 10, 5, 2, 1)}
    wanted = fixed or min(ways, classes[1])
    queries = next((queries for queries, count in classes.items() if count >= max(2, wanted)), None)
    if queries is None:
        return suggest(run, ways=ways, data_dir=data_dir, skip_bad=skip_bad) if most > 1 else None
    flags = [f"--ways {wanted}"] * (wanted != WAYS)
    flags += [f"--shots {','.join(map(str, shots))}"] * (shots != (1,)) + [f"--queries {queries}"] * (
        queries != QUERIES
    )
    flags += [f"--data-dir {typed(data_dir)}"] if data_dir is not None else []
    return " ".join(["metarep evaluate", typed(run), *flags])


def shard_of(text: str) -> Shard:
    """Read the value of ``--shard``."""
    try:
        return Shard.read(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of several parts, such as 1/4") from error


def _print(name: str, report: Report) -> None:
    print(f"{name:<18} {report}", flush=True)


def _one_shot_runs(args: argparse.Namespace, trained: Checkpoint, learner: Learner, size: int | None) -> int:
    runs = load_runs(Options(size=size, data_dir=args.data_dir))
    trained.refuse_keys([key for keys in runs.keys for key in keys], "omniglot-runs")
    result = error_rate(learner, runs)
    if args.json:
        print_json(result.as_dict())
    else:
        print(result)
    return 0
