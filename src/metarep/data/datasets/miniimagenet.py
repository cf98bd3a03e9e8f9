"""miniImageNet: 100 classes of ImageNet in the split of Ravi and Larochelle. The user provides the images."""

import csv
import re
from hashlib import sha256
from pathlib import Path

import numpy as np

from metarep.data.banks.decoded_shard import forget
from metarep.data.banks.manifest import Manifest
from metarep.data.banks.workers import decode_files
from metarep.data.datasets.archives import refuse_escapes
from metarep.data.datasets.array_files import read_npz, read_pickled
from metarep.data.datasets.cache import cached_bank, cached_images
from metarep.data.datasets.lists import split_list
from metarep.data.datasets.options import Options, warn_of_left_out
from metarep.data.datasets.resize import resized
from metarep.data.images import ImageBank
from metarep.data.labels import Labels
from metarep.data.reading.decode import ADVICE
from metarep.data.reading.depth import Depth
from metarep.data.split import Split
from metarep.errors import Advice, DataError

ABOUT = (
    "100 classes x 600 photographs, 84 x 84 RGB, 64 / 16 / 20 classes (Ravi and Larochelle 2017); you bring the images"
)
PARTS = ("train", "val", "test")
LAYOUTS = (
    "one of: 60,000 JPEGs such as images/n0153282900000005.jpg (or beside images/, or in a folder a class), with "
    "train.csv, val.csv and test.csv (filename,label) or without, when the lists of Ravi and Larochelle hold; "
    "mini-imagenet-cache-{train,val,test}.pkl (image_data, class_dict); {train,val,test}.npz or "
    "mini-imagenet-{train,val,test}.npz (images, labels)"
)


def load(argument: str, split: str, options: Options) -> Split:
    """Load one part of miniImageNet from the user's own files.

    There is no official download. Three common layouts are read (``LAYOUTS``). JPEGs are scaled until they cover the
    square, and their centre is kept. Arrays are scaled as a whole.

    Args:
        argument: the folder; by default ``miniimagenet`` in ``options.data_dir``.
        split: ``train``, ``val`` or ``test``.
        options: ``size`` defaults to 84; ``skip_bad`` leaves unreadable JPEGs out.

    Raises:
        DataError: the folder has none of the layouts, a file is damaged, or a class belongs to another part.

    Warns:
        LeftOutWarning: ``skip_bad`` left an image out.
    """
    root = _root(argument, options)
    size = options.size or 84
    pickled = root / f"mini-imagenet-cache-{split}.pkl"
    arrays = [path for stem in ("", "mini-imagenet-") if (path := root / f"{stem}{split}.npz").is_file()]
    if pickled.is_file() or arrays:
        path = pickled if pickled.is_file() else arrays[0]
        key = _key(split, size, [_stamp(path)])
        read = read_pickled if path == pickled else read_npz

        def build() -> tuple[np.ndarray, dict]:
            images, classes = read(path)
            return resized(images, size), {"classes": classes}

        images, facts = cached_images(key, build)
        bank = ImageBank(images)
    else:
        files = _listed(root, split)
        key = _key(split, size, [f"{label} {_stamp(path)}" for path, label in files] + [str(options.skip_bad)])

        def fill(part: Path) -> Manifest:
            return _from_files(part, files, size, options.skip_bad)

        images, facts = cached_bank(key, fill)
        bank = ImageBank.of(images)
    warn_of_left_out(facts.get("skipped", ()), len(bank) + len(facts.get("skipped", ())))
    labels = Labels.of([f"{split}/{name}" if name.isdigit() else name for name in facts["classes"]])
    _refuse_other_parts(labels.names, split, root)
    keys = tuple(
        f"imagenet/{name}" if re.fullmatch(r"n\d{8}", name) else f"miniimagenet/{name}" for name in labels.names
    )
    return Split(bank, Labels(labels.classes, labels.names, keys), f"miniimagenet/{split}")


def shipped_list(split: str) -> list[tuple[str, str]]:
    """The file name and the class of every image of one part, from the list in the package.

    >>> len(shipped_list("test")), shipped_list("test")[0]
    (12000, ('n0193011200000001.jpg', 'n01930112'))
    """
    rows = []
    for name, bits in split_list("miniimagenet")[split].items():
        members = int(bits, 16)
        rows += [(f"{name}{i:08d}.jpg", name) for i in range(members.bit_length()) if members >> i & 1]
    return rows


def _root(argument: str, options: Options) -> Path:
    if argument:
        root = Path(argument).expanduser()
    elif options.data_dir is not None:
        root = options.data_dir / "miniimagenet"
    else:
        raise DataError(
            f"miniimagenet needs a folder with its images, {LAYOUTS}",
            advice=Advice(
                "take miniimagenet:PATH, or put miniimagenet/ into the folder that METAREP_DATA or {data_dir} names",
                data_dir=...,
            ),
        )
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; make it, and put there {LAYOUTS}")
    return root


def _stamp(path: Path) -> str:
    """Identify the content of a file without reading it, by its path, length and time of change."""
    try:
        status = path.stat()
    except OSError:  # decoding will name it
        return f"{path.absolute()} missing"
    return f"{path.absolute()} {status.st_size} {status.st_mtime_ns}"


def _key(split: str, size: int, source: list[str]) -> str:
    digest = sha256("\n".join(source).encode()).hexdigest()
    return f"miniimagenet-{split}-{size}-{digest[:16]}"


def _listed(root: Path, split: str) -> list[tuple[Path, str]]:
    """The path and the class of each JPEG of one part, in the order of its CSV file or of the list in the package."""
    rows = shipped_list(split)
    if (root / f"{split}.csv").is_file():
        try:
            with open(root / f"{split}.csv", newline="", encoding="utf-8") as file:
                rows = [(row["filename"], row["label"]) for row in csv.DictReader(file)]
            if any(None in row for row in rows):
                raise KeyError("a line has no label")
            refuse_escapes([name for row in rows for name in row], root / f"{split}.csv")
        except (KeyError, csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{root / split}.csv is not a table with the columns filename,label ({error})") from error
    files = []
    for name, label in rows:
        candidates = [root / "images" / name, root / name, root / "images" / label / name, root / label / name]
        files.append((next((path for path in candidates if path.is_file()), candidates[0]), label))
    if not any(path.is_file() for path, _ in files):
        raise DataError(f"{root} holds no image of miniImageNet's {split} part; put there {LAYOUTS}")
    return files


def _from_files(part: Path, files: list[tuple[Path, str]], size: int, skip_bad: bool) -> Manifest:
    shards = decode_files(part, [(path, str(path)) for path, _ in files], (size, size), Depth(), described=False)
    bad, first = {}, 0
    for each in shards:
        bad |= {first + position: reason for position, reason in each.skipped}
        first += len(each.skipped) + (each.shard.rows if each.shard else 0)
    if bad and not skip_bad:
        raise DataError(next(iter(bad.values())), advice=ADVICE)
    classes = [label for row, (_, label) in enumerate(files) if row not in bad]
    if not classes:
        raise DataError(f"none of the {len(files):,} images can be read; the first is {files[0][0]}")
    forget(part, len(shards))
    facts = {"classes": classes, "skipped": list(bad.values())}
    return Manifest((size, size), tuple(each.shard for each in shards if each.shard), facts)


def _refuse_other_parts(names: tuple[str, ...], split: str, root: Path) -> None:
    """Refuse a class that belongs to another part in the published split, since results would not be comparable."""
    lists = split_list("miniimagenet")
    for other in PARTS:
        if other != split and (strays := [name for name in names if name in lists[other]]):
            raise DataError(
                f"{root}: class {strays[0]!r} is given for {split}, but is in {other} of the published split; move it "
                f"to {other}"
            )
