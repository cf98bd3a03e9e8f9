"""The command ``metarep add``: add images to a classifier, as folders of classes or as images with ``--to CLASS``."""

import argparse
import os
import shlex
from pathlib import Path

from metarep.cli.fit import draw_confusion, tell_ignored
from metarep.cli.images import find_images
from metarep.cli.options import add_grouping, add_output, add_reading, add_threads, print_json, set_threads
from metarep.cli.parser import Parser
from metarep.cli.trust_lines import copy_lines, trust_line
from metarep.data.class_names import warn_of_look_alikes
from metarep.data.reading.depth import Depth
from metarep.data.reading.folder_groups import subfolder_groups, within
from metarep.data.reading.folder_layout import is_split
from metarep.data.reading.folder_tree import scan
from metarep.data.reading.folder_walk import holds_images, loose_images, shown, subfolders
from metarep.data.reading.labelled_list import is_list, read_list
from metarep.data.reading.labelled_zip import is_labelled_zip, read_labelled_zip
from metarep.data.reading.photographs import LeftOut, notice_depth
from metarep.errors import DataError, counted
from metarep.model.any_folder import open_folder
from metarep.model.gallery import Gallery
from metarep.model.multi_label.folder import MultiLabelFolder
from metarep.model.summary import summary

USAGE = "MODEL CLASS/..."
EXAMPLE = """examples:
  metarep add moths photos/hawkmoth/
      a new class, or more images of a known one
  metarep add moths new.jpg --to hawkmoth
      single images
  metarep add moths more/
      more/<class>/<image>; known classes get the images
  metarep add moths labels.csv
      path,label in each line
  metarep add moths moths-added.zip
      what a page of metarep export --web has saved
  metarep add scenes more.csv
      path,label|label, for a model of fit --multi-label
"""


def add(parser: Parser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL", help="a model folder that metarep fit made")
    parser.add_argument(
        "images",
        nargs="+",
        metavar="CLASS/",
        help="folders named after their class, images, lists, or what a page of export --web saved",
    )
    parser.add_argument(
        "--to",
        metavar="CLASS",
        help="the class of these images (default: the name of their folder); for several labels an image, LABEL|LABEL",
    )
    add_grouping(parser)
    add_reading(parser)
    add_threads(parser)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    set_threads(args)
    folder = open_folder(args.model)
    if isinstance(folder, MultiLabelFolder):
        from metarep.cli.multi_label_change import add_to

        return add_to(folder, args)
    before = folder.model.gallery
    given = [each for name in args.images for each in sources(name, before, args)]
    images, labels = [each[0] for each in given], [each[1] for each in given]
    items, groups = [each[2] for each in given], [each[3] for each in given]
    depth = notice_depth(images, folder.model.depth | Depth.of(args.depth))
    left_out = LeftOut() if args.skip_bad else None
    added = len(folder.learn(images, labels, items, once=True, depth=depth, left_out=left_out, groups=groups))
    names = folder.model.gallery.names
    warn_of_look_alikes(names, set(names) - set(before.names))
    folder.calibrate()
    draw_confusion(folder)
    if args.json:
        print_json({"model": str(args.model), "added": added, **summary(folder.model)})
    else:
        model, already = folder.model, len(given) - len(left_out.errors if left_out else ()) - added
        known = f", {already} there already" if already else ""
        new = ", ".join(name for name in names if name not in before.names)
        print(f"added {counted(added, 'image')}{known}; now {model.gallery.in_words}")
        if new:
            print(f"new: {new}")
        print("\n".join([trust_line(model), *copy_lines(model)]))
    return 0


def sources(name: str, gallery: Gallery, args: argparse.Namespace) -> list[tuple[Path | bytes, str, str, str]]:
    """List the images of one argument: each as a path or as its bytes, its class, its name, and its group.

    Args:
        name, gallery, args: see :func:`labelled`; ``name`` may also be what a page has saved.

    Raises:
        DataError, MetarepError: as of :func:`labelled` and of
            :func:`metarep.data.reading.labelled_zip.read_labelled_zip`.
    """
    if is_labelled_zip(Path(name)):
        _refuse_to(name, args)
        return [(*each, "") for each in read_labelled_zip(Path(name))]
    return [(path, label, str(path), group) for path, label, group in labelled(name, gallery, args)]


def labelled(name: str, gallery: Gallery, args: argparse.Namespace) -> list[tuple[Path, str, str]]:
    """List the images of one argument, each with its class and its group.

    Args:
        name: an image, the folder of a class, a folder that holds class folders, or a list of labelled images.
        gallery: the images that the model has.
        args: ``to`` is the class of the images, if it is given.

    Raises:
        DataError: there are no images, or the folder may be one class or hold several.
        MetarepError: it is a single image, and its class is not given.
    """
    path = Path(name)
    if is_list(path):
        return _listed(name, args)
    if args.to is not None:
        return _of_class(name, args.to, args)
    if path.exists() and not path.is_dir():
        args.parser.error(f"{name} is a single image and its class is not given; give it with --to CLASS")
    label = shown(os.path.basename(os.path.abspath(name)))
    if path.is_dir() and holds_classes(path, label, gallery):
        tree = scan(name, teach=True, deep=False)
        tell_ignored(tree)
        groups = subfolder_groups(tree) if args.group_subfolders else {}
        return [(path, own, groups.get(path, "")) for path, own in tree.pairs]
    return _of_class(name, label, args)


def _of_class(name: str, label: str, args: argparse.Namespace) -> list[tuple[Path, str, str]]:
    """The images of one class: a file, or all below a folder."""
    home = [Path(name)] if args.group_subfolders and Path(name).is_dir() else []
    return [(image, label, within(image, home) if home else "") for image in find_images([name])]


def _listed(name: str, args: argparse.Namespace) -> list[tuple[Path, str, str]]:
    _refuse_to(name, args)
    tree = read_list(Path(name))
    tell_ignored(tree)
    return [(path, label, tree.groups.get(path, "")) for path, label in tree.pairs]


def _refuse_to(name: str, args: argparse.Namespace) -> None:
    if args.to is not None:
        args.parser.error(f"{name} is a list with the class of each image, so --to has nothing to say; leave it out")


def holds_classes(folder: Path, label: str, gallery: Gallery) -> bool:
    """Whether the subfolders of a folder are classes, and not parts of one class with the name of the folder.

    They are classes if one of them has the name of a class of the model. They are parts of one class if the folder
    itself has such a name, or if it holds images directly.

    Args:
        folder: the folder.
        label: the name of the class that the folder would be.
        gallery: the images that the model has.

    Raises:
        DataError: neither is the case, or both are.
    """
    inside = [sub for sub in subfolders(folder) if holds_images(sub)]
    if not inside:
        return False
    if any(map(is_split, inside)):
        return True
    known = any(gallery.has(shown(sub.name)) for sub in inside)
    own = gallery.has(label) or (not known and loose_images(folder) > 0)
    if known == own:
        here = shlex.quote(shown(folder))
        some = ", ".join(shown(sub.name) for sub in inside[:3]) + ", ..." * (len(inside) > 3)
        raise DataError(
            f"{shown(folder)} may be one class, or hold a class in each folder ({some}): give {here}/*/ for a "
            f"class each, or {here} --to {shlex.quote(label)} for one class"
        )
    return known
