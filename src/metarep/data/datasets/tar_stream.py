"""Read a tar archive from an untrusted source as a stream, without unpacking it to disk."""

import io
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from metarep.data.datasets.archives import refuse_escapes
from metarep.errors import DataError

LARGEST, LONGEST = 256 << 20, 1 << 16  # bytes of a file; CIFAR-100 has one of 155 MB; and of an entry that is a name
Entries = Iterator[tuple[str, io.BufferedReader]]


@contextmanager
def tar_stream(path: Path, source: io.BufferedIOBase | IO[bytes] | None = None) -> Iterator[Entries]:
    """Open a ``.tar.gz`` as a context, and yield the name and the content of each file in it, one after the other.

    A content must be read before the next one is asked for.

    Args:
        path: the archive, also for messages.
        source: where its bytes are read from; None for the file itself.

    Raises:
        DataError: the archive is damaged, an entry would leave its folder, or one claims more bytes than such archives
            hold. So do errors of reading that arise inside the ``with`` block.
    """
    try:
        with tarfile.open(None if source else path, "r|gz", source, tarinfo=_Entry) as archive:
            yield _files(archive, path)
    except DataError:
        raise
    except (tarfile.TarError, EOFError, zlib.error, OSError, TypeError, ValueError) as error:
        raise DataError(f"{path} is damaged or half-downloaded ({error}); delete it and fetch it again") from error


def _files(archive: tarfile.TarFile, path: Path) -> Entries:
    for entry in archive:
        refuse_escapes([entry.name], path)
        file = archive.extractfile(entry) if entry.isfile() else None
        if file is not None:
            yield entry.name, io.BufferedReader(_SmallReads(file))


class _SmallReads(io.RawIOBase):
    """A file of a tar stream that is read in small pieces. A read of 150 MB at once makes tarfile hold three copies."""

    def __init__(self, file: IO[bytes] | io.BufferedReader) -> None:
        self.file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview | bytearray) -> int:
        piece = self.file.read(min(len(buffer), 1 << 16))
        buffer[: len(piece)] = piece
        return len(piece)


class _Entry(tarfile.TarInfo):
    """An entry of the archive. Its size is checked before its content is read; some hold names, which tarfile reads."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Entry":
        """The entry of a header; a ReadError if it claims more than the archive has."""
        entry = super().frombuf(buf, encoding, errors)
        if entry.size > (LARGEST if entry.isfile() else LONGEST):
            raise tarfile.ReadError(f"an entry claims {entry.size:,} bytes")
        return entry
