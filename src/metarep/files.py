"""Files that are whole or not there at all, and one writer at a time."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from metarep.errors import MetarepError

try:
    import fcntl
except ImportError:  # not a POSIX system: nobody watches there
    fcntl = None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write instead of ``path``; at the end it takes that name, by one rename and after it is on the disk.

    Whatever happens before, ``path`` is as it was; who may read it stays so too. Only ``kill -9`` leaves something
    behind, which the next one takes.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder, replacing(Path(folder) / "numbers.txt") as partial:
    ...     _ = partial.write_text("1 2 3")
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    partial = path.with_name(path.name + ".part")
    try:
        partial.unlink(missing_ok=True)
        partial.touch()
        mode = (path if path.is_file() else partial).stat().st_mode
        yield partial
        partial.chmod(mode)  # whatever wrote it may have made another file, which nobody else may read
        with partial.open("rb") as file:
            os.fsync(file.fileno())  # or a power cut may leave the new name with no content
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def locked(file: Path, busy: str | None = None) -> Iterator[bool]:
    """Holds a lock, which dies with its process; yields False where the system or the file system has none.

    Args:
        file: the lock. It stays behind: removing it would let two processes hold "the" lock on two different files.
        busy: what to say where another holds it, instead of waiting.

    Raises:
        MetarepError: another holds it, and ``busy`` is given.
    """
    with file.open("a") as held:
        alone = False
        if fcntl is not None:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
                alone = True
            except BlockingIOError:
                raise MetarepError(busy) from None
            except OSError:  # a file system without locks
                pass
        yield alone
