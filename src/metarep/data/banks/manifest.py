"""Manifest: what a folder of images on disk holds, shard by shard, with a digest of each."""

import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any

from metarep.data.banks.mapped import MappedImages, map_file
from metarep.errors import DataError
from metarep.machine.digests import sha256_of
from metarep.machine.files import replacing
from metarep.machine.untrusted import parse_json

FORMAT = 2  # of the folders that are written; folders of format 1, with one file of images, are read too
MANIFEST, MANIFEST_1 = "bank.json", "meta.json"
CHUNK = 1 << 22  # bytes that are read at once
# ValueError: not JSON, or not an array file; SyntaxError, TokenError: the head of an array file is Python
DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, SyntaxError, TokenError, MemoryError)


@dataclass(frozen=True)
class Shard:
    """One file of images of a bank.

    Args:
        file: its name in the folder.
        rows: the number of its images.
        channels: 1 or 3; grey images in a bank of colour have 1.
        digest: the SHA-256 of the file in hexadecimal digits; in format 1 its CRC-32.
    """

    file: str
    rows: int
    channels: int
    digest: str

    def __post_init__(self) -> None:
        numbers = isinstance(self.rows, int) and self.rows > 0 and self.channels in (1, 3)
        if not numbers or not re.fullmatch(r"[A-Za-z0-9_-]+\.npy", self.file):
            raise ValueError(f"it has a shard that cannot be: {self}")


@dataclass(frozen=True)
class Manifest:
    """The content of a folder of images.

    Args:
        size: height and width of the images in pixels.
        shards: the files, in the order of their images.
        facts: facts about the images that JSON can hold.
        format: the version of the folder.
    """

    size: tuple[int, int]
    shards: tuple[Shard, ...]
    facts: dict[str, Any]
    format: int = FORMAT

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read the manifest of a folder of format 1 or 2.

        Raises:
            DataError: there is none, or it is damaged.
        """
        try:
            if (folder / MANIFEST).exists():
                saved = parse_json((folder / MANIFEST).read_text(encoding="utf-8"))
                if saved["format"] != FORMAT:
                    raise ValueError(f"its format is {saved['format']!r}, and {FORMAT} is read")
                height, width = saved["size"]
                shards = tuple(Shard(**shard) for shard in saved["shards"])
                manifest = cls((height, width), shards, saved["facts"])
            else:
                saved = parse_json((folder / MANIFEST_1).read_text(encoding="utf-8"))
                rows, channels, height, width = saved["shape"]
                shard = Shard("images.npy", rows, channels, f"{saved['checksum']:08x}")
                manifest = cls((height, width), (shard,), saved["facts"], 1)
            sides = all(isinstance(side, int) and side > 0 for side in manifest.size)
            if not sides or not manifest.shards or not isinstance(manifest.facts, dict):
                raise ValueError("it has no images")
            return manifest
        except DAMAGE as error:
            raise DataError(f"{folder} is not a folder of prepared images, or is damaged: {error}") from error

    def write(self, folder: Path) -> None:
        """Write the manifest atomically; the shards must be there already."""
        saved = {"format": FORMAT, "size": self.size, "shards": [asdict(shard) for shard in self.shards]}
        with replacing(folder / MANIFEST) as partial:
            partial.write_text(json.dumps(saved | {"facts": self.facts}), encoding="utf-8")

    def map(self, folder: Path) -> MappedImages:
        """Map the shards. Their sizes are checked, and their content is not read.

        Raises:
            DataError: a shard is missing, or does not have the size that the manifest says.
        """
        try:
            return MappedImages(
                [map_file(folder / shard.file, (shard.rows, shard.channels, *self.size)) for shard in self.shards]
            )
        except (*DAMAGE, RuntimeError) as error:
            raise DataError(f"{folder} is damaged: {error}") from error

    def damaged(self, folder: Path) -> Iterator[tuple[Shard, bool]]:
        """Read the shards one after the other, and tell for each whether it is damaged: not as it was written."""
        for shard in self.shards:
            digest = sha256_of if self.format == FORMAT else _checksum
            try:
                yield shard, digest(folder / shard.file) != shard.digest
            except OSError:
                yield shard, True


def _checksum(path: Path) -> str:
    """The CRC-32 of a file."""
    total = 0
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(CHUNK):
            total = zlib.crc32(chunk, total)
    return f"{total:08x}"
