"""The command ``metarep search``: the same as ``metarep index search``."""

import argparse
from pathlib import Path

from metarep.cli.index.search import add_search, search
from metarep.cli.index.shared import add_index
from metarep.cli.options import set_threads
from metarep.cli.parser import Parser

USAGE = "INDEX IMAGE ..."
EXAMPLE = """examples:
  metarep search photos.index IMAGE
      the ten nearest, with their cosines
  metarep search photos.index IMAGE -k 20 --out sheet.png
metarep index build makes an index.
"""


def add(parser: Parser) -> None:
    add_index(parser)
    parser.add_argument("paths", type=Path, nargs="+", metavar="IMAGE", help="image to search for")
    add_search(parser)


def run(args: argparse.Namespace) -> int:
    set_threads(args)
    return search(args)
