"""The action ``metarep index duplicates``: find copies and similar images in an index."""

import argparse
from pathlib import Path

from metarep.cli.among import refuse_beside
from metarep.cli.index.shared import add_index, near_path, open_index
from metarep.cli.options import add_machine, add_output, picture, print_json, refuse_existing, set_threads
from metarep.cli.parser import Parser
from metarep.cli.progress import counting
from metarep.data.drawing.contact_sheet import contact_sheet
from metarep.data.reading.folder_walk import shown
from metarep.errors import MetarepError, counted
from metarep.search.duplicates import duplicates

USAGE = "INDEX"
EXAMPLE = """examples:
  metarep index duplicates photos.index --threshold 0.99 --out twins.png
"""


def add(parser: Parser) -> None:
    add_index(parser)
    parser.add_argument(
        "--threshold",
        type=float,
        default=0.995,
        metavar="X",
        help="smallest cosine similarity of two images that look alike (default: 0.995)",
    )
    parser.add_argument("--out", type=picture, metavar="PNG", help="also draw the groups as a contact sheet")
    add_machine(parser, precision="float32")
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    set_threads(args)
    if not -1 <= args.threshold <= 1:
        raise MetarepError(f"--threshold must be a cosine from -1 to 1, not {args.threshold:g}")
    refuse_existing(args.out, "file")
    with open_index(args) as index, counting("image", quiet=args.json) as tell:
        items, total = index.items.items, len(index)
        refuse_beside(args.out, (each.path for each in items.values()))
        paths = [Path(items[each].path) for each in index.index.ids().tolist()]
        groups = duplicates(index.index, paths, args.threshold, watch=lambda done: tell(done, total))
        named = [(each.kind, [items[i] for i in each.ids]) for each in groups]
    left = 0
    if args.out and named:
        left = contact_sheet(
            [
                [(item.path, kind.removesuffix("s") if kind == "look-alikes" else "copy") for item in group]
                for kind, group in named
            ],
            args.out,
            first="",
        )
    if args.json:
        print_json(
            [
                [{"path": shown(item.path), "digest": item.digest, "kind": kind} for item in group]
                for kind, group in named
            ]
        )
        return 0
    copies = sum(kind == "copies" for kind, _ in named)
    print(f"{counted(copies, 'group')} of copies")
    print(f"{counted(len(named) - copies, 'group')} of look-alikes, with a cosine of {args.threshold:g} or more")
    for number, (kind, group) in enumerate(named, 1):
        same = len(group) - len({item.digest for item in group})
        files = f", {same + 1} of them the same file" if same else ""
        print(f"group {number}: {len(group)} {kind}{files}")
        for item in group:
            print(f"  {near_path(item.path)}")
    if args.out and named:
        more = f", without {counted(left, 'group')} more" if left else ""
        print(f"drawn: {args.out}{more}")
    return 0
