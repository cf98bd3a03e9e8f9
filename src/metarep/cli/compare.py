"""The command ``metarep compare``: train and measure several methods and runs alike, and write a report."""

import argparse
from pathlib import Path
from typing import Any

from metarep.cli.evaluate import WAYS
from metarep.cli.measured import BALANCES, names_of, number_or_file, refuse_shape
from metarep.cli.options import add_machine, add_output, numbers, print_json, refuse_inside, set_threads
from metarep.cli.parser import Parser
from metarep.cli.progress import progress
from metarep.cli.sweep import seconds
from metarep.errors import MetarepError
from metarep.experiments.compare import Compared, Comparison, compare
from metarep.experiments.measurement.results import read, record
from metarep.methods import METHODS
from metarep.weights.frozen import load_to_measure

USAGE = "[RUN ...] [--methods NAMES]"
EXAMPLE = """examples:
  metarep compare --methods protonet,simclr --budget 20s
      two methods on the embedded glyphs, each for 20 seconds
  metarep compare --data cifar-fs --methods all --ways 5,20 --shots 1,5 --budget 10m --seeds 3
  metarep compare --data omniglot --methods all --recipes --out runs/recipes
  metarep compare runs/mine runs/yours --data glyphs
      runs that are trained already
  metarep compare runs/mine --methods protonet --data folder:PHOTOS
  metarep compare efficientnet-lite0 --data cifar-fs --learner prototypes --learner bd-cspn
      several learners on one encoder
  metarep compare mine.npz theirs.npz --ways 5,20 --shots 1,5
      features that were computed elsewhere, of the same images
The same command continues a comparison that was interrupted.
"""


def add(parser: Parser) -> None:
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="a trained run to measure as well: a run folder, a .safetensors file, a model that ships, or a "
        "third-party encoder such as efficientnet-lite0; or .npz files of features and labels alone, as in evaluate "
        "--features",
    )
    parser.add_argument(
        "--methods", type=names, default=(), metavar="NAMES", help=f"all, or some of: {', '.join(METHODS)}"
    )
    parser.add_argument(
        "--data",
        type=lambda text: tuple(names_of(text)),
        metavar="NAMES",
        help="data sets, separated by commas (default: that of the first RUN, else glyphs)",
    )
    parser.add_argument(
        "--ways",
        type=numbers,
        default=numbers(str(WAYS)),
        metavar="N",
        help=f"classes in a task, as in evaluate (default: {WAYS})",
    )
    parser.add_argument(
        "--shots", type=numbers, default=numbers("1"), metavar="N", help="support images of each class (default: 1)"
    )
    group = parser.add_argument_group("training")
    group.add_argument(
        "--budget",
        type=seconds,
        metavar="TIME",
        help="train each method for this time, such as 20s or 10m (default: each method's own number of steps)",
    )
    group.add_argument("--recipes", action="store_true", help="train each method by its recipe for the data set")
    group.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="trainings of each method, with seeds 0 to N - 1 (default: 1)"
    )
    group.add_argument(
        "--train-on",
        metavar="SPLIT",
        help="train (validated on val), or trainval (default: train; trainval with --recipes)",
    )
    group.add_argument("--encoder", metavar="NAME", help="conv4 or resnet12 (default: conv4, or that of the recipe)")
    group.add_argument("--width", type=int, metavar="N", help="channels of the encoder (default: 64)")
    group = parser.add_argument_group("measurement")
    group.add_argument(
        "--queries",
        type=int,
        metavar="N",
        help="query images of each class (default: 15, or fewer if a class is small)",
    )
    group.add_argument(
        "--tasks",
        type=number_or_file,
        default=2000,
        metavar="N",
        help="tasks in each measurement; or a file of tasks from --save-tasks or another library (default: 2000)",
    )
    group.add_argument(
        "--save-tasks", type=Path, metavar="FILE", help="also write the tasks as JSON, for other libraries"
    )
    group.add_argument(
        "--learner",
        action="append",
        default=[],
        metavar="NAME",
        help="solve the tasks on the encoder of every RUN by this learner, as in evaluate; give it several times for "
        "several rows (default: as trained)",
    )
    group.add_argument(
        "--balance",
        choices=BALANCES,
        default="balanced",
        help="how many queries a class has, as in evaluate (default: balanced)",
    )
    group.add_argument("--task-seed", type=int, default=1, metavar="N", help="seed of the tasks (default: 1)")
    group = parser.add_argument_group("files")
    group.add_argument("--size", type=int, metavar="PX", help="side of the images (default: the data set's own)")
    group.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="folder that already holds the archives (default: METAREP_DATA)"
    )
    group.add_argument("--skip-bad", action="store_true", help="leave out images that cannot be read, and list them")
    group.add_argument(
        "--results", type=Path, metavar="FILE", help="also write the rows, as means over seeds, to this table"
    )
    group.add_argument(
        "--out",
        type=Path,
        default=Path("runs/compare"),
        metavar="DIR",
        help="folder for the runs, the tables and the report (default: runs/compare)",
    )
    add_machine(parser)
    add_output(parser)


def names(text: str) -> tuple[str, ...]:
    """Read a list of names, separated by commas.

    >>> names("protonet, simclr")
    ('protonet', 'simclr')
    """
    given = tuple(name for part in text.split(",") if (name := part.strip()))
    if not given:
        raise argparse.ArgumentTypeError("it names nothing; give one name or more, separated by commas")
    return given


def run(args: argparse.Namespace) -> int:
    set_threads(args)
    encoder = None
    if args.encoder or args.width is not None:
        encoder = {"name": args.encoder or "conv4"} | ({} if args.width is None else {"width": args.width})
    given = isinstance(args.tasks, Path)
    if given:
        refuse_shape(args, ("ways", "shots", "queries", "task_seed", "balance"))
    learned = [load_to_measure(run).record.data.name for run in args.runs if not run.endswith(".npz")]
    plan = Comparison(
        data=args.data or (next(iter(learned), None) or "glyphs",),
        methods=args.methods,
        runs=tuple(args.runs),
        ways=tuple(args.ways),
        shots=tuple(args.shots),
        seeds=args.seeds,
        budget=args.budget,
        recipes=args.recipes,
        train_on=args.train_on,
        queries=args.queries,
        task_file=str(args.tasks) if given else None,
        task_seed=args.task_seed,
        learners=tuple(args.learner),
        balance=args.balance,
        size=args.size,
        encoder=encoder,
        **({} if given else {"tasks": args.tasks}),
    )
    refuse_inside(args.out, data=[*plan.data, *filter(None, learned)])
    if encoder and not args.methods:
        raise MetarepError("--encoder and --width are for trainings; name what to train with --methods")
    machine = {"device": args.device, "precision": args.precision, "data_dir": args.data_dir, "skip_bad": args.skip_bad}
    if args.results:
        read(args.results)  # fail before the trainings if the table cannot be read
    with progress(quiet=args.json) as watch:
        compared = compare(plan, args.out, watch=watch, save_to=args.save_tasks, **machine)
    if args.results:
        record(args.results, table_rows(compared, plan))
    if args.json:
        print_json(compared.content)
        return 0
    print(table(compared))
    print(f"report: {args.out / 'report.html'}\ntables: {args.out / 'results.md'}, {args.out / 'results.csv'}")
    return 0


def table_rows(compared: Compared, plan: Comparison) -> list[dict[str, Any]]:
    """The rows of a comparison for a table of results, whose recipe says how its own trainings were made.

    Args:
        compared: what was found.
        plan: what was compared.
    """
    budget = "" if plan.budget is None else f" --budget {plan.budget:g}s"
    how = f"compare{' --recipes' if plan.recipes else budget}"
    trained, rows = {each["method"] for each in compared.content["trainings"]}, []
    for row in compared.content["rows"]:
        took = row["train_seconds"]
        own = {"recipe": how, "train_seconds": round(took) if took else ""} if row["method"] in trained else {}
        rows.append(row | own)
    return rows


def table(compared: Compared) -> str:
    """The accuracies as text, one line for each entrant and set of tasks; a star marks the best and its equals."""
    lines = []
    for place in compared.findings.places:
        leaders = compared.findings.leaders(place)
        for entrant in compared.findings.entrants:
            if cell := compared.findings.cell(entrant.name, place):
                sd = "" if cell.seed_sd is None else f", sd {cell.seed_sd:.2f} of {len(cell.runs)} seeds"
                star = " *" if entrant.name in leaders else ""
                what = f"{place.data} {place.shape}"
                lines.append(f"{entrant.name:<18} {what}: {cell.accuracy:.2f} ± {cell.ci95:.2f} %{sd}{star}")
    return "\n".join([*lines, "* the best of these tasks, or not significantly different from it"])
