"""Files and folders that are whole or not there at all, and one writer at a time; and files of tensors."""

import errno
import json
import os
import shlex
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO

from filelock import lock_descriptor
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from metarep.errors import MetarepError

LOCK = ".writing"  # in a folder that is being filled: who holds it fills it
POLL = 0.01  # seconds between two looks at a lock that another holds
MOVES_OPEN = os.name != "nt"  # whether a folder can be renamed while a file in it is open
TAKEN = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}  # what a rename says of a name that has been taken


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write instead of ``path``; at the end it takes that name, by one rename and after it is on the disk.

    Whatever happens before, ``path`` is as it was; who may read it stays so too. Two who write the same file do so one
    after the other. Only ``kill -9`` leaves something behind, which the next one takes.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder, replacing(Path(folder) / "numbers.txt") as partial:
    ...     _ = partial.write_text("1 2 3")
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with own_folder(path.with_name(path.name + ".part")) as folder:
        partial = folder / path.name
        partial.touch()
        mode = (path if path.is_file() else partial).stat().st_mode
        yield partial
        partial.chmod(mode)  # whatever wrote it may have made another file, which nobody else may read
        with partial.open("rb") as file:
            os.fsync(file.fileno())  # or a power cut may leave the new name with no content
        partial.replace(path)


@contextmanager
def making(
    place: Path, last: str, parts: Collection[str], *, there: MetarepError, busy: MetarepError
) -> Iterator[Path]:
    """A folder to fill instead of ``place``; at the end it takes that name. After an error there is none.

    It lies beside ``place``, or inside of it where that is an empty folder: it may be a disk of its own, or lie where
    nothing else can be written. Then its entries are moved out one by one.

    Args:
        place: where nothing is yet, or an empty folder.
        last: the entry that makes it whole; it is moved last.
        parts: the others; beside a folder half filled they are what ``kill -9`` left, and are taken away.
        there: the error where there is something at ``place``.
        busy: the error where another process fills it now.

    Raises:
        MetarepError: ``there`` or ``busy``, also if another was quicker.
    """
    if not _free(place, last, parts):
        raise there
    inside = place.is_dir()
    place.parent.mkdir(parents=True, exist_ok=True)
    with own_folder(place / ".part" if inside else place.with_name(f".{place.name}.part"), busy) as folder:
        if not _free(place, last, parts):  # its last owner has just ended
            raise there
        if inside:
            _clear(place, {folder.name, _lock_beside(folder).name})
        yield folder
        try:
            if inside:
                for entry in sorted(folder.iterdir(), key=lambda entry: entry.name == last):
                    if entry.name != LOCK:
                        entry.rename(place / entry.name)
            else:
                folder.rename(place)
                (place / LOCK).unlink(missing_ok=True)
        except OSError as error:
            if error.errno in TAKEN:
                raise there from error
            raise


@contextmanager
def own_folder(folder: Path, busy: MetarepError | None = None) -> Iterator[Path]:
    """An empty folder of this writer's own, for a while; at the end it is gone, with what is left in it.

    Args:
        folder: made; what ``kill -9`` left there is cleared away.
        busy: the error where another has it; without it the call waits.

    Raises:
        MetarepError: another has it, and ``busy`` is given.
    """
    if not MOVES_OPEN:
        with _own_folder_beside_its_lock(folder, busy):
            yield folder
        return
    while True:
        with suppress(FileExistsError):
            folder.mkdir(exist_ok=True)
        if not folder.is_dir():
            with suppress(IsADirectoryError, PermissionError):  # it has just gone, and been made anew by another
                folder.unlink(missing_ok=True)  # a file, as older versions wrote them
            continue
        try:
            held = (folder / LOCK).open("a")
        except FileNotFoundError:  # its last owner took it away this moment
            continue
        with held:
            _lock(held, busy)
            if not _is(held, folder / LOCK):  # the lock of a folder that is no more
                continue
            _clear(folder, {LOCK})
            try:
                yield folder
            finally:
                if _is(held, folder / LOCK):  # else it has another name now
                    _clear(folder, {LOCK})
                    (folder / LOCK).unlink(missing_ok=True)  # at last: from here on it may be another's
                    with suppress(OSError):
                        folder.rmdir()
            return


@contextmanager
def _own_folder_beside_its_lock(folder: Path, busy: MetarepError | None) -> Iterator[None]:
    """:func:`own_folder` for Windows, where a folder that holds an open file can be neither renamed nor removed.

    The lock file is removed at the end. That is safe there: the system refuses to remove it while another has it open.
    """
    lock = _lock_beside(folder)
    with locked(lock, busy):
        if folder.is_file():  # as older versions wrote them
            folder.unlink()
        folder.mkdir(exist_ok=True)
        _clear(folder, ())
        try:
            yield
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        lock.unlink()


def _lock_beside(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


@contextmanager
def locked(file: Path, busy: MetarepError | None = None) -> Iterator[bool]:
    """Holds a lock, which dies with its process; yields False where the file system has none.

    Args:
        file: the lock. It stays behind: removing it would let two processes hold "the" lock on two different files.
        busy: the error where another holds it; without it the call waits.

    Raises:
        MetarepError: another holds it, and ``busy`` is given.
    """
    with file.open("a") as held:
        yield _lock(held, busy)


def typed(path: Path | str) -> str:
    """A path as one would type it in a shell.

    >>> typed("my moths"), typed("-moths"), typed("moths")
    ("'my moths'", './-moths', 'moths')
    """
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def write_tensors(path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """A safetensors file with a JSON header, put in place by one rename; tensors are stored contiguous and apart."""
    apart = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with replacing(path) as partial:
            save_file(apart, partial, {"metarep": json.dumps(header, sort_keys=True)})
    except (OSError, SafetensorError) as error:
        raise MetarepError(f"{path} could not be written: {error}") from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the header that :func:`write_tensors` wrote.

    Raises:
        MetarepError: no such file, or one that is damaged or not ours.
    """
    if not path.is_file():
        raise MetarepError(f"there is no file {path}")
    try:
        with path.open("rb") as held, safe_open(_name_of(held, path), framework="pt") as file:
            header = json.loads((file.metadata() or {})["metarep"])
            if not isinstance(header, dict):
                raise ValueError("its header is not a dictionary")
            return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118 - not a dict
    except FileNotFoundError:  # it went away this moment
        raise MetarepError(f"there is no file {path}") from None
    except (SafetensorError, KeyError, ValueError) as error:
        raise MetarepError(f"{path} is damaged or was not written by metarep: {error}") from error


def _lock(held: IO[Any], busy: MetarepError | None) -> bool:
    try:
        taken = lock_descriptor(held.fileno(), blocking=busy is None, poll_interval=POLL)
    except OSError:  # a file system without locks
        return False
    if not taken and busy is not None:
        raise busy
    return True


def _is(held: IO[Any], path: Path) -> bool:
    """Whether this open file is the one that has this name."""
    try:
        return os.path.samestat(os.fstat(held.fileno()), path.stat())
    except OSError:
        return False


def _free(place: Path, last: str, parts: Collection[str]) -> bool:
    """Whether there is nothing at ``place``, an empty folder, or what was left when one was half filled."""
    if not place.exists():
        return True
    names = {entry.name for entry in place.iterdir()} - {".part.lock"} if place.is_dir() else {last}
    return names <= {".part"} or (".part" in names and last not in names and names <= {".part", *parts})


def _clear(folder: Path, kept: Collection[str]) -> None:
    for entry in folder.iterdir():
        if entry.name in kept:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def _name_of(held: BinaryIO, path: Path) -> str:
    """A name of this open file, whichever file has its path by now.

    safetensors opens a file twice, for the header and for the tensors; a writer may replace it in between.
    """
    names = (f"{folder}/{held.fileno()}" for folder in ("/proc/self/fd", "/dev/fd"))
    return next((name for name in names if os.path.exists(name)), str(path))
