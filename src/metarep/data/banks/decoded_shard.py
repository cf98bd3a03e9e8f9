"""DecodedShard: some picture files, decoded into one shard of a bank on disk."""

import hashlib
import json
import stat
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from metarep.data.banks.manifest import DAMAGE, Shard
from metarep.data.banks.mapped import MappedImages, map_file
from metarep.data.banks.writer import write_shard
from metarep.data.copies.picture_hash import LENGTH, picture_hash
from metarep.data.reading.decode import decode_all
from metarep.data.reading.depth import Depth
from metarep.errors import DataError
from metarep.machine.digests import sha256_of
from metarep.machine.files import replacing

PLAN = "plan.json"  # in a folder that is being filled: the number of files in a shard
READ_ONCE = 1 << 24  # bytes of a file that is kept in memory while it is decoded, for its digest
FILE, PIXELS = slice(0, 32), slice(32, 48)  # bytes of a description: digest of the file, digest of its pixels
HASH = slice(48, 48 + LENGTH)  # and the perceptual hash


@dataclass(frozen=True)
class Job:
    """Some files to decode into one shard.

    Args:
        folder: where the shard is written.
        number: the number of the shard.
        files: the path of each file, and its name in messages.
        size: height and width of the images in pixels.
        depth: see :meth:`metarep.data.reading.depth.Depth.as_dict`.
        described: whether each image is described by digests and a perceptual hash.
    """

    folder: str
    number: int
    files: Sequence[tuple[str, str]]
    size: tuple[int, int]
    depth: dict[str, Any]
    described: bool


@dataclass(frozen=True)
class DecodedShard:
    """A shard that is on disk.

    Args:
        shard: what the manifest says of it; None if no file could be decoded.
        skipped: the position of each file that could not be decoded, and why.
        descriptions: for each image the bytes that ``FILE``, ``PIXELS`` and ``HASH`` divide; mapped.
    """

    shard: Shard | None
    skipped: list[tuple[int, str]]
    descriptions: UInt8[np.ndarray, "n 1 1 m"]

    @classmethod
    def read(cls, folder: Path, number: int) -> "DecodedShard | None":
        """Read what :func:`decode_shard` wrote; None if it is not there as a whole."""
        try:
            saved = json.loads(_record(folder, number).read_text(encoding="utf-8"))
            skipped = [(position, reason) for position, reason in saved["skipped"]]
            descriptions = np.empty((0, 1, 1, HASH.stop), np.uint8)
            if saved["shard"] is None:
                return cls(None, skipped, descriptions)
            shard = Shard(**saved["shard"])
            map_file(folder / shard.file, (shard.rows, shard.channels, *saved["size"]))
            if saved["described"]:
                descriptions = map_file(_described(folder, number), (shard.rows, 1, 1, HASH.stop))
            return cls(shard, skipped, descriptions)
        except (*DAMAGE, RuntimeError):
            return None


def decode_shard(job: Job, *, threads: int | None = None) -> None:
    """Decode files into a shard, which is complete once its record is on disk.

    Args:
        job: the files.
        threads: threads that decode; None for one a core.

    Raises:
        MetarepError: a fault of this library. Files that cannot be decoded are listed in the record.
        OSError: the disk is full, or a file is gone.
    """
    folder, skipped = Path(job.folder), []
    images = np.empty((len(job.files), 3, *job.size), np.uint8)  # pages that no image reaches cost no memory
    descriptions = np.empty((len(job.files), 1, 1, HASH.stop), np.uint8)
    grey, done = True, 0
    paths, contents = [Path(path) for path, _ in job.files], {}

    def sources() -> Iterator[tuple[Path | bytes, str]]:
        for path, (_, name) in zip(paths, job.files, strict=True):
            contents[path] = content = _content(path) if job.described and threads == 1 else None
            yield content or path, name

    decoded = decode_all(sources(), size=job.size, channels=3, depth=Depth.of(job.depth), threads=threads)
    for position, pixels in enumerate(decoded):
        content = contents.pop(paths[position])
        if isinstance(pixels, DataError):
            skipped.append((position, pixels.message))
            continue
        images[done] = pixels
        grey = grey and bool((pixels[0] == pixels[1]).all() and (pixels[0] == pixels[2]).all())
        if job.described:
            digest = hashlib.sha256(content).hexdigest() if content else sha256_of(paths[position])
            both = bytes.fromhex(digest) + hashlib.sha256(pixels.data).digest()[:16]
            descriptions[done, 0, 0, : PIXELS.stop] = np.frombuffer(both, np.uint8)
        done += 1
    shard = None
    if done and job.described:
        descriptions[:done, 0, 0, HASH] = picture_hash(torch.from_numpy(images[:done])).numpy().view(np.uint8)
        write_shard(_described(folder, job.number), descriptions[:done])
    if done:
        shard = write_shard(folder / f"{job.number:06d}.npy", images[:done, :1] if grey else images[:done])
    with replacing(_record(folder, job.number)) as partial:
        record = {"shard": shard and asdict(shard), "skipped": skipped, "size": job.size, "described": job.described}
        partial.write_text(json.dumps(record), encoding="utf-8")


def forget(folder: Path, shards: int) -> None:
    """Remove what only the making of a bank needs: the plan, and the records and descriptions of its shards."""
    (folder / PLAN).unlink(missing_ok=True)
    for number in range(shards):
        _record(folder, number).unlink(missing_ok=True)
        _described(folder, number).unlink(missing_ok=True)


def joined(shards: Sequence[DecodedShard]) -> MappedImages:
    """The descriptions of the images of all shards, as rows that can be gathered."""
    return MappedImages([shard.descriptions for shard in shards if len(shard.descriptions)])


def _content(path: Path) -> bytes | None:
    """The content of a file, to read it only once. None for a large or unreadable file, which the decoder reads."""
    try:
        status = path.stat()
        return path.read_bytes() if stat.S_ISREG(status.st_mode) and status.st_size <= READ_ONCE else None
    except OSError:  # the decoder names the reason
        return None


def _record(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.json"


def _described(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}-descriptions.npy"
