"""Walk through a user's folders: which files are images, where links lead, and which files are not read."""

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

from metarep.data.datasets.options import LeftOutWarning
from metarep.data.reading.decode import EXTENSIONS
from metarep.errors import DataError

JUNK = {"__macosx", "@eadir", "thumbs.db", "desktop.ini"}  # names of files that archivers and file servers make
MADE = {
    "gallery.safetensors",
    "labels.safetensors",
    "index.safetensors",
    "model.safetensors",
}  # each in a folder of ours


def shown(path: Path | str, root: Path | None = None) -> str:
    r"""Write a path so that it can be printed and stored: bytes that are not UTF-8 become escapes.

    Args:
        path: the path, or a name.
        root: write the path relative to this folder; None for the path as it is.

    >>> shown(Path("photos/moth/0.png"), Path("photos"))
    'moth/0.png'
    """
    if isinstance(path, Path):
        path = (path.relative_to(root) if root else path).as_posix()
    return path.encode("utf-8", "backslashreplace").decode()


def image_files(path: Path) -> Iterator[Path]:
    """Yield the images below a folder at any depth, in order; for a file, yield that file, whatever its name.

    Raises:
        DataError: the path does not exist or cannot be read.

    Warns:
        LeftOutWarning: a link below the folder is broken and does not have the name of an image; or a folder below it
            is a model, a run or an index of metarep.
    """
    if path.is_file():
        yield path
        return
    if not path.is_dir():
        raise missing("file or folder", path)
    made: list[Path] = []
    try:
        for folder, names in walk(path, made):
            for name in sorted(names):
                if is_image(folder / name):
                    yield folder / name
                elif is_broken(folder / name):
                    warnings.warn(f"passed over: {leads_nowhere(folder / name)}", LeftOutWarning, 2)
        for own in made:
            warnings.warn(passed_over(own), LeftOutWarning, 2)
    except OSError as error:
        raise unreadable_folder(error) from error


def missing(kind: str, path: Path) -> DataError:
    """The error for a path that does not exist; ``kind`` is what was expected, such as ``folder``."""
    if path.is_symlink():
        return DataError(leads_nowhere(path), advice="mend or remove it")
    return DataError(f"there is no {kind} {shown(path)!r}", advice="check the path")


def leads_nowhere(path: Path) -> str:
    """The part of a message that describes a broken link."""
    return f"{shown(path)!r} is a link to {shown(os.readlink(path))}, which is not there"


def passed_over(made: Path, root: Path | None = None) -> str:
    """The note on a folder that metarep made, among a user's images; ``root`` is as in :func:`shown`."""
    return f"passed over: {shown(made, root)!r}, which metarep made; keep it outside the folder of images"


def walk(home: Path, passed: list[Path] | None = None) -> Iterator[tuple[Path, list[str]]]:
    """Yield the visible folders below a folder, itself included, and the names of the files in each.

    Links are followed, but each folder is visited once, so a loop of links ends. Models, runs and indexes of metarep
    are passed over.

    Args:
        home: the folder.
        passed: collects what is passed over.
    """
    visited = set()
    for folder, folders, names in os.walk(home, followlinks=True, onerror=_raise):
        if (key := identity(folder)) in visited:
            folders.clear()
            continue
        if visited and not MADE.isdisjoint(names):
            folders.clear()
            if passed is not None:
                passed.append(Path(folder))
            continue
        visited.add(key)
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        yield Path(folder), names


def identity(path: Path | str) -> tuple[int, int]:
    """The device and inode of a folder. Two paths with the same identity are one folder, also through links."""
    status = os.stat(path)
    return status.st_dev, status.st_ino


def subfolders(folder: Path, passed: list[Path] | None = None) -> list[Path]:
    """The visible folders in a folder, sorted; links to folders are included.

    Models, runs and indexes of metarep are left out; ``passed`` collects them.
    """
    with os.scandir(folder) as entries:
        visible = sorted(Path(entry.path) for entry in entries if not is_hidden(entry.name) and entry.is_dir())
    made = [each for each in visible if is_made(each)]
    if passed is not None:
        passed += made
    return [each for each in visible if each not in made]


def is_made(folder: Path) -> bool:
    """Whether a folder is a model, a run or an index of metarep; the pictures in one are no images of a user."""
    return any((folder / name).is_file() for name in MADE)


def loose_images(folder: Path) -> int:
    """The number of images in a folder itself, without its subfolders."""
    with os.scandir(folder) as entries:
        return sum(map(_is_loose, entries))


def has_loose_images(folder: Path) -> bool:
    """Whether there is an image in a folder itself; it is found without a look at all files."""
    with os.scandir(folder) as entries:
        return any(map(_is_loose, entries))


def holds_images(folder: Path) -> bool:
    """Whether there is an image in a folder or below it."""
    return any(is_image(inner / name) for inner, names in walk(folder) for name in names)


def is_image(path: Path) -> bool:
    """Whether a file has the name of an image. A broken link may have it too; decoding then names the link."""
    return path.suffix.lower() in EXTENSIONS and not is_hidden(path.name) and not path.is_dir()


def is_broken(path: Path) -> bool:
    """Whether a path is a visible link to something that does not exist."""
    return path.is_symlink() and not path.exists() and not is_hidden(path.name)


def is_hidden(name: str) -> bool:
    """Whether a name is hidden (it starts with a dot) or belongs to a file that another program leaves behind."""
    return name.startswith(".") or name.lower() in JUNK


def unreadable_folder(error: OSError) -> DataError:
    """The error for a folder that the operating system refuses to read."""
    return DataError(f"{error.filename} cannot be read ({error.strerror}); check its permissions")


def _is_loose(entry: "os.DirEntry[str]") -> bool:
    return is_image(Path(entry.path)) and not entry.is_dir()


def _raise(error: OSError) -> None:
    raise error
