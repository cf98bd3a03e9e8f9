"""Scan a folder of images: find its classes, their files, and the split of each class."""

import hashlib
import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from metarep.data.class_names import BadNameError, clean_name, look_alike_lines, look_alikes, plain
from metarep.data.reading.decode import EXTENSIONS
from metarep.data.reading.file_list import FileList
from metarep.data.reading.folder_layout import Layout, find_layout
from metarep.data.reading.folder_walk import (
    identity,
    image_files,
    is_broken,
    is_hidden,
    is_image,
    leads_nowhere,
    missing,
    passed_over,
    shown,
    unreadable_folder,
    walk,
)
from metarep.errors import DataError, counted

__all__ = [
    "OUTSIDE",
    "FolderClass",
    "FolderTree",
    "FolderWarning",
    "image_files",
    "scan",
    "shown",
    "split_by_class",
    "warn_of_notes",
]
SEED = 0
OUTSIDE = "(outside any class)"  # a key of ``FolderTree.ignored``, besides extensions
MOST = 3  # broken links, or folders of metarep, that a message names


class FolderWarning(UserWarning):
    """Tells how a folder was read: where its classes are, which folders are one class, which names look the same."""


@dataclass(frozen=True)
class FolderClass:
    """One class of a folder.

    Args:
        name: the name of the class.
        split: ``train``, ``val`` or ``test``.
        files: its images, as paths relative to the root, sorted.
        homes: the folders of the class, relative to the root; none in a list of images.
    """

    name: str
    split: str
    files: FileList
    homes: tuple[Path, ...] = ()


@dataclass(frozen=True)
class FolderTree:
    """The classes of a folder.

    Args:
        root: the folder that holds the class or split folders.
        classes: the classes, sorted by split, then by name.
        ignored: the number of files that are not read, by extension.
        own_splits: whether the folder has split folders, so that metarep does not split its classes.
        held_out: split folders with the same classes as the training split. They are kept for testing.
        notes: lines for the user on how the folder was read.
        groups: the group of each image of a list that gives it one, by its path as in :attr:`pairs`.
    """

    root: Path
    classes: tuple[FolderClass, ...]
    ignored: dict[str, int]
    own_splits: bool
    held_out: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()
    groups: Mapping[Path, str] = field(default_factory=dict)

    @property
    def pairs(self) -> list[tuple[Path, str]]:
        """The path of each image and the name of its class, class by class."""
        return [(self.root / file, entry.name) for entry in self.classes for file in entry.files]


def scan(argument: str, *, teach: bool = False, deep: bool = True) -> FolderTree:
    """Find the classes of ``root/<class>/…`` or ``root/{train,val,test}/<class>/…``.

    Everything below a class folder belongs to the class, at any depth. Hidden files and files without the extension
    of an image are not read. Without split folders, classes are split by :func:`split_by_class`. The names of classes
    are normalised by :func:`metarep.data.class_names.clean_name`, and folders whose names are equal then are one class.

    Args:
        argument: the folder.
        teach, deep: see :func:`metarep.data.reading.folder_layout.find_layout`.

    Raises:
        DataError: the folder does not exist or has no classes, a class is empty, its name is not allowed, or it is in
            two splits or inside another class.
    """
    root = Path(argument).expanduser()
    if not argument:
        raise DataError("folder needs a path: write folder:PATH, with one folder of images for each class in PATH")
    if not root.is_dir():
        want = "give the folder that holds one folder of images for each class"
        if root.is_file():
            unpack = "unpack it and " if root.suffix.lower() in (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar") else ""
            raise DataError(f"{argument!r} is a file, not a folder; {unpack}{want}")
        raise DataError(f"{missing('folder', Path(argument)).message}; {want}")
    try:
        return _tree(find_layout(root, argument, teach=teach, deep=deep))
    except OSError as error:
        raise unreadable_folder(error) from error


def warn_of_notes(tree: FolderTree) -> None:
    """Give a ``FolderWarning`` for each note of the folder."""
    for note in tree.notes:
        warnings.warn(note, FolderWarning, stacklevel=3)


def split_by_class(names: list[str]) -> dict[str, str]:
    """Split classes at random: 64 % train, 16 % val, 20 % test, and at least one class each.

    Classes are sorted by a seeded digest of their names, which is the same on every machine. A class that is added
    later moves few others to another split. Fewer than three classes cannot be split. Then all of them are for testing
    an encoder that was trained on other data.

    Returns:
        The split of each class.

    >>> from collections import Counter
    >>> Counter(split_by_class([str(i) for i in range(100)]).values())
    Counter({'train': 64, 'test': 20, 'val': 16})
    """
    if len(names) < 3:
        return dict.fromkeys(names, "test")
    order = sorted(names, key=lambda name: hashlib.sha256(f"{SEED}/{name}".encode()).digest())
    test, val = max(1, round(0.2 * len(names))), max(1, round(0.16 * len(names)))
    return {name: "test" if i < test else "val" if i < test + val else "train" for i, name in enumerate(order)}


def _tree(layout: Layout) -> FolderTree:
    """List the classes and files of a folder whose class folders are known."""
    root = layout.root
    homes = [(home, split, _name(home)) for home, split in layout.homes]
    _refuse_overlaps(root, homes)
    ignored: Counter[str] = Counter({OUTSIDE: layout.loose} if layout.loose else {})
    drawn = split_by_class(list(dict.fromkeys(name for _, _, name in homes)))
    folders: dict[tuple[str, str], list[Path]] = defaultdict(list)  # of each split and class
    for home, split, name in homes:
        folders[split or drawn[name], name].append(home)
    broken, made = list[Path](), [*layout.made]
    files = {
        key: FileList.join(_files(home, root, ignored, broken, made) for home in own) for key, own in folders.items()
    }
    rank = ("train", "val", "test")
    order = sorted(folders, key=lambda key: (rank.index(key[0]), key[1]))
    notes = [
        f"{' and '.join(ascii(shown(home, root)) for home in own)} are one class, {name!r}, spelled in two ways"
        for (_, name), own in folders.items()
        if len(own) > 1
    ]
    notes += [f"passed over: {leads_nowhere(link)}" for link in broken[:MOST]]
    if len(broken) > MOST:
        notes.append(f"passed over: {counted(len(broken) - MOST, 'more broken link')}")
    notes += [passed_over(path, root) for path in made[:MOST]]
    if len(made) > MOST:
        notes.append(f"passed over: {counted(len(made) - MOST, 'more folder')} that metarep made")
    notes += look_alike_lines(look_alikes(sorted(name for _, name in folders)))
    homes_of = {key: tuple(home.relative_to(root) for home in own) for key, own in folders.items()}
    classes = tuple(FolderClass(key[1], key[0], files[key], homes_of[key]) for key in order)
    return FolderTree(root, classes, dict(ignored), layout.own_splits, layout.held_out, (*layout.notes, *notes))


def _name(home: Path) -> str:
    """The name of the class of a class folder."""
    try:
        return clean_name(shown(home.name))
    except BadNameError as error:
        raise DataError(f"folder {shown(home.parent)!r}: {error}") from error


def _refuse_overlaps(root: Path, homes: list[tuple[Path, str, str]]) -> None:
    """Refuse a class that is in two splits, inside another class, or reached by a link from another class.

    In each of these cases, images of one class would be in two classes or two splits, which is leakage.
    """
    first: dict[str, tuple[Path, str]] = {}
    for home, split, name in homes:
        other, other_split = first.setdefault(plain(name), (home, split))
        if split != other_split:
            raise DataError(
                f"class {name!r} is in two splits, {shown(other, root)!r} and {shown(home, root)!r}: what was trained "
                f"on must not be tested on. Give one part alone, as in {shown(home.parent)}, whose classes are then "
                "split, or keep each class in one split"
            )
    tops = {home for home, _, _ in homes}
    by_identity: dict[tuple[int, int], Path] = {identity(root): root}
    for home in sorted(tops):
        if (other := by_identity.setdefault(identity(home), home)) != home:
            raise DataError(f"{shown(other)!r} and {shown(home)!r} are one folder, reached by a link; remove the link")
    for home, _, _ in homes:
        for folder, _ in walk(home):
            if folder == home:
                continue
            if (other := by_identity.get(identity(folder), home)) != home:
                raise DataError(
                    f"class {shown(home, root)!r} holds {shown(folder)!r}, a link to {shown(other)!r}, so it would "
                    "have the images of another class; remove the link"
                )
            namesake, _ = first.get(plain(shown(folder.name)), (home, ""))
            if namesake != home:
                where = f"{shown(namesake, root)!r} and inside another class, {shown(folder, root)!r}"
                raise DataError(f"class {shown(folder.name)!r} is there twice, {where}; merge the two or rename one")


def _files(home: Path, root: Path, ignored: Counter[str], broken: list[Path], made: list[Path]) -> FileList:
    """The images of a class folder, as sorted paths relative to the root.

    Args:
        home: the class folder.
        root: the folder that holds the classes.
        ignored: counts files by extension; the files here that are not images are added.
        broken: collects broken links; those here are added.
        made: collects folders that metarep made; those here are added.

    Raises:
        DataError: the folder has no images.
    """
    images, others = [], Counter()
    for folder, names in walk(home, made):
        for name in names:
            if is_image(folder / name):
                images.append((folder / name).relative_to(root))
            elif is_broken(folder / name):
                broken.append(folder / name)
            elif not is_hidden(name):
                others[Path(name).suffix.lower() or "(no extension)"] += 1
    if not images:
        has = f"; it holds {', '.join(sorted(others)[:5])}" if others else ""
        kinds = ", ".join(sorted(EXTENSIONS))
        raise DataError(f"class {shown(home, root)!r} has no images{has}; add some ({kinds}) or remove the folder")
    ignored.update(others)
    return FileList(sorted(images, key=lambda path: path.parts))
