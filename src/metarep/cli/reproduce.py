"""The command ``metarep reproduce``: train a recipe, measure it and write the results to a table."""

import argparse
from pathlib import Path

from metarep.cli.options import add_machine, add_output, print_json, set_threads
from metarep.cli.parser import Parser
from metarep.cli.progress import progress
from metarep.experiments.recipes import recipe_names
from metarep.experiments.reproduce import reproduce

USAGE = "RECIPE"
EXAMPLE = """examples:
  metarep reproduce protonet-omniglot
      train on train + validation, measure on test
  metarep reproduce protonet-omniglot --train-on train
      choose on validation: measures val, never test
"""


def add(parser: Parser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help=", ".join(recipe_names()))
    parser.add_argument(
        "--out", type=Path, default=Path("runs"), metavar="DIR", help="folder for the run folders (default: runs)"
    )
    parser.add_argument(
        "--results",
        type=Path,
        default=Path("results"),
        metavar="DIR",
        help="folder of the tables of results (default: results)",
    )
    parser.add_argument(
        "--train-on",
        default="trainval",
        help="trainval, or train to choose settings on validation classes (default: trainval)",
    )
    parser.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="number of trainings, with seeds 0 to N - 1 (default: 1)"
    )
    parser.add_argument(
        "--tasks", type=int, metavar="N", help="test tasks in each measurement (default: the recipe's, or 10000)"
    )
    parser.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="folder that already holds the archives (default: METAREP_DATA)"
    )
    add_machine(parser)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    set_threads(args)
    with progress(quiet=args.json) as watch:
        rows = reproduce(
            args.recipe,
            args.out,
            args.results,
            train_on=args.train_on,
            seeds=args.seeds,
            tasks=args.tasks,
            device=args.device,
            precision=args.precision,
            data_dir=args.data_dir,
            watch=watch,
        )
    if args.json:
        print_json(rows)
        return 0
    for row in rows:
        published = f"published {row['published']}" if row.get("published") else "no published result"
        name = ", ".join(filter(None, (row["method"], row["learner"])))
        print(
            f"{name:<32} {row['ways']}-way {row['shots']}-shot: {row['accuracy']:.2f} ± {row['ci95']:.2f} % "
            f"on {row['data']}/{row['split']} ({published})"
        )
    return 0
