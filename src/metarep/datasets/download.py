"""Downloads: a file from the user's own folder, from an earlier download, or from its official address."""

import re
import urllib.error
import urllib.request
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from metarep.datasets.cache import cache_dir, explain_disk, lock_of
from metarep.datasets.options import Options
from metarep.errors import Advice, DataError

CHUNK = 1 << 16
PATIENCE = 30.0  # seconds without a byte


class _BrokenOffError(OSError):
    """The connection ended before the file did."""


def fetch(url: str, file_name: str, options: Options, *, tries: int = 3) -> Path:
    """The file of this name, downloaded only if it is nowhere here.

    Looked for in ``options.data_dir`` and in ``downloads`` of the cache folder. A download goes into a ``.part``
    file which a later call carries on from, and takes its real name only when it is complete. A bar on standard
    error shows how far it is, if that is a terminal.

    Args:
        url: the official address.
        file_name: what it is called on disk.
        options: names the user's own folder.
        tries: how often a connection that breaks off is taken up again.

    Raises:
        DataError: it cannot be had; the message says where to put a copy.
    """
    if options.data_dir is not None and (options.data_dir / file_name).is_file():
        return options.data_dir / file_name
    place = cache_dir() / "downloads"
    target = place / file_name
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
                with explain_disk(place):
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
    """Writes what is missing of ``part``; returns only when it is complete."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(
        url, headers={"User-Agent": "metarep", **({"Range": f"bytes={have}-"} if have else {})}
    )
    try:
        response = urllib.request.urlopen(request, timeout=PATIENCE)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        error.close()  # the range begins at or after the end: the file is complete already, or it has changed
        if error.headers.get("Content-Range") == f"bytes */{have}":
            return
        part.unlink()
        _download(url, part)
        return
    with response:
        resumed = response.status == 206 and _starts_at(response, have)
        length = response.headers.get("Content-Length")
        have = have if resumed else 0  # a server that does not know ranges sends everything again
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
    """Whether a partial answer carries on exactly where the file ends."""
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if match is None or int(match[1]) != have:
        raise _BrokenOffError("the server sent another part of the file than was asked for")
    return True


def _bar() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
