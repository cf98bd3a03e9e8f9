"""What stands in a folder of images: its classes, their files, and which split each class belongs to."""

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from metarep.datasets.decode import EXTENSIONS
from metarep.errors import DataError

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
SEED = 0
JUNK = {"__macosx", "@eadir", "thumbs.db", "desktop.ini"}  # what archivers and file servers leave behind


@dataclass(frozen=True)
class FolderClass:
    """One class: its name, its split, and its images as paths below the root, sorted."""

    name: str
    split: str
    files: tuple[Path, ...]


@dataclass(frozen=True)
class FolderTree:
    """The classes of a folder, ordered by split, then name, and what was passed over."""

    root: Path
    classes: tuple[FolderClass, ...]
    ignored: dict[str, int]  # extension -> number of files
    own_splits: bool


def scan(argument: str) -> FolderTree:
    """Find the classes of ``root/<class>/…`` or ``root/{train,val,test}/<class>/…``.

    Everything below a class folder belongs to the class, however deep. Hidden files and files whose extension is not
    an image's are passed over. Without split folders, classes are split by ``split_by_class``.

    Raises:
        DataError: no such folder, no classes, an empty class, or a class that stands in two places.
    """
    root = Path(argument).expanduser()
    if not argument:
        raise DataError("folder needs a path: write folder:PATH, with one folder of images for each class in PATH")
    if not root.is_dir():
        raise DataError(
            f"there is no folder {argument!r}; give the folder that holds one folder of images for each class"
        )
    try:
        return _scan(root, argument)
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read ({error.strerror}); check its permissions") from error


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


def shown(path: Path | str, root: Path | None = None) -> str:
    """A path, below ``root`` if given, as it can be printed and stored: bytes that are not UTF-8 become escapes."""
    if isinstance(path, Path):
        path = (path.relative_to(root) if root else path).as_posix()
    return path.encode("utf-8", "backslashreplace").decode()


def image_files(place: Path) -> Iterator[Path]:
    """The images below a folder, however deep, in order; a file is itself, whatever its name.

    Raises:
        DataError: there is no such place, or it cannot be read.
    """
    if place.is_file():
        yield place
        return
    if not place.is_dir():
        raise DataError(f"there is no file or folder {shown(place)!r}")
    try:
        for folder, names in _walk(place):
            yield from (folder / name for name in sorted(names) if _is_image(folder / name))
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read ({error.strerror}); check its permissions") from error


def _scan(root: Path, argument: str) -> FolderTree:
    tops = _folders(root)
    splits = [top for top in tops if _plain(top.name) in SPLITS]
    if splits and len(splits) < len(tops):
        other = next(top.name for top in tops if top not in splits)
        raise DataError(
            f"{argument} holds the split {splits[0].name!r} next to the class {shown(other)!r}; keep either split "
            "folders or class folders there, not both (a class of that name needs another)"
        )
    homes = [(home, SPLITS[_plain(top.name)]) for top in splits for home in _folders(top)]
    if not splits:
        homes = [(home, "") for home in tops]
    loose = sum(_is_image(entry) for place in (root, *splits) for entry in place.iterdir())
    if not homes:
        found = f"its {loose} images stand in no class" if loose else "it holds no class folders"
        raise DataError(f"{argument} has no classes: {found}; put the images of each class in a folder named after it")
    _refuse_twins(root, homes)
    ignored: Counter[str] = Counter({"(outside any class)": loose} if loose else {})
    drawn = split_by_class([shown(home.name) for home, _ in homes])
    classes = []
    for home, split in homes:
        name = shown(home.name)
        classes.append(FolderClass(name, split or drawn[name], _files(home, root, ignored)))
    rank = ("train", "val", "test")
    classes.sort(key=lambda entry: (rank.index(entry.split), entry.name))
    return FolderTree(root, tuple(classes), dict(ignored), bool(splits))


def _refuse_twins(root: Path, homes: list[tuple[Path, str]]) -> None:
    """A name that stands twice is one class torn apart, or one class in two splits, which is leakage."""
    first: dict[str, tuple[Path, str]] = {}
    for home, split in homes:
        other, other_split = first.setdefault(_plain(home.name), (home, split))
        if other == home:
            continue
        where = f"class {shown(home.name)!r} stands twice, {shown(other, root)!r} and {shown(home, root)!r}"
        if split != other_split:
            raise DataError(
                f"{where}: what was trained on must not be tested on. Keep it in one split, or put all class folders "
                "side by side in one folder, and they are split by class"
            )
        raise DataError(f"{where}; merge the two or rename one")
    for home, _ in homes:
        for folder, _ in _walk(home):
            twin, _ = first.get(_plain(folder.name), (home, ""))
            if folder != home and twin != home:
                where = f"{shown(twin, root)!r} and inside another class, {shown(folder, root)!r}"
                raise DataError(f"class {shown(folder.name)!r} stands twice, {where}; merge the two or rename one")


def _files(home: Path, root: Path, ignored: Counter[str]) -> tuple[Path, ...]:
    images, others = [], Counter()
    for folder, names in _walk(home):
        for name in names:
            if _is_image(folder / name):
                images.append((folder / name).relative_to(root))
            elif not _is_hidden(name):
                others[Path(name).suffix.lower() or "(no extension)"] += 1
    if not images:
        has = f"; it holds {', '.join(sorted(others)[:5])}" if others else ""
        kinds = ", ".join(sorted(EXTENSIONS))
        raise DataError(f"class {shown(home, root)!r} has no images{has}; add some ({kinds}) or remove the folder")
    ignored.update(others)
    return tuple(sorted(images, key=lambda path: path.parts))


def _walk(home: Path) -> list[tuple[Path, list[str]]]:
    """Visible folders and the names of their files; links are followed, but each place once: no loop is endless."""
    been, found = set(), []
    for place, folders, names in os.walk(home, followlinks=True, onerror=_raise):
        status = os.stat(place)
        if (status.st_dev, status.st_ino) in been:
            folders.clear()
            continue
        been.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not _is_hidden(name))
        found.append((Path(place), names))
    return found


def _raise(error: OSError) -> None:
    raise error


def _folders(place: Path) -> list[Path]:
    return sorted(entry for entry in place.iterdir() if entry.is_dir() and not _is_hidden(entry.name))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in EXTENSIONS and not _is_hidden(path.name) and not path.is_dir()


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in JUNK


def _plain(name: str) -> str:
    """A name as a file system that ignores case and Unicode form would compare it."""
    return unicodedata.normalize("NFC", name).casefold().strip()
