"""CIFAR-100 from its official archive, sorted by class. CIFAR-FS and FC100 are made of it."""

from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from metarep.data.datasets.cache import cached_images
from metarep.data.datasets.download import fetch
from metarep.data.datasets.options import Options
from metarep.data.datasets.pickles import read_pickle
from metarep.data.datasets.resize import resized
from metarep.data.datasets.tar_stream import tar_stream
from metarep.data.images import ImageBank
from metarep.data.labels import Labels
from metarep.data.split import Split
from metarep.errors import DataError

ARCHIVE = "cifar-100-python.tar.gz"
URL = "https://www.cs.toronto.edu/~kriz/" + ARCHIVE
SIDE, CLASSES, A_CLASS = 32, 100, 600
DIGEST = "4fb6ea6c422ae2a0a8ddca298aa7fdc33f729ddb33b4601dd1753d15dd26ffab"  # see `_digest`


def load_part(name: str, classes: list[str], options: Options) -> Split:
    """Load all 600 images of each of some classes: 500 of CIFAR's own train part and 100 of its test part.

    Args:
        name: the name of the resulting split, such as ``fc100/test``.
        classes: names of classes of CIFAR-100.
        options: ``size`` defaults to 32.
    """
    images, names = load_classes(options)
    row = {name: i for i, name in enumerate(names)}
    grouped = images.view(CLASSES, A_CLASS, *images.shape[1:])[[row[name] for name in classes]]
    labels = torch.arange(len(classes)).repeat_interleave(A_CLASS)
    keys = tuple(f"cifar-100/{name}" for name in classes)
    return Split(ImageBank(grouped.flatten(0, 1)), Labels(labels, tuple(classes), keys), name)


def load_classes(options: Options) -> tuple[UInt8[Tensor, "n 3 h w"], list[str]]:
    """Load all 60,000 images, memory-mapped, and the names of the 100 classes in alphabetical order.

    Class ``i`` owns rows ``600 i`` to ``600 i + 599``: 500 of the train part, then 100 of the test part. Each part is
    sorted by the official file names, so that the order of the entries in an archive has no effect on tasks.
    """
    size = options.size or SIDE
    key = f"cifar-100-{size}" + ("" if size == SIDE else "-bicubic")

    def build() -> tuple[np.ndarray, dict]:
        images, names = _decode(fetch(URL, ARCHIVE, options))
        return resized(images, size), {"names": names}

    images, facts = cached_images(key, build)
    return images, facts["names"]


def _decode(path: Path) -> tuple[np.ndarray, list[str]]:
    """Decode the archive into the order of ``load_classes``, check its content, and return it with the class names."""
    parts = _read_archive(path)
    try:
        fine = [name.decode("ascii") for name in parts["meta"]["fine_label_names"]]
        names = sorted(fine)
        row = np.array([names.index(name) for name in fine])  # official number of a class -> alphabetical
        images = np.empty((CLASSES, A_CLASS, 3, SIDE, SIDE), dtype=np.uint8)
        for part, rows in (("train", slice(0, 500)), ("test", slice(500, 600))):
            batch = parts.pop(part)
            labels, files = row[np.asarray(batch["fine_labels"])], np.asarray(batch["filenames"])
            order = np.lexsort((files, labels))
            if not np.array_equal(labels[order], np.arange(CLASSES).repeat(rows.stop - rows.start)):
                raise ValueError(f"the {part} part does not have {rows.stop - rows.start} images of each class")
            for of_class, chosen in zip(images, order.reshape(CLASSES, -1), strict=True):  # never copies a whole part
                of_class[rows] = batch["data"][chosen].reshape(-1, 3, SIDE, SIDE)
            del batch  # frees 150 MB before the other part is decoded
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise DataError(f"{path} does not hold CIFAR-100 ({error}); delete it and fetch it again") from error
    if (digest := _digest(images, names)) != DIGEST:
        raise DataError(f"{path} does not hold CIFAR-100's images (digest {digest}); delete it and fetch it again")
    return images.reshape(-1, 3, SIDE, SIDE), names


def _digest(images: np.ndarray, names: list[str]) -> str:
    """The SHA-256 of the class names and of the pixels of each class in each part, independent of their order."""
    total = sha256()
    for name, of_class in zip(names, images, strict=True):
        total.update(name.encode())
        for part in (of_class[:500], of_class[500:]):
            total.update(b"".join(sorted(sha256(image.data).digest() for image in part)))
    return total.hexdigest()


def _read_archive(path: Path) -> dict[str, Any]:
    """Read the three pickles of the archive from its stream, without unpacking it to disk."""
    parts: dict[str, Any] = {}
    with tar_stream(path) as entries:
        for entry, file in entries:
            name = PurePosixPath(entry).name
            if name in ("train", "test", "meta"):
                parts[name] = read_pickle(file, f"{path}, entry {name},")
    if missing := {"train", "test", "meta"} - parts.keys():
        raise DataError(f"{path} has no entry {', '.join(sorted(missing))}; delete it and fetch it again")
    return parts
