"""The command ``metarep quickstart``: train and compare several methods, and write a report."""

import argparse
from pathlib import Path
from typing import Any

from metarep.cli.evaluate import suggest
from metarep.cli.options import add_machine, add_output, print_json, refuse_inside, set_threads
from metarep.cli.parser import Parser
from metarep.cli.progress import progress
from metarep.experiments.quickstart import quickstart

EXAMPLE = """examples:
  metarep quickstart                              glyphs, which need no download
  metarep quickstart --data omniglot --out runs/omniglot-quickstart
"""


def add(parser: Parser) -> None:
    parser.add_argument(
        "--data", default="glyphs", metavar="NAME", help="data set (default: glyphs, which is embedded)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/quickstart"),
        metavar="DIR",
        help="folder for the runs and the report (default: runs/quickstart)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of the weights, batches and views (default: 0)"
    )
    add_machine(parser)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    set_threads(args)
    refuse_inside(args.out, data=[args.data])
    with progress(quiet=args.json) as watch:

        def watch_phase(phase: str, record: dict[str, Any]) -> None:
            watch({"phase": phase, **record})

        result = quickstart(
            args.out, data=args.data, seed=args.seed, device=args.device, precision=args.precision, watch=watch_phase
        )
    if args.json:
        print_json(result)
        return 0
    for row in result["rows"]:
        print(f"{row['method']:<18} {row['ways']}-way {row['shots']}-shot  {row['accuracy']:.2f} ± {row['ci95']:.2f} %")
    print(f"\nreport:  {result['report']}\nnumbers: {result['results']}")
    if command := suggest(args.out / result["best"], ways=10, shots=(1, 5)):
        print(f"next:    {command}")
    print("         metarep train protonet --data folder:YOUR-IMAGES   (a folder a class, of 6 images or more)")
    return 0
