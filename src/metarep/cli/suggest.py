"""The command ``metarep suggest``: which unlabelled images to label next, and which classes need more images."""

import argparse
from itertools import islice
from pathlib import Path

import torch

from metarep.cli.among import refuse_among_classes
from metarep.cli.images import find_images
from metarep.cli.options import (
    add_output,
    add_reading,
    add_threads,
    picture,
    print_json,
    refuse_existing,
    refuse_inside,
    set_threads,
)
from metarep.cli.parser import Parser
from metarep.cli.predict import BATCH
from metarep.cli.progress import counter
from metarep.data.copies.picture_hash import picture_hash
from metarep.data.drawing.contact_sheet import MOST_IMAGES, contact_sheet
from metarep.data.reading.depth import Depth
from metarep.data.reading.photographs import LeftOut, notice_depth
from metarep.errors import counted, plural
from metarep.machine.files import typed
from metarep.model.folder import ModelFolder
from metarep.model.model import Model
from metarep.model.suggestions import ClassNeed, Suggestion, class_needs, suggest

USAGE = "MODEL FOLDER..."
EXAMPLE = """examples:
  metarep suggest moths camera/
      the ten images of camera/ whose labels would teach the model most
  metarep suggest moths camera/ --number 20 --out next.png
      twenty, with a sheet of them
"""
MOST = 5  # classes that are printed, and classes that one is taken for


def add(parser: Parser) -> None:
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="a model folder that metarep fit made, or hf:USER/NAME"
    )
    parser.add_argument("images", nargs="+", metavar="FOLDER", help="folders of unlabelled images, or images")
    parser.add_argument("--number", type=int, default=10, metavar="N", help="number of images to suggest (default: 10)")
    parser.add_argument("--out", type=picture, metavar="PNG", help="also draw the suggested images on one sheet")
    add_reading(parser)
    add_threads(parser)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    set_threads(args)
    if not 1 <= args.number <= MOST_IMAGES:
        args.parser.error(f"--number must be between 1 and {MOST_IMAGES:,}, not {args.number}")
    refuse_inside(args.out, args.images)
    refuse_existing(args.out, "file")
    folder = ModelFolder.open(args.model)
    refuse_among_classes(args.out, folder.model.gallery)
    items, rows, hashes = read(folder.model, args)
    suggestions = suggest(folder.model, rows, number=args.number, hashes=hashes) if items else []
    needs = class_needs(folder.model)
    if args.out and suggestions:
        texts = [[(items[each.row], doubt(each)) for each in suggestions]]
        contact_sheet(texts, args.out, first="")
    drawn = str(args.out) if args.out and suggestions else None
    if args.json:
        print_json(
            {
                "model": str(args.model),
                "images": len(items),
                "suggestions": [each.as_dict(items) for each in suggestions],
                "classes": [each.as_dict() for each in needs],
                "picture": drawn,
            }
        )
        return 0
    print("\n".join([*suggestion_lines(suggestions, items), *need_lines(needs)]))
    if drawn:
        print(f"drawn: {drawn}")
    if suggestions and folder.origin:
        print(f"next: metarep pull {typed(folder.origin)} --out MODEL")
    elif suggestions:
        print(f"next: metarep add {typed(folder.path)} {typed(items[suggestions[0].row])} --to CLASS")
    return 0


def read(model: Model, args: argparse.Namespace) -> tuple[list[str], torch.Tensor, torch.Tensor]:
    """The names, prepared rows and picture hashes of the images that can be read, each image once."""
    paths = list(dict.fromkeys(find_images(args.images)))
    left_out = LeftOut()
    depth = notice_depth(paths, model.depth | Depth.of(args.depth))
    rest = (paths[row] for row in left_out.others())
    items, rows, hashes = [], [], []
    with counter(len(paths), "image", quiet=len(paths) <= BATCH) as advance:
        for pixels, some in model.read(paths, batch=BATCH, depth=depth, left_out=left_out if args.skip_bad else None):
            items += [str(path) for path in islice(rest, len(some))]
            rows.append(some)
            hashes.append(picture_hash(pixels))
            advance(len(some))
    left_out.tell(len(paths))
    none = torch.zeros(0, 0)
    return items, torch.cat(rows) if rows else none, torch.cat(hashes) if hashes else none


def suggestion_lines(suggestions: list[Suggestion], items: list[str]) -> list[str]:
    """One line for each suggested image, the most useful first."""
    if not suggestions:
        what = "every image is a near copy of one that the model has" if items else "no image can be read"
        return [f"nothing to label: {what}"]
    lines = [f"label these {counted(len(suggestions), 'image')} of {len(items):,} next:"]
    for each in suggestions:
        copies = counted(len(each.copies), "near copy", "near copies")
        lines.append(f"  {items[each.row]}: {doubt(each)}" + (f"  ({copies} of it)" if each.copies else ""))
    return lines


def doubt(each: Suggestion) -> str:
    """What the model takes an image for, in a few words."""
    if not each.known:
        return f"none of these? (nearest: {each.label})"
    return f"{each.label} or {each.second}?" if each.second and each.margin < 0.9 else f"{each.label}?"


def need_lines(needs: list[ClassNeed]) -> list[str]:
    """One line for each class that needs more images, the neediest first."""
    wanting = [each for each in needs if each.why]
    lines = [f"needs more images: {need_text(each)}" for each in wanting[:MOST]]
    more = len(wanting) - MOST
    return lines + ([f"  and {more} more {plural(more, 'class')}: --json lists them"] if more > 0 else [])


def need_text(need: ClassNeed) -> str:
    """The name of a class and why it needs more images."""
    if need.why == "single":
        return f"{need.label}, with {counted(need.images, 'image')} and none to test with"
    if need.why == "few":
        return f"{need.label}, which has {counted(need.images, 'image')} only"
    others = ", ".join(list(need.taken_for)[:MOST])
    return f"{need.label}, {need.accuracy:.0f} % right when left out" + (f", taken for {others}" if others else "")
