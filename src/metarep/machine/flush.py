"""Flushing: what was written to a file or a folder is on the disk, and not only in the memory of the system."""

import os
from contextlib import suppress
from pathlib import Path


def flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk (fsync). Then a power failure does not undo them.

    Windows and some network file systems cannot flush a folder; there it does nothing.

    Args:
        path: a file or a folder.

    Raises:
        OSError: the content of a file could not be written.
    """
    if path.is_dir():
        with suppress(OSError):
            _flush(path)
    else:
        _flush(path)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
