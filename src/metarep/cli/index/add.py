"""The action ``metarep index add``: add new and changed images to an index."""

import argparse

from metarep.cli.index.shared import add_filling, add_index, add_paths, fill_index, need_paths, open_index
from metarep.cli.options import set_threads
from metarep.cli.parser import Parser

USAGE = "INDEX FILE|FOLDER ..."
EXAMPLE = """examples:
  metarep index add photos.index MORE/
"""


def add(parser: Parser) -> None:
    add_index(parser)
    add_paths(parser, "images, or folders of images")
    add_filling(parser)


def run(args: argparse.Namespace) -> int:
    set_threads(args)
    need_paths(args, "files or folders")
    with open_index(args) as index:
        return fill_index(index, args)
