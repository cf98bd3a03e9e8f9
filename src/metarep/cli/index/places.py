"""What the actions of ``metarep index`` share: how an index is opened and filled, and how a path is shown."""

import argparse
from pathlib import Path

from metarep.cli.options import add_machine, add_output, add_reading, print_json
from metarep.cli.parser import Parser
from metarep.cli.progress import counting
from metarep.data.datasets.options import warn_of_left_out
from metarep.data.reading.folder_walk import shown
from metarep.errors import MetarepError, counted
from metarep.machine.device import pick_device, pick_precision
from metarep.machine.files import typed
from metarep.search.image_index import ImageIndex


def add_index(parser: Parser) -> None:
    """The index that an action is about."""
    parser.add_argument("index", type=Path, metavar="INDEX", help="the folder of the index")


def add_places(parser: Parser, text: str) -> None:
    """Files and folders of images."""
    parser.add_argument("places", type=Path, nargs="*", metavar="FILE|FOLDER", help=text)


def add_filling(parser: Parser) -> None:
    """How images are read and embedded, and how the action answers."""
    add_reading(parser)
    add_machine(parser, precision="float32")
    add_output(parser)


def need_places(args: argparse.Namespace, what: str) -> None:
    """Raise where no file or folder is given."""
    if not args.places:
        raise MetarepError(f"index {args.action} needs {what}: metarep index {args.action} {typed(args.index)} ...")


def open_index(args: argparse.Namespace) -> ImageIndex:
    """The index that is named, on the device that is asked for."""
    device = pick_device(args.device)
    return ImageIndex(args.index, device=device, precision=pick_precision(args.precision, device))


def fill_index(index: ImageIndex, args: argparse.Namespace) -> int:
    """Embed what is new, and say how many images there are now."""
    with counting("image", quiet=args.json) as tell:

        def watch(record: dict[str, int]) -> None:
            tell(record["done"], record["total"], record["embedded"])

        added = index.add(args.places, skip_bad=args.skip_bad, depth=args.depth, watch=watch)
    bad = added.bad or []
    warn_of_left_out(bad, added.new + added.changed + added.known + len(bad))
    if args.json:
        facts = {"new": added.new, "changed": added.changed, "known": added.known, "left_out": len(bad)}
        print_json({"images": len(index), **facts})
        return 0
    more = f", {added.changed:,} changed" if added.changed else ""
    print(f"{counted(len(index), 'image')} in {args.index}: {added.new:,} new{more}, {added.known:,} known already")
    return 0


def near_path(path: str) -> str:
    """A path as one would type it here."""
    here = Path.cwd()
    return shown(str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path)
