"""How a folder that people bring is laid out: where its class folders are, whatever level was given."""

import os
import re
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from metarep.class_names import plain
from metarep.datasets.folder_walk import (
    holds_images,
    is_broken,
    is_image,
    leads_nowhere,
    loose_images,
    shown,
    subfolders,
)
from metarep.errors import DataError
from metarep.wording import counted

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
A_FILE = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,4}$")  # the end of a name that is hardly a folder's
NAMED = 3  # folders that are named in a message


@dataclass(frozen=True)
class Layout:
    """Where the classes of a folder are.

    Args:
        root: the folder that holds them, or split folders of them.
        homes: class folders, each with its split; "" where there are no split folders.
        loose: images that lie in no class folder.
        held_out: split folders with the same classes, which are for testing.
        notes: what a person should know.
    """

    root: Path
    homes: tuple[tuple[Path, str], ...]
    loose: int
    held_out: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def own_splits(self) -> bool:
        return any(split for _, split in self.homes)


def find_layout(root: Path, argument: str, *, teach: bool = False, deep: bool = True) -> Layout:
    """Where the classes of ``root/<class>/…`` or ``root/{train,val,test}/<class>/…`` are.

    Folders called like splits are splits if they hold folders and no images, and classes otherwise. A folder in which
    a single other one holds all class folders, as archives often unpack, is looked through.

    Args:
        root: the folder.
        argument: what it was called, for messages.
        teach: where ``train`` and other splits have the same classes, take ``train`` and hold the others out.
        deep: look through a folder that holds all others.

    Raises:
        DataError: no class folders; class folders beside split folders; a class folder that is a link to nowhere.
    """
    notes: list[str] = []
    place = _inner(root) if deep else root
    if place != root:
        notes.append(f"{argument} holds one folder with all classes in it; they are taken from {shown(place)}")
    tops = _class_folders(place)
    splits = [top for top in tops if plain(top.name) in SPLITS]
    real = list(filter(is_split, splits))
    if not real and len(splits) == len(tops) and any(map(loose_images, splits)):
        raise _unsorted(argument, place, splits)
    if real and len(splits) < len(tops):
        raise _mixed(argument, place, real[0], next(top for top in tops if top not in splits))
    parts = splits if real else []
    loose = sum(map(loose_images, (place, *parts)))
    homes = [(home, SPLITS[plain(top.name)]) for top in parts for home in _class_folders(top)]
    if not parts:
        homes = [(home, "") for home in tops]
        notes += _too_high(homes, argument)
    if not homes:
        raise _no_classes(argument, root, loose)
    held_out: tuple[Path, ...] = ()
    if teach and _torn(homes):
        others = [top for top in parts if SPLITS[plain(top.name)] != "train" and subfolders(top)]
        held_out = tuple(sorted(others, key=lambda top: SPLITS[plain(top.name)]))  # test before val
        homes = [(home, split) for home, split in homes if split == "train"]
        taught, left = (
            " and ".join(shown(top) for top in parts if (top in held_out) == held) for held in (False, True)
        )
        notes.append(f"learned is what {taught} holds; {left}, with the same classes, is left for testing")
    return Layout(place, tuple(homes), loose, held_out, tuple(notes))


def is_split(place: Path) -> bool:
    """Whether a folder is a split by its name, and holds folders and no images."""
    return plain(place.name) in SPLITS and not loose_images(place) and len(subfolders(place)) > 0


def _inner(place: Path) -> Path:
    """The folder that holds the classes: of folders with images there is one, and in it several more."""
    while not loose_images(place):
        full = _full(place)
        if len(full) != 1 or plain(full[0].name) in SPLITS or loose_images(full[0]):
            break
        inside = _full(full[0])
        if len(inside) < 2 and not any(plain(sub.name) in SPLITS for sub in inside) and _inner(full[0]) == full[0]:
            break
        place = full[0]
    return place


def _full(place: Path) -> list[Path]:
    """The first two folders in a folder that hold images."""
    return list(islice(filter(holds_images, subfolders(place)), 2))


def _class_folders(place: Path) -> list[Path]:
    for entry in sorted(place.iterdir()):
        if is_broken(entry) and not is_image(entry) and not A_FILE.search(entry.name):
            raise DataError(f"class {leads_nowhere(entry)}; mend the link or remove it")
    return subfolders(place)


def _torn(homes: list[tuple[Path, str]]) -> bool:
    """Whether a class of ``train`` stands in another split too."""
    trained = {plain(home.name) for home, split in homes if split == "train"}
    return any(split != "train" and plain(home.name) in trained for home, split in homes)


def _too_high(homes: list[tuple[Path, str]], argument: str) -> list[str]:
    """A note where every class holds folders alone, which may be the classes that were meant."""
    if len(homes) < 2 or any(loose_images(home) or len(subfolders(home)) < 2 for home, _ in homes):
        return []
    first, names = homes[0][0], [sub.name for sub in subfolders(homes[0][0])]
    return [
        f"{argument} has {counted(len(homes), 'class')} that hold folders and no images themselves, such as "
        f"{shown(first.name)!r} ({_some(names)}); all that lies below one is one class. If the folders inside are the "
        f"classes, give {shown(first)} instead"
    ]


def _unsorted(argument: str, place: Path, splits: list[Path]) -> DataError:
    return DataError(
        f"{argument} has no classes: {_some([top.name for top in splits])} hold images and no class folders; put the "
        f"images of each class in a folder named after it, as in {shown(splits[0])}/CLASS, or, if these are the "
        f"classes, call them otherwise, as in {shown(place / (splits[0].name + '-class'))}"
    )


def _mixed(argument: str, place: Path, split: Path, other: Path) -> DataError:
    return DataError(
        f"{argument} holds the split {split.name!r} next to the class {shown(other.name)!r}; keep either split "
        f"folders or class folders there, not both. If {split.name!r} holds the classes, give {shown(split)}; if it "
        f"is a class, call it otherwise, as in {shown(place / (split.name + '-class'))}"
    )


def _no_classes(argument: str, root: Path, loose: int) -> DataError:
    if not loose:
        found = "it holds no class folders"
    else:
        found = f"its {counted(loose, 'image')} {'stands' if loose == 1 else 'stand'} in no class"
    if loose and _has_siblings(root):
        above = os.path.normpath(os.path.join(argument, os.pardir))
        return DataError(f"{argument} has no classes: {found}. It seems to be a class itself: give {above}, above it")
    return DataError(f"{argument} has no classes: {found}; put the images of each class in a folder named after it")


def _has_siblings(root: Path) -> bool:
    """Whether folders of images lie beside this one."""
    here = root.resolve()
    try:
        return any(other != here and loose_images(other) for other in subfolders(here.parent))
    except OSError:
        return False


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(shown(name) for name in names[:NAMED]) + more
