"""Walking through folders that people bring: which files are images, where links lead, what is passed over."""

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

from metarep.datasets.decode import EXTENSIONS
from metarep.datasets.options import LeftOutWarning
from metarep.errors import DataError

JUNK = {"__macosx", "@eadir", "thumbs.db", "desktop.ini"}  # what archivers and file servers leave behind


def shown(path: Path | str, root: Path | None = None) -> str:
    """A path, below ``root`` if given, as it can be printed and stored: bytes that are not UTF-8 become escapes."""
    if isinstance(path, Path):
        path = (path.relative_to(root) if root else path).as_posix()
    return path.encode("utf-8", "backslashreplace").decode()


def image_files(place: Path) -> Iterator[Path]:
    """The images below a folder, however deep, in order; a file is itself, whatever its name.

    Raises:
        DataError: there is no such place, or it cannot be read.

    Warns:
        LeftOutWarning: a link below it that leads nowhere, and is not called as an image is.
    """
    if place.is_file():
        yield place
        return
    if not place.is_dir():
        raise missing("file or folder", place)
    try:
        for folder, names in walk(place):
            for name in sorted(names):
                if is_image(folder / name):
                    yield folder / name
                elif is_broken(folder / name):
                    warnings.warn(f"passed over: {leads_nowhere(folder / name)}", LeftOutWarning, 2)
    except OSError as error:
        raise unreadable_folder(error) from error


def missing(kind: str, path: Path) -> DataError:
    """The error for a place that is not there."""
    return DataError(leads_nowhere(path) if path.is_symlink() else f"there is no {kind} {shown(path)!r}")


def leads_nowhere(path: Path) -> str:
    """What to say of a link to what is not there."""
    return f"{shown(path)!r} is a link to {shown(os.readlink(path))}, which is not there"


def walk(home: Path) -> Iterator[tuple[Path, list[str]]]:
    """Visible folders and the names of their files; links are followed, but each place once: no loop is endless."""
    been = set()
    for place, folders, names in os.walk(home, followlinks=True, onerror=_raise):
        if (here := identity(place)) in been:
            folders.clear()
            continue
        been.add(here)
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        yield Path(place), names


def identity(place: Path | str) -> tuple[int, int]:
    """Two places with the same are one folder, by whatever link it is reached."""
    status = os.stat(place)
    return status.st_dev, status.st_ino


def subfolders(place: Path) -> list[Path]:
    """The visible folders in a folder, in order, links to folders among them."""
    with os.scandir(place) as entries:
        return sorted(Path(entry.path) for entry in entries if not is_hidden(entry.name) and entry.is_dir())


def loose_images(place: Path) -> int:
    """How many images lie in a folder itself."""
    with os.scandir(place) as entries:
        return sum(is_image(Path(entry.name)) and not entry.is_dir() for entry in entries)


def holds_images(place: Path) -> bool:
    """Whether there is an image in a folder or below it."""
    return any(is_image(folder / name) for folder, names in walk(place) for name in names)


def is_image(path: Path) -> bool:
    """Whether a file is called as an image is; also a link that leads nowhere, for decoding to complain of."""
    return path.suffix.lower() in EXTENSIONS and not is_hidden(path.name) and not path.is_dir()


def is_broken(path: Path) -> bool:
    """Whether a visible link leads nowhere."""
    return path.is_symlink() and not path.exists() and not is_hidden(path.name)


def is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in JUNK


def unreadable_folder(error: OSError) -> DataError:
    return DataError(f"{error.filename} cannot be read ({error.strerror}); check its permissions")


def _raise(error: OSError) -> None:
    raise error
