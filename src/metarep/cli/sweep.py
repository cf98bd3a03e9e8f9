"""The command ``metarep sweep``: try many settings of a method, and choose among them on validation classes."""

import argparse
import re
import shlex
from pathlib import Path
from typing import Any

from metarep.cli.options import print_json, refuse_inside, set_threads
from metarep.cli.over import EXAMPLES, read_space
from metarep.cli.parser import Parser
from metarep.cli.progress import progress
from metarep.cli.train import add_methods, add_settings, read_job, trackers_of
from metarep.errors import counted, missing_extra
from metarep.experiments.sweep.space import check_sweep

USAGE = "METHOD"
EXAMPLE = """examples:
  metarep sweep protonet --over lr=1e-4..1e-2:log --over width=32,64 --seeds 3
  metarep sweep protonet --recipe omniglot --over turns=1,2,6 --trials 3
  metarep sweep triplet --data folder:PHOTOS --over margin=0.1..0.5 --budget 2h
      for two hours; the same command goes on from there
  metarep sweep maml --over inner_lr=0.01..0.5:log --storage postgresql://HOST/DATABASE --study maml
      on each of several machines: they share one study
All flags of metarep train METHOD are valid. metarep train METHOD --config DIR/best.toml trains with the best.
"""
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
SHOWN = 25  # rows of the table on the terminal


def add(parser: Parser) -> None:
    description = "Try settings of {}, and choose among them on validation classes."
    add_methods(parser, "--over NAME=VALUES [flags]", description, EXAMPLE, add_flags_of, run)


def add_flags_of(parser: Parser, method: str | None) -> None:
    """Add the flags of a sweep, and those of ``metarep train`` for the method, if it is named."""
    group = parser.add_argument_group("sweep")
    group.add_argument(
        "--over",
        action="append",
        default=[],
        metavar="NAME=VALUES",
        help=f"a setting to try, and its values: {EXAMPLES}; give it once for each setting",
    )
    group.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="trainings of each trial, whose mean counts (default: 1)"
    )
    group.add_argument(
        "--trials", type=int, metavar="N", help="trials of the whole study (default: 20, or all within --budget)"
    )
    group.add_argument(
        "--budget", type=seconds, metavar="TIME", help="stop after this time, such as 30s, 10m or 2h (default: none)"
    )
    group.add_argument(
        "--prune",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="end a trial that is below the median of the others at the same step (default: True)",
    )
    group.add_argument(
        "--storage",
        metavar="URL",
        help="where the trials are kept: postgresql://USER@HOST/DATABASE, sqlite:///FILE, or a path that ends with "
        ".journal (default: study.db in --out)",
    )
    group.add_argument("--study", metavar="NAME", help="name of the study in --storage (default: METHOD-DATA)")
    add_settings(parser, method, out="folder of the sweep and of its run folders (default: runs/sweep-METHOD-DATA)")


def seconds(text: str) -> float:
    """Read a time such as ``90``, ``30s``, ``10m`` or ``1.5h`` as seconds.

    >>> seconds("10m")
    600.0
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 30s, 10m or 2h")
    return float(match[1]) * UNITS[match[2] or "s"]


def run(args: argparse.Namespace) -> int:
    set_threads(args)
    if trackers := trackers_of(args):
        args.parser.error(f"--{trackers[0]} is a flag of metarep train; a sweep writes trials.csv and trials.png")
    job = read_job(args)
    space = read_space(args.method, args.over)
    out = args.out or Path("runs") / f"sweep-{args.method}-{job.data.partition(':')[0]}"
    refuse_inside(out, data=[job.data])
    check_sweep(job, space, seeds=args.seeds, trials=args.trials, budget=args.budget)
    try:  # after the arguments are read: nobody installs Optuna to learn of a wrong one
        from metarep.experiments.sweep.sweep import sweep
    except ImportError as error:
        if (error.name or "").startswith("metarep"):
            raise
        raise missing_extra("metarep sweep", str(error.name), "sweep") from error
    with progress(quiet=args.json) as watch:
        swept = sweep(
            job,
            out,
            space,
            seeds=args.seeds,
            trials=args.trials,
            budget=args.budget,
            prune=args.prune,
            storage=args.storage,
            study=args.study,
            watch=watch,
            device=args.device,
            precision=args.precision,
            data_dir=args.data_dir,
            skip_bad=args.skip_bad,
        )
    if args.json:
        print_json({"sweep": str(out), "best": swept.best, "label_free": swept.label_free, "trials": swept.rows})
        return 0
    print(table(swept.rows, [*space]))
    if swept.best is None:
        print(f"no trial has finished: {out / 'trials.csv'}; the same command goes on from there")
        return 0
    print(f"chosen by labels of validation classes ({swept.best['validated_on']}), so its accuracy there is too high;")
    print("test classes were not read")
    if swept.label_free:
        print(f"{args.method} itself reads no true labels, but this choice does: say so beside its results")
    print(f"written: {out / 'trials.csv'}, {out / 'trials.png'}")
    flags = f" --data-dir {shlex.quote(str(args.data_dir))}" if args.data_dir else ""
    print(f"next: metarep train {args.method} --config {shlex.quote(str(out / 'best.toml'))}{flags}")
    return 0


def table(rows: list[dict[str, Any]], names: list[str]) -> str:
    """The trials as text, the best first; those without an accuracy are last.

    Args:
        rows: from :func:`metarep.experiments.sweep.sweep.sweep`.
        names: the settings that were tried.
    """
    order = {"done": 0, "pruned": 1}
    ranked = sorted(rows, key=lambda row: (order.get(row["state"], 2), -(row["accuracy"] or 0.0)))
    head = ["trial", "accuracy", *names, "state"]
    lines = [head, *([str(row["trial"]), _accuracy(row), *(_shown(row.get(name, "")) for name in names), _state(row)]
                     for row in ranked[:SHOWN])]  # fmt: skip
    widths = [max(len(line[column]) for line in lines) for column in range(len(head) - 1)]
    text = ["  ".join([*(part.rjust(width) for part, width in zip(line, widths, strict=False)), line[-1]])
            for line in lines]  # fmt: skip
    if len(ranked) > SHOWN:
        text.append(f"and {counted(len(ranked) - SHOWN, 'more trial')}")
    return "\n".join(text)


def _accuracy(row: dict[str, Any]) -> str:
    if row["accuracy"] is None:
        return ""
    spread = f" ± {row['seed_sd']:.2f}" if row["seed_sd"] is not None else ""
    return f"{row['accuracy']:.2f}{spread} %"


def _state(row: dict[str, Any]) -> str:
    """The state of a trial, with the step at which it was pruned or the reason why it failed."""
    return " ".join([row["state"], *([f"at step {row['step']}"] if row["step"] is not None else []),
                     *([f"({row['reason']})"] if row["reason"] else [])])  # fmt: skip


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
