"""Downloads: find a file in the user's own folder or among earlier downloads, or fetch it from its official URL."""

import re
import urllib.error
import urllib.request
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from metarep.data.datasets.cache import cache_dir, explain_disk, lock_of
from metarep.data.datasets.options import Options
from metarep.errors import Advice, DataError

CHUNK = 1 << 16  # bytes that are read at once
PATIENCE = 30.0  # seconds without a byte after which a connection counts as broken


class _BrokenOffError(OSError):
    """The connection ended before the file was complete."""


def fetch(url: str, file_name: str, options: Options, *, tries: int = 3) -> Path:
    """Find a file on this machine, or download it.

    It is looked for in ``options.data_dir`` and in ``downloads`` of the cache folder. A download is written to a
    ``.part`` file, which a later call continues. The file gets its real name only when it is complete. If standard
    error is a terminal, a progress bar is shown there.

    Args:
        url: the official URL.
        file_name: the name of the file on disk.
        options: has the user's own folder.
        tries: the number of attempts when the connection breaks.

    Returns:
        The path of the complete file.

    Raises:
        DataError: the file is not here and cannot be downloaded. The message says where to put a copy.
    """
    if options.data_dir is not None and (options.data_dir / file_name).is_file():
        return options.data_dir / file_name
    folder = cache_dir() / "downloads"
    target = folder / file_name
    if target.is_file():
        return target
    advice = Advice(
        f"fetch {url} elsewhere and put {file_name} into the folder that METAREP_DATA or {{data_dir}} names",
        data_dir=...,
    )
    with lock_of(target):
        if target.is_file():  # another process was quicker
            return target
        part = target.with_name(file_name + ".part")
        for left in reversed(range(tries)):
            try:
                with explain_disk(folder):
                    _download(url, part)
                    return part.replace(target)
            except urllib.error.HTTPError as error:
                error.close()
                raise DataError(f"{file_name}: {url} answers {error.code} {error.reason}", advice=advice) from error
            except (OSError, HTTPException) as error:
                if not left:
                    reason = getattr(error, "reason", None) or error
                    raise DataError(
                        f"{file_name} is not here and cannot be downloaded ({reason})", advice=advice
                    ) from error
    raise ValueError(f"tries must be at least 1, not {tries}")


def _download(url: str, part: Path) -> None:
    """Download the rest of ``part`` and append it. Returns only if the file is complete then."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(
        url, headers={"User-Agent": "metarep", **({"Range": f"bytes={have}-"} if have else {})}
    )
    try:
        response = urllib.request.urlopen(request, timeout=PATIENCE)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        error.close()  # 416: the range begins at or after the end. The file is complete already, or it has changed
        if error.headers.get("Content-Range") == f"bytes */{have}":
            return
        part.unlink()
        _download(url, part)
        return
    with response:
        resumed = response.status == 206 and _starts_at(response, have)
        length = response.headers.get("Content-Length")
        have = have if resumed else 0  # a server without range requests sends the whole file again
        total = have + int(length) if length else None
        with open(part, "ab" if resumed else "wb") as file, _bar() as bar:
            task = bar.add_task(part.stem, total=total, completed=have)
            while chunk := response.read(CHUNK):
                file.write(chunk)
                bar.advance(task, len(chunk))
    arrived = part.stat().st_size
    if total is not None and arrived != total:
        raise _BrokenOffError(f"the connection ended after {arrived:,} of {total:,} bytes")


def _starts_at(response: HTTPResponse, have: int) -> bool:
    """Check that a partial response begins exactly where the file on disk ends."""
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if match is None or int(match[1]) != have:
        raise _BrokenOffError("the server sent another part of the file than was requested")
    return True


def _bar() -> Progress:
    """A progress bar on standard error; it shows nothing unless that is a terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
