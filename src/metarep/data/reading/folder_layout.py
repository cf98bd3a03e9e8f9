"""Layout of a user's folder: find its class folders, also where a folder above or beside them was given."""

import os
import re
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from metarep.data.class_names import plain
from metarep.data.reading.folder_walk import (
    has_loose_images,
    holds_images,
    is_broken,
    is_image,
    leads_nowhere,
    loose_images,
    shown,
    subfolders,
)
from metarep.errors import DataError, counted

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
A_FILE = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,4}$")  # the extension of a file; names of folders hardly have one
NAMED = 3  # folders that a message names
INNER = "with images in inner folders only"  # in the note on classes that may not be what is meant


@dataclass(frozen=True)
class Layout:
    """The class folders of a folder.

    Args:
        root: the folder that holds the class folders, or the split folders.
        homes: the class folders, each with its split; the split is "" where there are no split folders.
        loose: the number of images outside class folders.
        held_out: split folders with the same classes as the training split. They are kept for testing.
        notes: lines for the user on how the folder was read.
        made: folders beside the class folders that metarep made, such as a model. They are passed over.
    """

    root: Path
    homes: tuple[tuple[Path, str], ...]
    loose: int
    held_out: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()
    made: tuple[Path, ...] = ()

    @property
    def own_splits(self) -> bool:
        """Whether the folder has split folders."""
        return any(split for _, split in self.homes)


def find_layout(root: Path, argument: str, *, teach: bool = False, deep: bool = True) -> Layout:
    """Find the class folders of ``root/<class>/…`` or ``root/{train,val,test}/<class>/…``.

    A folder that is named like a split is a split if it holds folders and no images. Otherwise it is a class. Archives
    often unpack to a folder whose only folder holds all class folders. Then the classes are taken from that inner one.

    Args:
        root: the folder.
        argument: the folder as the user wrote it, for messages.
        teach: if ``train`` and other splits have the same classes, take ``train`` and keep the others for testing.
        deep: look for the classes in an only inner folder too.

    Raises:
        DataError: there are no class folders, class folders are next to split folders, or a class folder is a broken
            link.
    """
    notes, made = list[str](), list[Path]()
    home_root = _inner(root) if deep else root
    if home_root != root:
        notes.append(f"{argument} holds one folder with all classes in it; they are taken from {shown(home_root)}")
    tops = _class_folders(home_root, made)
    splits = [top for top in tops if plain(top.name) in SPLITS]
    real = list(filter(is_split, splits))
    if not real and len(splits) == len(tops) and any(map(loose_images, splits)):
        raise _unsorted(argument, home_root, splits)
    if real and len(splits) < len(tops):
        raise _mixed(argument, home_root, real[0], next(top for top in tops if top not in splits))
    parts = splits if real else []
    loose = sum(map(loose_images, (home_root, *parts)))
    homes = [(home, SPLITS[plain(top.name)]) for top in parts for home in _class_folders(top, made)]
    if not parts:
        homes = [(home, "") for home in tops]
    if not homes:
        raise _no_classes(argument, root, loose)
    notes += _note_inner_folders(homes, argument)
    held_out: tuple[Path, ...] = ()
    if teach and _share_classes(homes):
        others = [top for top in parts if SPLITS[plain(top.name)] != "train" and subfolders(top)]
        held_out = tuple(sorted(others, key=lambda top: SPLITS[plain(top.name)]))  # test before val
        homes = [(home, split) for home, split in homes if split == "train"]
        taught, tested = (
            " and ".join(shown(top) for top in parts if (top in held_out) == held) for held in (False, True)
        )
        notes.append(f"the model learns what {taught} holds; {tested} has the same classes and is left for testing")
    return Layout(home_root, tuple(homes), loose, held_out, tuple(notes), tuple(made))


def is_split(folder: Path) -> bool:
    """Whether a folder is a split: it has the name of one, and it holds folders and no images."""
    return plain(folder.name) in SPLITS and not loose_images(folder) and len(subfolders(folder)) > 0


def _inner(folder: Path) -> Path:
    """Descend to the folder with the classes: into the only subfolder with images, while it has several inside."""
    while not loose_images(folder):
        full = _with_images(folder)
        if len(full) != 1 or plain(full[0].name) in SPLITS or loose_images(full[0]):
            break
        inside = _with_images(full[0])
        if len(inside) < 2 and not any(plain(sub.name) in SPLITS for sub in inside) and _inner(full[0]) == full[0]:
            break
        folder = full[0]
    return folder


def _with_images(folder: Path) -> list[Path]:
    """The first two subfolders that hold images."""
    return list(islice(filter(holds_images, subfolders(folder)), 2))


def _class_folders(folder: Path, made: list[Path]) -> list[Path]:
    """The subfolders of a folder; ``made`` collects those that metarep made, which are left out.

    Raises:
        DataError: a link that looks like a class folder is broken.
    """
    for entry in sorted(folder.iterdir()):
        if is_broken(entry) and not is_image(entry) and not A_FILE.search(entry.name):
            raise DataError(f"class {leads_nowhere(entry)}; mend the link or remove it")
    return subfolders(folder, made)


def _share_classes(homes: list[tuple[Path, str]]) -> bool:
    """Whether ``train`` shares a class with another split."""
    trained = {plain(home.name) for home, split in homes if split == "train"}
    return any(split != "train" and plain(home.name) in trained for home, split in homes)


def _note_inner_folders(homes: list[tuple[Path, str]], argument: str) -> list[str]:
    """A note on classes whose images are all in inner folders, because the user may mean these as the classes."""
    deep = [(home, lowest) for home, _ in homes if (lowest := _level_of_classes(home))]
    if len(homes) < 2 or not deep:
        return []
    home, lowest = deep[0]
    return [
        f"{argument} has {counted(len(deep), 'class')} {INNER}, such as "
        f"{shown(home.name)!r} ({_some([sub.name for sub in subfolders(lowest)])}); everything below one of them is "
        f"one class. If the inner folders are the classes, give {shown(lowest)} instead"
    ]


def _level_of_classes(folder: Path) -> Path | None:
    """The first folder, from this one down, that seems to hold a folder of images for each class; None if none does."""
    while not has_loose_images(folder):
        inside = _with_images(folder)
        if not inside:
            return None
        if any(map(is_split, inside)) or any(map(has_loose_images, inside)):
            return folder if len(inside) > 1 else None
        folder = inside[0]
    return None


def _unsorted(argument: str, folder: Path, splits: list[Path]) -> DataError:
    """The error for split folders that hold images and no class folders."""
    return DataError(
        f"{argument} has no classes: {_some([top.name for top in splits])} hold images and no class folders; put the "
        f"images of each class in a folder named after it, as in {shown(splits[0])}/CLASS, or, if these are the "
        f"classes, rename them, as in {shown(folder / (splits[0].name + '-class'))}"
    )


def _mixed(argument: str, folder: Path, split: Path, other: Path) -> DataError:
    """The error for a split folder next to a class folder."""
    return DataError(
        f"{argument} holds the split {split.name!r} next to the class {shown(other.name)!r}; keep either split "
        f"folders or class folders in it, not both. If {split.name!r} holds the classes, give {shown(split)}; if it "
        f"is a class, rename it, as in {shown(folder / (split.name + '-class'))}"
    )


def _no_classes(argument: str, root: Path, loose: int) -> DataError:
    """The error for a folder without class folders. It names the folder above if that one seems to be meant."""
    if not loose:
        reason = "it holds no class folders"
    else:
        reason = f"its {counted(loose, 'image')} {'is' if loose == 1 else 'are'} not in a class folder"
    if loose and _has_siblings(root):
        above = os.path.normpath(os.path.join(argument, os.pardir))
        return DataError(f"{argument} has no classes: {reason}. It seems to be a class itself: give {above}, above it")
    return DataError(f"{argument} has no classes: {reason}; put the images of each class in a folder named after it")


def _has_siblings(root: Path) -> bool:
    """Whether another folder with images is in the same folder as this one."""
    folder = root.resolve()
    try:
        return any(other != folder and loose_images(other) for other in subfolders(folder.parent))
    except OSError:
        return False


def _some(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(shown(name) for name in names[:NAMED]) + more
