"""Bank: a data set that was prepared before, in shards on disk; it opens in seconds, whatever its size."""

from pathlib import Path

import torch

from metarep.data.banks.manifest import MANIFEST, Manifest
from metarep.data.banks.writer import PARTS, BankWriter
from metarep.data.datasets.cache import note_use
from metarep.data.datasets.options import Options
from metarep.data.images import ImageBank
from metarep.data.labels import Labels
from metarep.data.reading.depth import Depth
from metarep.data.split import Split
from metarep.errors import DataError, unknown

ABOUT = "images in shards that were prepared before, bank:PATH; of any number, read from disk as they are needed"
AT_ONCE = 1 << 24  # bytes of images that are copied at once
SPLITS = {**{part: (part,) for part in PARTS}, "trainval": ("train", "val"), "all": PARTS}


def load(argument: str, split: str, options: Options) -> Split:
    """Map one part of a bank that ``BankWriter`` or ``metarep data prepare`` wrote.

    Neither its pixels nor the files that it was made from are read now.

    Args:
        argument: the folder of the bank.
        split: ``train``, ``val`` or ``test``; ``trainval`` or ``all``.
        options: ``size`` must be that of the bank, if it is given.

    Raises:
        DataError: there is no bank, it has no such part, it is damaged, or its images have another size.
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    folder = Path(argument).expanduser()
    if not argument or not (folder / MANIFEST).is_file():
        raise DataError(
            f"{argument!r} is not the folder of a bank: it has no {MANIFEST}; write bank:PATH of one that is"
        )
    manifest = Manifest.read(folder)
    if options.size and manifest.size != (options.size, options.size):
        raise DataError(
            f"{argument} has images of {manifest.size[0]} x {manifest.size[1]} pixels, not of size {options.size}; "
            "prepare another bank from the files"
        )
    images = manifest.map(folder)
    names, keys, counts, first = [], [], [], 0
    rows: list[tuple[int, int]] = []  # ranges of rows of the bank that are this part
    for name, part, count, key in _classes(manifest, argument):
        if part in SPLITS[split]:
            names.append(name)
            keys.append(key)
            counts.append(count)
            if rows and rows[-1][1] == first:
                rows[-1] = rows[-1][0], first + count
            else:
                rows.append((first, first + count))
        first += count
    if first != images.shape[0]:
        raise DataError(f"{argument} is damaged: its classes have {first:,} images, and its shards {images.shape[0]:,}")
    if not names:
        raise DataError(f"{argument} has no classes in {split}; load another part")
    note_use(folder, "opened")
    labels = Labels(torch.repeat_interleave(torch.tensor(counts)), tuple(names), tuple(keys))
    bank, depth = ImageBank.of(images.select(rows)), Depth.of(manifest.facts.get("depth"))
    return Split(bank, labels, f"bank:{argument}/{split}", depth)


def write(parts: list[Split], path: Path) -> None:
    """Write parts of a data set as a bank.

    Args:
        parts: each part, and the images of each class side by side in it; the name of a part ends in its split.
        path: the folder to make.

    Raises:
        MetarepError: there is something at ``path``. ``DataError`` if it cannot be written, or the images have groups.
    """
    if any(part.labels.groups is not None for part in parts):
        raise DataError(f"the images of {parts[0].name} have groups, which a bank cannot hold; use the data set itself")
    with BankWriter(path, depth=parts[0].depth) as writer:
        for part in parts:
            for number, (name, key) in enumerate(zip(part.labels.names, part.labels.keys, strict=True)):
                start = part.labels.starts[number]
                rows = part.labels.rows[start : start + part.labels.counts[number]]
                for some in rows.split(max(1, AT_ONCE // part.bank.pixels(rows[:1]).numel())):
                    writer.add(name, part.bank.pixels(some), split=part.name.rpartition("/")[2], key=key)


def _classes(manifest: Manifest, argument: str) -> list[tuple[str, str, int, str]]:
    """The name, the part, the number of images and the key of each class."""
    classes = manifest.facts.get("classes")
    if not isinstance(classes, list):
        raise DataError(f"{argument} is not a bank of classes: its manifest does not list them")
    for entry in classes:
        good = isinstance(entry, list) and [type(each) for each in entry] == [str, str, int, str]
        if not good or entry[1] not in PARTS or entry[2] < 1:
            raise DataError(f"{argument} is damaged: its manifest has {entry!r} where a class is described")
    return [tuple(entry) for entry in classes]
