"""The action ``metarep index search``, which is also the command ``metarep search``: find similar images."""

import argparse
from pathlib import Path

from metarep.cli.among import refuse_beside
from metarep.cli.index.shared import add_index, add_paths, near_path, need_paths, open_index
from metarep.cli.options import add_depth, add_machine, add_output, picture, print_json, refuse_existing, set_threads
from metarep.cli.parser import Parser
from metarep.data.drawing.contact_sheet import contact_sheet
from metarep.data.reading.folder_walk import shown

USAGE = "INDEX IMAGE ..."
EXAMPLE = """examples:
  metarep index search photos.index IMAGE
      the ten nearest, with their cosines
  metarep index search photos.index IMAGE -k 20 --out sheet.png
"""


def add(parser: Parser) -> None:
    add_index(parser)
    add_paths(parser, "images to search for")
    add_search(parser)


def add_search(parser: Parser) -> None:
    """Add the flags of a search."""
    parser.add_argument(
        "-k", "--hits", type=int, default=10, metavar="N", help="number of images to find (default: 10)"
    )
    parser.add_argument("--below", type=Path, metavar="FOLDER", help="only images below this folder")
    parser.add_argument("--out", type=picture, metavar="PNG", help="also draw the images as a contact sheet")
    add_depth(parser)
    add_machine(parser, precision="float32")
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    set_threads(args)
    need_paths(args, "an image")
    return search(args)


def search(args: argparse.Namespace) -> int:
    """Search an index by images and print the most similar ones. Returns exit status 0."""
    refuse_existing(args.out, "file")
    with open_index(args) as index:
        refuse_beside(args.out, (each.path for each in index.items.items.values()))
        results = index.search(args.paths, args.hits, args.below, args.depth)
    if args.out:
        contact_sheet(
            [
                [(str(query), ""), *((hit.path, f"{hit.score:.3f}") for hit in hits)]
                for query, hits in zip(args.paths, results, strict=True)
            ],
            args.out,
        )
    if args.json:
        print_json(
            [
                {
                    "query": shown(str(query)),
                    "hits": [{"path": shown(hit.path), "score": round(hit.score, 6)} for hit in hits],
                }
                for query, hits in zip(args.paths, results, strict=True)
            ]
        )
        return 0
    for query, hits in zip(args.paths, results, strict=True):
        print(f"{shown(str(query))}:")
        for hit in hits:
            print(f"  {hit.score:6.3f}  {near_path(hit.path)}")
    if args.out:
        print(f"drawn: {args.out}")
    return 0
