"""The command ``metarep merge``: merge the shards of a measurement that several jobs have made."""

import argparse
from pathlib import Path

from metarep.cli.options import add_output, print_json
from metarep.cli.parser import Parser
from metarep.experiments.measurement.reliability import told
from metarep.experiments.measurement.results import record
from metarep.experiments.measurement.shards import merge_shards

USAGE = "FILE ..."
EXAMPLE = """examples:
  metarep evaluate RUN --tasks 1000000 --shard 1/4 --out part1.json
      one of four jobs
  metarep merge part1.json part2.json part3.json part4.json
      the same digits as one job of all tasks
"""


def add(parser: Parser) -> None:
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="the files that metarep evaluate --shard has written"
    )
    parser.add_argument("--results", type=Path, metavar="CSV", help="also write the results to this table")
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    rows = merge_shards(args.files)
    if args.results:
        record(args.results, rows)
    if args.json:
        print_json(rows)
        return 0
    for row in rows:
        print(
            f"{row['method']:<18} {row['ways']}-way {row['shots']}-shot: {row['accuracy']:.2f} ± {row['ci95']:.2f} % "
            f"({row['tasks']:,} tasks, {row['protocol']}, {row['learner']}, {row['data']}/{row['split']} "
            f"{row['digest']})"
        )
        if "auroc" in row:
            print(f"{'':<18} {told(row)}")
    return 0
