"""Atomic writing of files and folders, locks between processes, and files of tensors."""

import errno
import json
import os
import shlex
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from filelock import lock_descriptor
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from metarep.errors import MetarepError
from metarep.machine.flush import flush
from metarep.machine.untrusted import check_header, open_tensors, parse_json

LOCK = ".writing"  # lock file in a folder that is being filled
POLL = 0.01  # seconds between two attempts to take a lock
MOVES_OPEN = os.name != "nt"  # whether a folder can be renamed while a file in it is open
TAKEN = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}  # errors of a rename to a name that exists


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A context that replaces a file atomically: it gives a new file to write, which is renamed to ``path`` at the end.

    After an error ``path`` is unchanged. The new file is on the disk before the rename, and has the old permissions.
    Two writers of a file wait for each other. Only ``kill -9`` leaves a partial file, which the next writer removes.

    Args:
        path: the file to replace; it need not exist.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "numbers.txt"
    ...     with replacing(path) as partial:
    ...         _ = partial.write_text("1 2 3")
    ...     path.read_text()
    '1 2 3'
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with own_folder(path.with_name(path.name + ".part")) as folder:
        partial = folder / path.name
        partial.touch()
        mode = (path if path.is_file() else partial).stat().st_mode
        yield partial
        partial.chmod(mode)  # a library may have made a new file that only this user can read
        flush(partial)  # otherwise a power failure may leave an empty file of the new name
        partial.replace(path)
        flush(path.parent)  # otherwise it may undo the rename


@contextmanager
def making(
    target: Path, last: str, parts: Collection[str], *, exists: MetarepError, busy: MetarepError
) -> Iterator[Path]:
    """A context that makes a folder atomically: it gives a folder to fill, which is moved to ``target`` at the end.

    After an error ``target`` does not exist, or is empty as before. The folder to fill is beside ``target``; if that is
    an empty folder, it is inside, because ``target`` may be a disk of its own, or its parent may not be writable. Then
    its entries are moved out one by one.

    Args:
        target: a path that does not exist yet, or an empty folder.
        last: the entry that makes the folder complete; it is moved last.
        parts: the other entries. In a folder that ``kill -9`` left half filled they are removed.
        exists: the error if there is something at ``target``.
        busy: the error if another process is filling it.

    Raises:
        MetarepError: ``exists`` or ``busy``, also if another process was faster.
    """
    if not _free(target, last, parts):
        raise exists
    inside = target.is_dir()
    target.parent.mkdir(parents=True, exist_ok=True)
    with own_folder(target / ".part" if inside else target.with_name(f".{target.name}.part"), busy) as folder:
        if not _free(target, last, parts):  # another process has just made it
            raise exists
        if inside:
            _clear(target, {folder.name, _lock_beside(folder).name})
        yield folder
        try:
            if inside:
                for entry in sorted(folder.iterdir(), key=lambda entry: entry.name == last):
                    if entry.name != LOCK:
                        entry.rename(target / entry.name)
            else:
                folder.rename(target)
                (target / LOCK).unlink(missing_ok=True)
        except OSError as error:
            if error.errno in TAKEN:
                raise exists from error
            raise


@contextmanager
def own_folder(folder: Path, busy: MetarepError | None = None) -> Iterator[Path]:
    """A context with an empty folder that one process holds alone; at its end the folder is removed.

    Args:
        folder: the folder, which is made. Entries that ``kill -9`` left in it are removed.
        busy: the error if another process holds it; None to wait.

    Raises:
        MetarepError: another process holds it, and ``busy`` is given.
    """
    if not MOVES_OPEN:
        with _own_folder_beside_its_lock(folder, busy):
            yield folder
        return
    while True:
        with suppress(FileExistsError):
            folder.mkdir(exist_ok=True)
        if not folder.is_dir():
            with suppress(IsADirectoryError, PermissionError):  # another process has just made it anew
                folder.unlink(missing_ok=True)  # older versions wrote a file
            continue
        try:
            held = (folder / LOCK).open("a")
        except FileNotFoundError:  # its last owner has just removed it
            continue
        with held:
            _lock(held, busy)
            if not _is(held, folder / LOCK):  # the lock of a folder that was removed
                continue
            _clear(folder, {LOCK})
            try:
                yield folder
            finally:
                if _is(held, folder / LOCK):  # otherwise it was renamed
                    _clear(folder, {LOCK})
                    (folder / LOCK).unlink(missing_ok=True)  # last, because another process may hold the folder now
                    with suppress(OSError):
                        folder.rmdir()
            return


@contextmanager
def _own_folder_beside_its_lock(folder: Path, busy: MetarepError | None) -> Iterator[None]:
    """:func:`own_folder` for Windows, where a folder with an open file can be neither renamed nor removed.

    The lock file is removed at the end. This is safe on Windows, which does not remove a file while another process has
    it open.
    """
    lock = _lock_beside(folder)
    with locked(lock, busy):
        if folder.is_file():  # older versions wrote a file
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
    """The lock file beside a folder, for Windows."""
    return folder.with_name(f"{folder.name}.lock")


@contextmanager
def locked(file: Path, busy: MetarepError | None = None) -> Iterator[bool]:
    """A context that holds a lock between processes. The system releases it when the process ends.

    Args:
        file: the lock file. It is not removed at the end, because then two processes could hold locks on two different
            files of this name.
        busy: the error if another process holds the lock; None to wait.

    Yields:
        Whether the lock is held; False if the file system has no locks.

    Raises:
        MetarepError: another process holds the lock, and ``busy`` is given.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder, locked(Path(folder) / "lock") as held:
    ...     print(held)
    True
    """
    with file.open("a") as held:
        yield _lock(held, busy)


def typed(path: Path | str) -> str:
    """A path in the form in which it is typed in a shell, with quotes if it needs them.

    >>> typed("my moths"), typed("-moths"), typed("moths")
    ("'my moths'", './-moths', 'moths')
    """
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def write_tensors(path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Write tensors and a header to a safetensors file, atomically.

    Every tensor is copied to the CPU and stored contiguously; two views of the same memory are stored as two tensors.

    Args:
        path: the file; its folder is made if it does not exist.
        tensors: the tensors by name.
        header: values that JSON can hold.

    Raises:
        MetarepError: the file cannot be written.
    """
    apart = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with replacing(path) as partial:
            save_file(apart, partial, {"metarep": json.dumps(header, sort_keys=True)})
            with partial.open("rb") as file:
                check_header(file)
    except (OSError, SafetensorError, ValueError) as error:
        raise MetarepError(f"{path} could not be written: {error}") from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors and the header that :func:`write_tensors` wrote.

    Args:
        path: the file.

    Raises:
        MetarepError: the file does not exist, is damaged, or was not written by this library.

    >>> from tempfile import TemporaryDirectory
    >>> import torch
    >>> with TemporaryDirectory() as folder:
    ...     write_tensors(Path(folder) / "a.safetensors", {"x": torch.tensor([1, 2])}, {"step": 3})
    ...     read_tensors(Path(folder) / "a.safetensors")
    ({'x': tensor([1, 2])}, {'step': 3})
    """
    if not path.is_file():
        raise MetarepError(f"there is no file {path}")
    try:
        with open_tensors(path) as file:
            header = parse_json((file.metadata() or {}).get("metarep", "null"))
            if not isinstance(header, dict):
                raise ValueError("its header is not a dictionary")
            return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118 - not a dict
    except FileNotFoundError:  # it has just been removed
        raise MetarepError(f"there is no file {path}") from None
    except (SafetensorError, ValueError) as error:
        raise MetarepError(f"{path} is damaged or was not written by metarep: {error}") from error


def _lock(held: IO[Any], busy: MetarepError | None) -> bool:
    """Lock an open file; False if the file system has no locks."""
    try:
        taken = lock_descriptor(held.fileno(), blocking=busy is None, poll_interval=POLL)
    except OSError:  # a file system without locks
        return False
    if not taken and busy is not None:
        raise busy
    return True


def _is(held: IO[Any], path: Path) -> bool:
    """Whether an open file is the one that has this path now."""
    try:
        return os.path.samestat(os.fstat(held.fileno()), path.stat())
    except OSError:
        return False


def _free(target: Path, last: str, parts: Collection[str]) -> bool:
    """Whether ``target`` does not exist, is an empty folder, or is one that was left half filled."""
    if not target.exists():
        return True
    names = {entry.name for entry in target.iterdir()} - {".part.lock"} if target.is_dir() else {last}
    return names <= {".part"} or (".part" in names and last not in names and names <= {".part", *parts})


def _clear(folder: Path, kept: Collection[str]) -> None:
    """Remove all entries of a folder but those in ``kept``."""
    for entry in folder.iterdir():
        if entry.name in kept:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
