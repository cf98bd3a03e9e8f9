"""Archives: read entries of a zip file from an untrusted source."""

import errno
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from metarep.errors import DataError, one_line

try:
    from lzma import LZMAError
except ImportError:  # a Python built without lzma; there such an entry has an unknown compression
    LZMAError = EOFError

DAMAGE = (zipfile.BadZipFile, zlib.error, LZMAError, struct.error, EOFError, ValueError, OverflowError)
PACKED = 200  # times that deflate packs images at most; blank images reach 1,032 times
LARGEST = 64 << 20  # bytes of one entry; real entries here are far smaller, and a zip bomb is far larger


@contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip file as a context, and check that every entry stays inside its folder.

    Errors that reading an entry raises inside the ``with`` block become a ``DataError`` too.

    Raises:
        DataError: the file is not a zip or is truncated (the list of entries is at its end), an entry would leave the
            folder, or an entry is damaged or encrypted.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            refuse_escapes(archive.namelist(), path)
            yield archive
    except DataError:
        raise
    except DAMAGE as error:
        raise _damaged(path, error) from error
    except OSError as error:  # damage: bz2 raises it without a number, and an offset before the start gives EINVAL
        if error.errno not in (None, errno.EINVAL):
            raise
        raise _damaged(path, error) from error
    except (NotImplementedError, RuntimeError) as error:  # what zipfile raises for unknown compression and passwords
        if isinstance(error, RecursionError):
            raise
        raise DataError(f"{path} cannot be read ({error}); it is not the official archive") from error


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is damaged or half-downloaded ({one_line(error)}); delete it and fetch it again")


def refuse_escapes(names: Iterable[str], path: Path) -> None:
    """Refuse entries whose names are absolute or contain ``..``, in the spelling of Unix or of Windows.

    Entries are never unpacked here. But an archive with such a name may be hostile, so it is not read at all.

    Args:
        names: the names of the entries.
        path: the archive, for the message.

    Raises:
        DataError: the first such entry.

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
    """Read the content of one entry.

    Only stored and deflated entries are read, which is what zip programs write by default. With other compressions,
    zipfile does not keep to the size that the entry claims, and lzma and bzip2 may allocate gigabytes.

    Args:
        archive: the open archive.
        name: the name of the entry.
        largest: the largest size in bytes.

    Raises:
        DataError: the entry has another compression, or is larger than ``largest``.
    """
    size, compression = archive.getinfo(name).file_size, archive.getinfo(name).compress_type
    if compression not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"{archive.filename}: the entry {name!r} is not compressed by deflate; zip it again")
    if size > largest:
        raise DataError(f"{archive.filename}: the entry {name!r} claims {size:,} bytes; no image is that large")
    with archive.open(name) as file:
        content = file.read(size)  # `archive.read` would inflate what the entry has, and not what it claims
    if len(content) < size:
        raise EOFError(f"the entry {name!r} has {len(content):,} bytes and claims {size:,}")
    return content


def refuse_bombs(archive: zipfile.ZipFile) -> None:
    """Raise if an entry claims far more bytes than packed images have.

    Raises:
        DataError: an entry larger than ``LARGEST`` is packed to less than a part in ``PACKED``.
    """
    for entry in archive.infolist():
        if entry.file_size > max(LARGEST, PACKED * entry.compress_size):
            raise DataError(
                f"{archive.filename}: the entry {entry.filename!r} has {entry.compress_size:,} bytes and claims "
                f"{entry.file_size:,}; do not use this archive"
            )
