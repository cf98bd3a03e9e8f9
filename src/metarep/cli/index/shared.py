"""Functions that the actions of ``metarep index`` share: flags, opening and filling an index, and showing paths."""

import argparse
import warnings
from pathlib import Path

from metarep.cli.options import add_machine, add_output, add_reading, print_json
from metarep.cli.parser import Parser
from metarep.cli.progress import counting
from metarep.data.datasets.options import warn_of_left_out
from metarep.data.reading.folder_tree import FolderWarning
from metarep.data.reading.folder_walk import shown
from metarep.errors import MetarepError, counted
from metarep.machine.device import pick_device, pick_precision
from metarep.machine.files import typed
from metarep.search.image_index import ImageIndex


def add_index(parser: Parser) -> None:
    """Add the argument that names the index."""
    parser.add_argument("index", type=Path, metavar="INDEX", help="the folder of the index")


def add_paths(parser: Parser, text: str) -> None:
    """Add the arguments for files and folders of images; ``text`` is their help."""
    parser.add_argument("paths", type=Path, nargs="*", metavar="FILE|FOLDER", help=text)


def add_filling(parser: Parser) -> None:
    """Add the flags of an action that reads and embeds images."""
    add_reading(parser)
    add_machine(parser, precision="float32")
    add_output(parser)


def need_paths(args: argparse.Namespace, what: str) -> None:
    """Raise a ``MetarepError`` if no file or folder is given; ``what`` names what is missing."""
    if not args.paths:
        raise MetarepError(f"index {args.action} needs {what}: metarep index {args.action} {typed(args.index)} ...")


def open_index(args: argparse.Namespace) -> ImageIndex:
    """Open the index on the device and in the precision of the flags."""
    device = pick_device(args.device)
    return ImageIndex(args.index, device=device, precision=pick_precision(args.precision, device))


def fill_index(index: ImageIndex, args: argparse.Namespace) -> int:
    """Add the images that are new or have changed, and print how many images the index holds. Returns exit status 0."""
    with counting("image", quiet=args.json) as tell:

        def watch(record: dict[str, int]) -> None:
            tell(record["done"], record["total"], record["embedded"])

        added = index.add(args.paths, skip_bad=args.skip_bad, depth=args.depth, watch=watch)
    bad = added.bad or []
    files = added.new + added.changed + added.known + len(bad)
    warn_of_left_out(bad, files)
    if not files:
        warnings.warn(f"there are no images in {', '.join(map(shown, args.paths))}", FolderWarning, stacklevel=2)
    if args.json:
        facts = {"new": added.new, "changed": added.changed, "known": added.known, "left_out": len(bad)}
        print_json({"images": len(index), **facts})
        return 0
    more = f", {added.changed:,} changed" if added.changed else ""
    print(f"{counted(len(index), 'image')} in {args.index}: {added.new:,} new{more}, {added.known:,} known already")
    return 0


def near_path(path: str) -> str:
    """A path relative to the working directory if it is below it, otherwise as it is."""
    here = Path.cwd()
    return shown(str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path)
