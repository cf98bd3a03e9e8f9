"""The action ``metarep index remove``: remove images from an index."""

import argparse

from metarep.cli.index.shared import add_index, add_paths, need_paths, open_index
from metarep.cli.options import add_machine, add_output, print_json, set_threads
from metarep.cli.parser import Parser
from metarep.errors import counted

USAGE = "INDEX [FILE|FOLDER ...]"
EXAMPLE = """examples:
  metarep index remove photos.index PHOTOS/old
  metarep index remove photos.index --missing
"""


def add(parser: Parser) -> None:
    add_index(parser)
    add_paths(parser, "images, or folders of images")
    parser.add_argument(
        "--missing", action="store_true", help="also remove every image whose file does not exist any more"
    )
    add_machine(parser, precision="float32")
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    set_threads(args)
    if not args.missing:
        need_paths(args, "files, folders, or --missing")
    with open_index(args) as index:
        gone, left = index.remove(args.paths, missing=args.missing), len(index)
    if args.json:
        print_json({"images": left, "removed": gone})
    else:
        print(f"{counted(left, 'image')} in {args.index}: {gone:,} removed")
    return 0
