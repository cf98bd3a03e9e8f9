"""metarep add MODEL CLASS/, or IMAGE --to CLASS."""

import argparse
import os
import shlex
from pathlib import Path

from metarep.cli.fit import draw_confusion, tell_ignored
from metarep.cli.options import add_output, add_reading, add_threads, print_json, set_threads
from metarep.cli.parser import Parser
from metarep.cli.predict import find_images
from metarep.cli.trust_lines import copy_lines, trust_line
from metarep.data.class_names import warn_of_look_alikes
from metarep.data.reading.depth import Depth
from metarep.data.reading.folder_layout import is_split
from metarep.data.reading.folder_tree import scan
from metarep.data.reading.folder_walk import holds_images, loose_images, shown, subfolders
from metarep.data.reading.photographs import LeftOut, notice_depth
from metarep.errors import DataError, counted
from metarep.model.folder import ModelFolder
from metarep.model.gallery import Gallery
from metarep.model.summary import summary

USAGE = "MODEL CLASS/..."
EXAMPLE = """examples:
  metarep add moths photos/hawkmoth/            a new class, or more images of one, called after the folder
  metarep add moths new.jpg --to hawkmoth       single images
  metarep add moths more/                       more/<class>/<image>, some of the classes known already
"""


def add(parser: Parser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL", help="what metarep fit made")
    parser.add_argument("images", nargs="+", metavar="CLASS/", help="folders called after their class, or images")
    parser.add_argument("--to", metavar="CLASS", help="the class of these images (default: the name of their folder)")
    add_reading(parser)
    add_threads(parser)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    set_threads(args)
    folder = ModelFolder.open(args.model)
    before = folder.model.gallery
    pairs = [pair for name in args.images for pair in labelled(name, before, args)]
    paths, labels = [path for path, _ in pairs], [label for _, label in pairs]
    depth = notice_depth(paths, folder.model.depth | Depth.of(args.depth))
    items = [str(path) for path in paths]
    left_out = LeftOut() if args.skip_bad else None
    added = len(folder.learn(paths, labels, items, once=True, depth=depth, left_out=left_out))
    names = folder.model.gallery.names
    warn_of_look_alikes(names, set(names) - set(before.names))
    folder.settle()
    draw_confusion(folder)
    if args.json:
        print_json({"model": str(args.model), "added": added, **summary(folder.model)})
    else:
        model, there = folder.model, len(pairs) - len(left_out.errors if left_out else ()) - added
        known = f", {there} there already" if there else ""
        new = ", ".join(name for name in names if name not in before.names)
        print(f"added {counted(added, 'image')}{known}; now {model.gallery.in_words}")
        if new:
            print(f"new: {new}")
        print("\n".join([trust_line(model), *copy_lines(model)]))
    return 0


def labelled(name: str, gallery: Gallery, args: argparse.Namespace) -> list[tuple[Path, str]]:
    """The images of an argument, each with its class: all of a class, or of a folder that holds classes.

    Raises:
        DataError: no images, or a folder that may be either.
    """
    place = Path(name)
    if args.to is not None:
        return [(path, args.to) for path in find_images([name])]
    if place.exists() and not place.is_dir():
        args.parser.error(f"{name} is a single image: say of what class it is with --to CLASS")
    label = shown(os.path.basename(os.path.abspath(name)))
    if place.is_dir() and holds_classes(place, label, gallery):
        tree = scan(name, teach=True, deep=False)
        tell_ignored(tree)
        return [(tree.root / file, entry.name) for entry in tree.classes for file in entry.files]
    return [(path, label) for path in find_images([name])]


def holds_classes(place: Path, label: str, gallery: Gallery) -> bool:
    """Whether the folders in a folder are classes, rather than parts of one class that is called as the folder is.

    They are if one of them is called as a class that the model has. They are not if the folder itself is, or if it has
    images of its own.

    Raises:
        DataError: neither, or both.
    """
    inside = [sub for sub in subfolders(place) if holds_images(sub)]
    if not inside:
        return False
    if any(map(is_split, inside)):
        return True
    met = any(gallery.has(shown(sub.name)) for sub in inside)
    own = gallery.has(label) or (not met and loose_images(place) > 0)
    if met == own:
        here = shlex.quote(shown(place))
        some = ", ".join(shown(sub.name) for sub in inside[:3]) + ", ..." * (len(inside) > 3)
        raise DataError(
            f"{shown(place)} may be one class, or hold a class in each folder ({some}): give {here}/*/ for a "
            f"class each, or {here} --to {shlex.quote(label)} for one class"
        )
    return met
