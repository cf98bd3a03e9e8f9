"""Archives: reading entries of a zip that came over a network, without trusting it."""

import errno
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from metarep.errors import DataError

try:
    from lzma import LZMAError
except ImportError:  # a Python built without lzma, to which such an entry is of an unknown compression
    LZMAError = EOFError

DAMAGE = (zipfile.BadZipFile, zlib.error, LZMAError, struct.error, EOFError, ValueError, OverflowError)
LARGEST = 64 << 20  # of one entry; real ones here are far smaller, and a zip bomb is far larger


@contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """An archive whose every entry stays inside its folder; a broken one is refused by name.

    Errors while reading entries are explained too, as long as they happen inside the ``with``.

    Raises:
        DataError: not a zip (a truncated one lacks its end, where the list of entries is), an entry that would leave
            the folder, a damaged or encrypted entry.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            refuse_escapes(archive.namelist(), path)
            yield archive
    except DataError:
        raise
    except DAMAGE as error:
        raise _damaged(path, error) from error
    except OSError as error:  # bz2's word for damage has no number; an offset before the file's start is invalid
        if error.errno not in (None, errno.EINVAL):
            raise
        raise _damaged(path, error) from error
    except (NotImplementedError, RuntimeError) as error:  # zipfile's words for unknown compression and for a password
        if isinstance(error, RecursionError):
            raise
        raise DataError(f"{path} cannot be read ({error}); it is not the official archive") from error


def _damaged(path: Path, error: Exception) -> DataError:
    reason = str(error)[:200]  # zipfile quotes names of entries, which in a damaged archive have no end
    return DataError(f"{path} is damaged or half-downloaded ({reason}); delete it and fetch it again")


def refuse_escapes(names: Iterable[str], path: Path) -> None:
    """Refuses names of entries that are absolute or climb out with ``..``, in either system's spelling.

    Nothing here is ever unpacked; an archive which tries is not one to read on from.

    >>> refuse_escapes(["images/a.png"], Path("a.zip"))
    >>> refuse_escapes(["../a.png"], Path("a.zip"))
    Traceback (most recent call last):
    metarep.errors.DataError: a.zip holds the entry '../a.png', which would leave its folder; do not use this archive
    """
    for name in names:
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if parts and (parts[0] == "/" or parts[0].endswith(":") or ".." in parts):
            raise DataError(f"{path} holds the entry {name!r}, which would leave its folder; do not use this archive")


def read_entry(archive: zipfile.ZipFile, name: str, largest: int = LARGEST) -> bytes:
    """The content of one entry, refused if it is larger than ``largest`` bytes.

    Only what zip programs write by default is read: zipfile keeps to the claimed size with deflate alone, and lzma and
    bzip2 may ask for gigabytes.
    """
    size, compression = archive.getinfo(name).file_size, archive.getinfo(name).compress_type
    if compression not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"{archive.filename}: the entry {name!r} is not compressed by deflate; zip it again")
    if size > largest:
        raise DataError(f"{archive.filename}: the entry {name!r} claims {size:,} bytes; no image is that large")
    return archive.read(name)
