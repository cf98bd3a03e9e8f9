"""metarep search INDEX IMAGE."""

import argparse
from pathlib import Path

from metarep.cli.index import add_search, search
from metarep.cli.options import add_depth, add_machine, add_output, set_threads
from metarep.cli.parser import Parser

USAGE = "INDEX IMAGE ..."
EXAMPLE = """examples:
  metarep search photos.index IMAGE                       the ten nearest, with their cosines
  metarep search photos.index IMAGE -k 20 --out sheet.png
metarep index build makes an index.
"""


def add(parser: Parser, argv: list[str]) -> None:  # noqa: ARG001 - the same for every command
    parser.add_argument("index", type=Path, metavar="INDEX", help="the folder of an index")
    parser.add_argument("places", type=Path, nargs="+", metavar="IMAGE", help="what to look for")
    add_search(parser)
    add_depth(parser)
    add_machine(parser, precision="float32")
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    set_threads(args)
    return search(args)
