"""The command ``metarep predict MODEL FOLDER --labelled``: measure a model on a folder of labelled images."""

import argparse
import os
import warnings
from pathlib import Path
from typing import Any

from metarep.cli.among import refuse_among_classes
from metarep.cli.fit import tell_ignored
from metarep.cli.options import print_json, refuse_existing, refuse_inside
from metarep.cli.progress import counter
from metarep.data.class_names import look_alikes
from metarep.data.reading.depth import Depth
from metarep.data.reading.folder_tree import FolderTree, FolderWarning
from metarep.data.reading.folder_walk import has_loose_images, holds_images, is_image, shown, subfolders
from metarep.data.reading.labelled_list import find_classes, is_list
from metarep.data.reading.photographs import notice_depth
from metarep.errors import DataError, MetarepError, counted
from metarep.model.folder import ModelFolder
from metarep.model.gallery import Gallery
from metarep.model.labelled import Judged, Verdict, judge, share, taken_for

PICTURE = "labelled.png"
BATCH = 64
MOST = 5  # names in a line


def run(folder: ModelFolder, args: argparse.Namespace) -> int:
    path = _one_folder(args.images)
    refuse_inside(args.out, [path])
    refuse_existing(args.out, "file")
    refuse_among_classes(args.out, folder.model.gallery)
    _refuse_unlabelled(path, folder.model.gallery)
    tree = find_classes(path)
    if tree.held_out:
        raise DataError(f"{path} holds parts of the same classes; give one of them, as in {tree.held_out[0]}")
    tell_ignored(tree)
    files = tree.pairs
    _tell_alike(folder, tree)
    depth = notice_depth([file for file, _ in files], folder.model.depth | Depth.of(args.depth))
    with counter(len(files), "image", quiet=len(files) <= BATCH) as advance:
        verdict = judge(folder, files, batch=BATCH, depth=depth, skip_bad=args.skip_bad, on_progress=advance)
    picture = _draw(verdict, args.out or (Path() if folder.origin else folder.path) / PICTURE)
    if args.json:
        print_json({"model": str(args.model), "folder": path, "picture": picture, **verdict.as_dict()})
    else:
        print("\n".join(_lines(verdict, picture)))
    return 0


def _one_folder(given: list[str]) -> str:
    above = {os.path.dirname(os.path.normpath(name)) or "." for name in given}
    if len(given) > 1:
        instead = f": give {above.pop()}" if len(above) == 1 else ""
        raise MetarepError(f"--labelled takes one folder that holds a folder of images for each class{instead}")
    return given[0]


def _refuse_unlabelled(given: str, gallery: Gallery) -> None:
    """Raise for a single image, or a folder of images without class folders, unless the folder itself is a class."""
    path, what = Path(given), f"{given} is"
    if path.is_dir():
        what = f"the images in {given} are"
        alone = has_loose_images(path) and not any(map(holds_images, subfolders(path)))
        if not alone or gallery.has(shown(os.path.basename(os.path.abspath(given)))):
            return
    elif is_list(path) or not is_image(path) or not path.exists():
        return
    raise DataError(
        f"nothing says of which class {what}, so there is no right answer to compare with",
        advice=[
            "leave --labelled out to classify",
            "give a folder that holds a folder of images for each class",
            "give a list: path,label",
        ],
    )


def _tell_alike(folder: ModelFolder, tree: FolderTree) -> None:
    """Warn of a folder whose name only looks like that of a class, so that its images count as strangers."""
    names = folder.model.gallery.names
    new = [entry.name for entry in tree.classes if folder.model.gallery.called(entry.name) not in names]
    for one, other in look_alikes((*names, *new), new):
        if one in names:
            text = f"{other!a} is taken for a class that the model does not know; it looks like {one!a}: if it is that "
            warnings.warn(text + "class, call the folder so", FolderWarning, stacklevel=2)


def _draw(verdict: Verdict, path: Path) -> str | None:
    """Draw the confusion matrix as a PNG. Return its path; warn and return None if it cannot be written."""
    from metarep.data.drawing.confusion_picture import draw_counts

    known, title = len(verdict.judged), f"{counted(len(verdict.strangers), 'image')} of strangers"
    if known:
        right = 100 * sum(each.right for each in verdict.judged) / known
        title = f"{counted(known, 'labelled image')}: the likeliest class is right for {right:.1f} %"
    counts, names = verdict.confusion()
    try:
        draw_counts(counts, names, path, title=title)
    except OSError as error:
        warnings.warn(
            f"{path} cannot be written ({error.strerror}); --out says where else", FolderWarning, stacklevel=2
        )
        return None
    return str(path)


def _lines(verdict: Verdict, picture: str | None) -> list[str]:
    facts, lines = verdict.as_dict(), []
    accuracy, none, strange = facts["accuracy"], facts["none_of_these"], facts["strangers"]
    if accuracy["of"]:
        tested = f"{counted(accuracy['of'], 'image')} of {counted(len(facts['classes']), 'class')}"
        lines += [f"accuracy {_percent(accuracy)}: {accuracy['count']} of {tested}"]
        lines += [f"called none of these, wrongly: {none['count']} of {none['of']}, {_percent(none)}"]
    else:
        lines += ["accuracy: unknown; no folder is called as a class of the model is"]
    if strange["found"]["of"]:
        detected, classes = strange["found"], strange["classes"]
        what = f"{counted(detected['of'], 'image')} of {counted(len(classes), 'class')}"
        lines += [f"strangers: {what} that the model does not know ({_some(list(classes))})"]
        lines += [f"found to be none of these: {detected['count']} of {detected['of']}, {_percent(detected)}"]
    if verdict.untested:
        lines += [f"not tested: {counted(len(verdict.untested), 'class')} ({_some(list(verdict.untested))})"]
    if verdict.repeated:
        lines += [f"left out: {counted(len(verdict.repeated), 'picture')} that the model has learned"]
    lines += _table(verdict)
    return lines + ([f"what is taken for what: {picture}"] if picture else [])


def _table(verdict: Verdict) -> list[str]:
    """One line for each class, the least accurate class first."""
    order = sorted(verdict.classes.items(), key=lambda pair: (_right(pair[1]) / len(pair[1]), pair[0]))
    rows = [
        (name, f"{_right(own)} of {len(own)} right", _percent(share(_right(own), len(own))), _others(own))
        for name, own in order
    ]
    for name, own in verdict.strange_classes.items():
        taken = [each for each in own if each.answer.known]
        rows.append((f"{name} (a stranger)", f"{len(own) - len(taken)} of {len(own)} found", "", _taken(taken)))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)).rstrip() for row in rows
    ]


def _right(own: list[Judged]) -> int:
    return sum(each.right for each in own)


def _others(own: list[Judged]) -> str:
    """The wrong classes that images of a class got, and how many images were called none of the classes."""
    none = sum(not each.answer.known for each in own)
    return "; ".join(filter(None, (_taken(own), f"{none} called none of these" if none else "")))


def _taken(own: list[Judged]) -> str:
    said = [f"{name} {count}" for name, count in taken_for(own).items()]
    return f"taken for {_some(said)}" if said else ""


def _percent(part: dict[str, Any]) -> str:
    low, high = part["interval"]
    return f"{part['percent']:.1f} % ({low:.1f} to {high:.1f})"


def _some(names: list[str]) -> str:
    return ", ".join(names[:MOST]) + (f" and {len(names) - MOST} more" if len(names) > MOST else "")
