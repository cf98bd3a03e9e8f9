"""The cache: images are decoded once into a uint8 file, which is memory-mapped from then on."""

import errno
import json
import os
import re
import secrets
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from metarep.errors import DataError
from metarep.machine.files import locked
from metarep.machine.untrusted import parse_json

FORMAT = 1  # version of the files below; part of the folder's name, so a newer program never reads older files
CHUNK = 1 << 22  # bytes that are read or written at once
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def cache_dir() -> Path:
    """The folder of decoded images and downloads: ``METAREP_CACHE``, or ``~/.cache/metarep`` if that is not set."""
    named = os.environ.get("METAREP_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "metarep"


def cached_images(key: str, build: Callable[[], tuple[np.ndarray, dict]]) -> tuple[UInt8[Tensor, "n c h w"], dict]:
    """Load images from the cache, or build and store them on a cache miss.

    Several processes may call this at once: one builds, and the others wait for it. A damaged folder is built again.
    The tensor is a private (copy-on-write) map of the file, so writing to it changes nothing on disk.

    Args:
        key: identifies the content; letters, digits and ``. _ = -``. It must contain everything that changes the
            pixels: the size, a version of the decoding, a digest of the source. Otherwise old content is returned.
        build: returns uint8 images ``(n, c, h, w)`` and facts about them that JSON can hold.

    Returns:
        The images and the facts. The facts have passed through JSON, so tuples are lists, also on the first call.

    Raises:
        DataError: the disk is full or the folder cannot be written. Errors of ``build`` pass through.
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
        if alone:
            for part in folder.parent.glob(f".{folder.name}.*.part"):  # left by a process that died
                shutil.rmtree(part, ignore_errors=True)
        images, facts = build()
        if images.dtype != np.uint8 or images.ndim != 4 or not images.size:
            raise ValueError(f"{key}: a cache holds uint8 images (n, c, h, w), not {images.dtype} {images.shape}")
        with explain_disk(folder.parent, needed=images.nbytes):
            _write(folder, images, facts)
    content = _read(folder)
    if content is None:
        raise DataError(f"the cache folder {folder} was damaged while it was written; check the disk and try again")
    return content


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


def _write(folder: Path, images: np.ndarray, facts: dict) -> None:
    """Write a temporary folder beside ``folder`` and rename it. If another process was quicker, its folder stays."""
    part = folder.parent / f".{folder.name}.{os.getpid()}-{secrets.token_hex(4)}.part"
    try:
        part.mkdir()
        _write_pixels(part / "images.npy", images)
        meta = {"shape": images.shape, "checksum": _checksum(part / "images.npy"), "facts": facts}
        (part / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
        if folder.exists() and _read(folder) is None:
            shutil.rmtree(folder)
        try:
            part.rename(folder)
        except OSError:
            if _read(folder) is None:
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write_pixels(path: Path, images: np.ndarray) -> None:
    """Write a ``.npy`` file a few images at a time, so that a transposed view is never copied as a whole.

    ``np.save`` is not used, because on a full disk it raises an ``OSError`` that does not say so.
    """
    header = {"descr": "|u1", "fortran_order": False, "shape": images.shape}
    step = max(1, CHUNK // images[0].size)
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.writelines(np.ascontiguousarray(images[row : row + step]).data for row in range(0, len(images), step))


def _checksum(path: Path) -> int:
    """The CRC-32 of a file. It is read and not mapped, so that its pages do not count as memory of this process."""
    total = 0
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(CHUNK):
            total = zlib.crc32(chunk, total)
    return total


def _read(folder: Path) -> tuple[Tensor, dict] | None:
    """The images and facts of a cache folder, or None if it is missing or damaged."""
    try:
        meta = parse_json((folder / "meta.json").read_text(encoding="utf-8"))
        if _checksum(folder / "images.npy") != meta["checksum"]:
            return None
        images = np.load(folder / "images.npy", mmap_mode="c", allow_pickle=False)
        if list(images.shape) != meta["shape"] or images.dtype != np.uint8:
            return None
        return torch.from_numpy(images), meta["facts"]
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        SyntaxError,
        MemoryError,
    ):  # ValueError: not JSON, or not an array file
        return None
