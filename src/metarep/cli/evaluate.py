"""The command ``metarep evaluate``: measure a trained run on tasks of classes that it has not seen."""

import argparse
import warnings
from functools import partial
from pathlib import Path
from typing import Any, get_args

from metarep.cli.measured import (
    BALANCES,
    measure_features,
    names_of,
    number_or_file,
    refuse_shape,
    settings_of,
    shard_of,
    warn_of_few_images,
)
from metarep.cli.options import add_data, add_machine, add_output, numbers, print_json, refuse_existing, set_threads
from metarep.cli.parser import Parser
from metarep.cli.progress import measuring
from metarep.data.datasets import load_dataset
from metarep.data.datasets.omniglot_runs import load_runs
from metarep.data.datasets.options import Options
from metarep.data.task_file import save_tasks
from metarep.encoders import computing
from metarep.encoders.normalisation import Normalisation
from metarep.errors import LeakageError, MetarepError
from metarep.experiments.measurement.lake_runs import error_rate
from metarep.experiments.measurement.measure import measure_all, pick_learner
from metarep.experiments.measurement.report import Report
from metarep.experiments.measurement.results import read, record
from metarep.experiments.measurement.retrieval import retrieve_split
from metarep.experiments.measurement.rows import result_row
from metarep.experiments.measurement.shards import write_shard
from metarep.learners import LEARNERS, Learner
from metarep.machine.device import pick_device, pick_precision
from metarep.machine.files import typed
from metarep.machine.ranks import rank
from metarep.weights.checkpoint import Checkpoint
from metarep.weights.frozen import FROZEN, load_to_measure
from metarep.weights.hub.fetch import pinned
from metarep.weights.shipped import open_run, zoo_names

USAGE = "RUN"
WAYS, QUERIES, TASKS = 5, 15, 2000
EXAMPLE = """examples:
  metarep evaluate runs/protonet-glyphs --ways 5,20 --shots 1,5
  metarep evaluate omniglot-protonet --data glyphs
      from handwriting to print; the scripts are not all
      unseen: it knows handwritten Armenian and Georgian
  metarep evaluate RUN --ways 5-20 --shots 1-5
      ways and shots vary from task to task
  metarep evaluate efficientnet-lite0 --data caltech-101 --size 160
      a pretrained encoder as it is, by the cosine with class means
  metarep evaluate RUN --data omniglot-runs
      Lake's 20 one-shot runs, error rate
  metarep evaluate RUN --data cifar-fs,fc100 --reliability
      on several data sets; also open set and calibration
  metarep evaluate --features mine.npz --learner linear
      arrays features and labels of any other program
"""


def add(parser: Parser) -> None:
    parser.add_argument(
        "run",
        nargs="?",
        metavar="RUN",
        help="a run folder, a .safetensors file, a model that ships with metarep "
        f"({', '.join(zoo_names())}), or a frozen encoder: efficientnet-lite0 to 2, timm:NAME, FILE.onnx, a file of "
        "weights; or hf:USER/NAME",
    )
    parser.add_argument("--arch", metavar="NAME", help="network of a file of weights, as in metarep fit")
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
        "--tasks",
        type=number_or_file,
        default=TASKS,
        metavar="N",
        help=f"tasks in each measurement; or a file of tasks from --save-tasks or another library (default: {TASKS})",
    )
    parser.add_argument(
        "--save-tasks", type=Path, metavar="FILE", help="also write the tasks as JSON, for other libraries"
    )
    parser.add_argument(
        "--reliability",
        action="store_true",
        help="also measure open set, calibration, worst class and worst task; takes about four times as long",
    )
    parser.add_argument(
        "--retrieval",
        action="store_true",
        help="also search with each image among all others: recall@1 to 8, R-precision and MAP@R",
    )
    parser.add_argument(
        "--features",
        type=Path,
        metavar="NPZ",
        help="measure the arrays features and labels of this file instead of a run; an array training, if it is there, "
        "holds features of training images, whose mean some learners subtract",
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="seed of the sampled tasks (default: 1)")
    parser.add_argument(
        "--learner",
        metavar="NAME",
        help=f"{', '.join(LEARNERS)}; with settings, as in linear:strength=0.1,centre=true (default: as trained)",
    )
    parser.add_argument(
        "--balance",
        choices=BALANCES,
        default="balanced",
        help="how many queries a class has: all equally many, or shares drawn from a Dirichlet distribution, on which "
        "transductive learners lose accuracy (default: balanced)",
    )
    parser.add_argument(
        "--within",
        action="store_true",
        help="draw the classes of each task from one superclass, where names are such as alphabet/character",
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
    add_data(parser, "that of the run", "those of its training, or the encoder's own")
    add_machine(parser, precision="float32")
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    set_threads(args)
    if (args.run is None) == (args.features is None):
        args.parser.error("give a RUN or --features, and not both")
    if (args.shard is None) != (args.out is None):
        args.parser.error("--shard and --out belong together")
    if args.shard and (args.results or args.save_tasks or args.retrieval):
        args.parser.error(
            "a shard is not a result; give --results to metarep merge, and the rest to a whole measurement"
        )
    if isinstance(args.tasks, Path):
        refuse_shape(args)
    for new in (args.save_tasks, args.out):
        refuse_existing(new, "file")
    if args.features:
        return measure_features(args)
    device = pick_device(args.device)
    args.run = pinned(args.run)
    trained = load_to_measure(args.run, device, size=args.size, arch=args.arch)
    learner = pick_learner(trained, args.learner)
    precision = pick_precision(args.precision, device)
    with computing(learner, precision), learner.using(args.normalisation, args.test_steps):
        return _measure(args, trained, learner)


def _measure(args: argparse.Namespace, trained: Checkpoint, learner: Learner) -> int:
    own = trained.record.data
    names = names_of(args.data) if args.data else [own.name]
    if not names[0]:
        args.parser.error(f"{args.run} was not trained here; name the data with --data")
    frozen = trained.record.method == FROZEN  # it reads images at its own size, as in compare and in fit
    as_trained = not frozen and (args.data is None or not own.name)
    size = args.size or (own.size if as_trained else learner.encoder.preprocess.size[0])
    if "omniglot-runs" in names:
        if len(names) > 1 or args.shard or args.save_tasks or args.reliability or args.retrieval:
            args.parser.error("omniglot-runs has runs of its own; measure it alone, without tasks and their figures")
        return _one_shot_runs(args, trained, learner, size)
    if args.split in ("train", "trainval", "all") and args.data is None:
        raise LeakageError(f"{args.run} was trained on {own.name}; measure it on --split test, or on other --data")
    if len(names) > 1 and (args.save_tasks or isinstance(args.tasks, Path)):
        args.parser.error("a file of tasks is of one data set; give one --data")
    skip_bad = args.skip_bad or (args.data is None and own.skip_bad)
    splits = []
    for name in names:
        split = load_dataset(
            name, args.split, size=size, data_dir=args.data_dir, skip_bad=skip_bad, depth=args.depth or own.depth
        )
        trained.refuse_leak(split.labels, split.name, name, args.split)
        splits.append(split)
    if args.results:
        read(args.results)  # fail before the measurements if the table cannot be read
    settings = settings_of(args, splits[0])
    if args.save_tasks and rank() == 0:
        save_tasks(args.save_tasks, splits[0], settings[0].draw(splits[0].labels))
    for split in splits if rank() == 0 else ():
        warn_of_few_images(split, settings)
    rows: list[dict[str, Any]] = []
    reports: list[Report] = []
    how: dict[str, Any] = {"watching": partial(measuring, quiet=args.json), "shard": args.shard}
    how |= {"references": not args.no_references, "reliability": args.reliability}
    for split in splits:
        for name, report in measure_all(learner, split, settings, **how):
            rows.append(result_row(trained, name, report, args.run))
            reports.append(report)
            if not args.json:
                _print(name, report)
        if args.retrieval:
            found = retrieve_split(learner, split)
            rows = [
                row
                | (
                    {"retrieval": found.as_dict()}
                    if row["method"] == trained.record.method and f"{row['data']}/{row['split']}" == split.name
                    else {}
                )
                for row in rows
            ]
            if not args.json:
                print(f"{'retrieval':<18} {found}, {split.name}")
    if args.shard and rank() == 0:
        tallies = [report.reliability.tally if report.reliability else None for report in reports]
        write_shard(args.out, args.shard, list(zip(rows, [each.per_task for each in reports], tallies, strict=True)))
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


def _print(name: str, report: Report) -> None:
    print(f"{name:<18} {report}", flush=True)
    if report.reliability:
        print(f"{'':<18} {report.reliability}", flush=True)


def _one_shot_runs(args: argparse.Namespace, trained: Checkpoint, learner: Learner, size: int | None) -> int:
    runs = load_runs(Options(size=size, data_dir=args.data_dir))
    trained.refuse_keys([key for keys in runs.keys for key in keys], "omniglot-runs")
    result = error_rate(learner, runs)
    if args.json:
        print_json(result.as_dict())
    else:
        print(result)
    return 0
