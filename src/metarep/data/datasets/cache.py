"""The cache: images are decoded once into uint8 shards, which are memory-mapped from then on."""

import errno
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from metarep.data.banks.manifest import FORMAT, Manifest
from metarep.data.banks.mapped import MappedImages
from metarep.data.banks.writer import write_shard
from metarep.errors import DataError
from metarep.machine.files import locked

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
Used = list[tuple[Path, str]]
_watchers: list[Used] = []


def cache_dir() -> Path:
    """The folder of decoded images and downloads: ``METAREP_CACHE``, or ``~/.cache/metarep`` if that is not set."""
    named = os.environ.get("METAREP_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "metarep"


def cached_images(key: str, build: Callable[[], tuple[np.ndarray, dict]]) -> tuple[UInt8[Tensor, "n c h w"], dict]:
    """Load images that fit into memory from the cache, or build and store them on a cache miss.

    Several processes may call this at once: one builds, and the others wait for it. A folder that is damaged so that
    it cannot be opened is built again. The content of its pixels is checked by ``metarep data verify`` alone. The
    tensor is a private (copy-on-write) map of the file, so writing to it changes nothing on disk.

    Args:
        key: identifies the content; letters, digits and ``. _ = -``. It must contain everything that changes the
            pixels: the size, a version of the decoding, a digest of the source. Otherwise old content is returned.
        build: returns uint8 images ``(n, c, h, w)`` and facts about them that JSON can hold.

    Returns:
        The images and the facts. The facts have passed through JSON, so tuples are lists, also on the first call.

    Raises:
        DataError: the disk is full or the folder cannot be written. Errors of ``build`` pass through.
    """

    def fill(folder: Path) -> Manifest:
        images, facts = build()
        if images.dtype != np.uint8 or images.ndim != 4 or not images.size:
            raise ValueError(f"{key}: a cache holds uint8 images (n, c, h, w), not {images.dtype} {images.shape}")
        with explain_disk(folder.parent, needed=images.nbytes):
            return Manifest(images.shape[2:], (write_shard(folder / "images.npy", images),), facts)

    images, facts = cached_bank(key, fill, resumes=False)
    return torch.from_numpy(images.parts[0]), facts


def cached_bank(key: str, fill: Callable[[Path], Manifest], *, resumes: bool = True) -> tuple[MappedImages, dict]:
    """Map images of any number from the cache, or make and store them on a cache miss.

    Args:
        key: identifies the content; see :func:`cached_images`.
        fill: writes the shards into a folder, and returns their manifest.
        resumes: whether ``fill`` can go on with what a process that died has left in its folder.

    Returns:
        The images and the facts of the manifest.

    Raises:
        DataError: the disk is full or the folder cannot be written. Errors of ``fill`` pass through.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._=-]*", key):
        raise ValueError(f"a cache key is made of letters, digits and . _ = -, not {key!r}")
    folder = cache_dir() / f"{key}-f{FORMAT}"
    content = _read(folder)
    if content is not None:
        return content
    with lock_of(folder) as alone:  # without locks two may build at once; the second takes what the first made
        content = _read(folder)  # built while this process waited for the lock
        if content is not None:
            return content
        name = f".{folder.name}.part" if resumes else f".{folder.name}.{os.getpid()}-{secrets.token_hex(4)}.part"
        part = folder.with_name(name)
        if alone:
            for left in folder.parent.glob(f".{folder.name}.*.part"):  # of a process that died
                shutil.rmtree(left, ignore_errors=True)
        try:
            with explain_disk(folder.parent):
                part.mkdir(exist_ok=True)
                fill(part).write(part)
                _rename(part, folder)
        finally:
            if not resumes:
                shutil.rmtree(part, ignore_errors=True)
    content = _read(folder, "made")
    if content is None:
        raise DataError(f"the cache folder {folder} was damaged while it was written; check the disk and try again")
    return content


@contextmanager
def watching() -> Iterator[Used]:
    """Context that yields a list of the cache folders that are used in it, each with how: ``made`` or ``opened``."""
    used: Used = []
    _watchers.append(used)
    try:
        yield used
    finally:
        _watchers[:] = [each for each in _watchers if each is not used]


def note_use(folder: Path, how: str) -> None:
    """Add a folder to the lists of :func:`watching`, unless it is there already."""
    for used in _watchers:
        if all(folder != path for path, _ in used):
            used.append((folder, how))


@contextmanager
def explain_disk(folder: Path, needed: int = 0) -> Iterator[None]:
    """Context that turns errors of a full or read-only disk into a ``DataError`` that says what to do.

    Args:
        folder: the folder that is written to.
        needed: the bytes that are needed there, for the message; 0 if not known.

    >>> with explain_disk(Path("/cache"), needed=25_000_000):
    ...     raise OSError(errno.ENOSPC, "No space left on device")
    Traceback (most recent call last):
    metarep.errors.DataError: the disk is full: 25.0 MB are needed in /cache; make room there, or set METAREP_CACHE ...
    """
    try:
        yield
    except OSError as error:
        elsewhere = "set METAREP_CACHE to a folder on another disk"
        if error.errno in FULL:
            amount = f"{needed / 1e6:,.1f} MB are needed in {folder}" if needed else f"{folder} cannot be written to"
            raise DataError(f"the disk is full: {amount}; make room there, or {elsewhere}") from error
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}:
            raise DataError(f"cannot write to {folder} ({error.strerror}); {elsewhere}") from error
        raise


def lock_of(path: Path) -> AbstractContextManager[bool]:
    """The lock of a file or folder, which need not exist yet. It is a hidden file in the same folder.

    The folder is made if it does not exist.

    Raises:
        DataError: the folder cannot be written.
    """
    lock = path.with_name(f".{path.name}.lock")
    with explain_disk(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()
    return locked(lock)


def _rename(part: Path, folder: Path) -> None:
    """Give a folder that is complete its name. If another process was quicker, its folder stays."""
    if folder.exists() and _opened(folder) is None:
        shutil.rmtree(folder)
    try:
        part.rename(folder)
    except OSError:
        if _opened(folder) is None:
            raise
        shutil.rmtree(part, ignore_errors=True)


def _read(folder: Path, how: str = "opened") -> tuple[MappedImages, dict] | None:
    """The images and facts of a cache folder or of its older form; None if it is missing or damaged."""
    older = folder.with_name(folder.name.removesuffix(f"-f{FORMAT}") + "-f1")
    for path, note in ((folder, how), (older, "opened, of an earlier version")):
        content = _opened(path)
        if content is not None:
            note_use(path, note)
            return content
    return None


def _opened(folder: Path) -> tuple[MappedImages, dict] | None:
    try:
        manifest = Manifest.read(folder)
        return manifest.map(folder), manifest.facts
    except DataError:
        return None
