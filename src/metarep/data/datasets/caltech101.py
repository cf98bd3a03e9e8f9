"""Caltech-101: photographs of every shape as a few-shot data set at 84 px (Fei-Fei et al. 2004)."""

import re
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch

from metarep.data.datasets.archives import open_zip
from metarep.data.datasets.cache import cached_images
from metarep.data.datasets.download import fetch
from metarep.data.datasets.lists import split_list
from metarep.data.datasets.options import Options
from metarep.data.datasets.tar_stream import tar_stream
from metarep.data.images import ImageBank
from metarep.data.labels import Labels
from metarep.data.reading.decode import decode_all
from metarep.data.split import Split
from metarep.errors import DataError

ABOUT = (
    "100 classes x 31 to 800 photographs, kept at 84 x 84 RGB, 64 / 16 / 20 classes (Fei-Fei et al. 2004; CC BY 4.0)"
)
ARCHIVE = "caltech-101.zip"
URL = "https://data.caltech.edu/records/mzrjq-6wc02/files/" + ARCHIVE
SIDE = 84
INNER = "101_ObjectCategories.tar.gz"
ENTRY = re.compile(r"(?:.*/)?101_ObjectCategories/([^/]+)/image_(\d{4})\.jpg")
LEFT_OUT = ("BACKGROUND_Google", "Faces_easy")
LARGEST = 16 << 20  # bytes of a photograph; the official ones have up to 140 kB


def load(argument: str, split: str, options: Options) -> Split:
    """Load one part of Caltech-101: uint8 ``(n, 3, size, size)``, 5,775 / 1,259 / 1,208 photographs.

    The 100 classes are divided at random into 64 / 16 / 20. The folder of backgrounds is no class and is left out, and
    so is ``Faces_easy``, because its pictures are those of ``Faces``, cut out. A picture is scaled until it covers the
    square, and its centre is kept. About 410 pictures are grey; their three channels are equal.

    Fei-Fei, Fergus, Perona, Learning Generative Visual Models from Few Training Examples, 2004. Trap: the split is this
    library's own, so its numbers compare methods with each other, and not with those of papers.

    Args:
        argument: must be empty.
        split: ``train``, ``val`` or ``test``.
        options: ``size`` defaults to 84.

    Raises:
        DataError: an argument is given, or the archive is damaged, incomplete or cannot be downloaded.
    """
    if argument:
        raise DataError(f"caltech-101 has no variants, but {argument!r} was given; write 'caltech-101' alone")
    parts = counts()
    size = options.size or SIDE

    def build() -> tuple[np.ndarray, dict]:
        return _decode(fetch(URL, ARCHIVE, options), size), {}

    images, _ = cached_images(f"caltech-101-{size}", build)
    before = sum(sum(classes.values()) for classes in list(parts.values())[: list(parts).index(split)])
    own = parts[split]
    labels = torch.arange(len(own)).repeat_interleave(torch.tensor(list(own.values())))
    keys = tuple(f"caltech-101/{name}" for name in own)
    return Split(
        ImageBank(images[before : before + len(labels)]), Labels(labels, tuple(own), keys), f"caltech-101/{split}"
    )


def counts() -> dict[str, dict[str, int]]:
    """The number of photographs of each class of each part; a class holds ``image_0001`` and so on.

    >>> {part: len(classes) for part, classes in counts().items()}, counts()["train"]["accordion"]
    ({'train': 64, 'val': 16, 'test': 20}, 55)
    """
    return split_list("caltech101")


def _decode(path: Path, size: int) -> np.ndarray:
    """Decode the archive, part by part and class by class, and check that it holds every photograph once."""
    known = {name: count for part in counts().values() for name, count in part.items()}
    first = dict(zip(known, accumulate(known.values(), initial=0), strict=False))
    images = np.empty((sum(known.values()), 3, size, size), np.uint8)
    rows: list[int] = []

    def sources() -> Iterator[tuple[bytes, str]]:
        with open_zip(path) as archive:
            inner = next((name for name in archive.namelist() if name.rsplit("/", 1)[-1] == INNER), None)
            if inner is None:
                raise DataError(f"{path} has no entry {INNER}; delete it and fetch it again")
            with archive.open(inner) as file, tar_stream(path, file) as entries:
                for entry, content in entries:
                    match = ENTRY.fullmatch(entry)
                    if match is None or match[1] in LEFT_OUT:
                        continue
                    if not 1 <= int(match[2]) <= known.get(match[1], 0):
                        raise DataError(f"{path} holds {entry}, which Caltech-101 does not have; fetch it again")
                    rows.append(first[match[1]] + int(match[2]) - 1)
                    yield content.read(LARGEST), f"{path}, entry {entry},"

    for done, pixels in enumerate(decode_all(sources(), size=(size, size), channels=3)):
        if isinstance(pixels, DataError):
            raise pixels
        images[rows[done]] = pixels
    if sorted(rows) != list(range(len(images))):
        raise DataError(
            f"{path} holds {len(set(rows)):,} of the {len(images):,} photographs of Caltech-101; delete it and fetch "
            "it again"
        )
    return images
