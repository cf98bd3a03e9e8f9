"""What stands in a folder of images: its classes, their files, and which split each class belongs to."""

import hashlib
import warnings
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from metarep.class_names import BadNameError, clean_name, look_alike_lines, look_alikes, plain
from metarep.datasets.decode import EXTENSIONS
from metarep.datasets.folder_layout import Layout, find_layout
from metarep.datasets.folder_walk import (
    identity,
    image_files,
    is_broken,
    is_hidden,
    is_image,
    leads_nowhere,
    missing,
    shown,
    unreadable_folder,
    walk,
)
from metarep.errors import DataError

__all__ = [
    "OUTSIDE",
    "FolderClass",
    "FolderTree",
    "FolderWarning",
    "image_files",
    "scan",
    "shown",
    "split_by_class",
    "tell_notes",
]
SEED = 0
OUTSIDE = "(outside any class)"  # a kind of what is passed over, besides extensions
MOST = 3  # broken links that are named


class FolderWarning(UserWarning):
    """Where the classes of a folder were found, which folders are one class, and which names look the same."""


@dataclass(frozen=True)
class FolderClass:
    """One class: its name, its split, and its images as paths below the root, sorted."""

    name: str
    split: str
    files: tuple[Path, ...]


@dataclass(frozen=True)
class FolderTree:
    """The classes of a folder, ordered by split, then name, and what was passed over.

    ``held_out`` are split folders with the same classes, for testing; ``notes`` is what a person should know.
    """

    root: Path
    classes: tuple[FolderClass, ...]
    ignored: dict[str, int]  # extension -> number of files
    own_splits: bool
    held_out: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()


def scan(argument: str, *, teach: bool = False, deep: bool = True) -> FolderTree:
    """Find the classes of ``root/<class>/…`` or ``root/{train,val,test}/<class>/…``.

    Everything below a class folder belongs to the class, however deep. Hidden files and files whose extension is not
    an image's are passed over. Without split folders, classes are split by ``split_by_class``. Classes are called as
    :func:`metarep.class_names.clean_name` says; folders with the same name then are one class.

    Args:
        argument: the folder.
        teach, deep: see :func:`metarep.datasets.folder_layout.find_layout`.

    Raises:
        DataError: no such folder, no classes, an empty class, one that cannot be called so, or one that stands in two
            places.
    """
    root = Path(argument).expanduser()
    if not argument:
        raise DataError("folder needs a path: write folder:PATH, with one folder of images for each class in PATH")
    if not root.is_dir():
        want = "give the folder that holds one folder of images for each class"
        if root.is_file():
            unpack = "unpack it and " if root.suffix.lower() in (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar") else ""
            raise DataError(f"{argument!r} is a file, not a folder; {unpack}{want}")
        raise DataError(f"{missing('folder', Path(argument))}; {want}")
    try:
        return _tree(find_layout(root, argument, teach=teach, deep=deep))
    except OSError as error:
        raise unreadable_folder(error) from error


def tell_notes(tree: FolderTree) -> None:
    """A ``FolderWarning`` for each note."""
    for note in tree.notes:
        warnings.warn(note, FolderWarning, stacklevel=3)


def split_by_class(names: list[str]) -> dict[str, str]:
    """The split of each class: 64 % train, 16 % val, 20 % test, at least one class each.

    Classes are ordered by a seeded digest of their names: the same on every machine, whatever their number, so that a
    class added later moves few others. With fewer than three classes there is nothing to split: all are for testing an
    encoder that was trained elsewhere.

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
    root = layout.root
    homes = [(home, split, _name(home)) for home, split in layout.homes]
    _refuse_twins(root, homes)
    ignored: Counter[str] = Counter({OUTSIDE: layout.loose} if layout.loose else {})
    drawn = split_by_class(list(dict.fromkeys(name for _, _, name in homes)))
    found: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for home, split, name in homes:
        found[split or drawn[name], name].append(home)
    broken: list[Path] = []
    files = {key: [file for home in own for file in _files(home, root, ignored, broken)] for key, own in found.items()}
    rank = ("train", "val", "test")
    order = sorted(found, key=lambda key: (rank.index(key[0]), key[1]))
    notes = [
        f"{' and '.join(ascii(shown(home, root)) for home in own)} are one class, {name!r}, spelled in two ways"
        for (_, name), own in found.items()
        if len(own) > 1
    ]
    notes += [f"passed over: {leads_nowhere(link)}" for link in broken[:MOST]]
    notes += [f"passed over: {len(broken) - MOST} more links to what is not there"] * (len(broken) > MOST)
    notes += look_alike_lines(look_alikes(sorted(name for _, name in found)))
    classes = tuple(FolderClass(name, split, tuple(files[split, name])) for split, name in order)
    return FolderTree(root, classes, dict(ignored), layout.own_splits, layout.held_out, (*layout.notes, *notes))


def _name(home: Path) -> str:
    try:
        return clean_name(shown(home.name))
    except BadNameError as error:
        raise DataError(f"folder {shown(home.parent)!r}: {error}") from error


def _refuse_twins(root: Path, homes: list[tuple[Path, str, str]]) -> None:
    """A class in two splits is leakage; one inside of another, or reached by a link from there, is in both."""
    first: dict[str, tuple[Path, str]] = {}
    for home, split, name in homes:
        other, other_split = first.setdefault(plain(name), (home, split))
        if split != other_split:
            raise DataError(
                f"class {name!r} stands twice, {shown(other, root)!r} and {shown(home, root)!r}: what was trained on "
                f"must not be tested on. Give one part alone, as in {shown(home.parent)}, whose classes are then "
                "split, or keep each class in one split"
            )
    tops = {home for home, _, _ in homes}
    places: dict[tuple[int, int], Path] = {identity(root): root}
    for home in sorted(tops):
        if (other := places.setdefault(identity(home), home)) != home:
            raise DataError(f"{shown(other)!r} and {shown(home)!r} are one folder, reached by a link; remove the link")
    for home, _, _ in homes:
        for folder, _ in walk(home):
            if folder == home:
                continue
            if (other := places.get(identity(folder), home)) != home:
                raise DataError(
                    f"class {shown(home, root)!r} holds {shown(folder)!r}, a link to {shown(other)!r}, so it would "
                    "have the images of another class; remove the link"
                )
            twin, _ = first.get(plain(shown(folder.name)), (home, ""))
            if twin != home:
                where = f"{shown(twin, root)!r} and inside another class, {shown(folder, root)!r}"
                raise DataError(f"class {shown(folder.name)!r} stands twice, {where}; merge the two or rename one")


def _files(home: Path, root: Path, ignored: Counter[str], broken: list[Path]) -> tuple[Path, ...]:
    """The images of a class folder; what is passed over is added to ``ignored`` and ``broken``."""
    images, others = [], Counter()
    for folder, names in walk(home):
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
    return tuple(sorted(images, key=lambda path: path.parts))
