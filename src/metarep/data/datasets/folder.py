"""Folder: the data set of a user's own images, with one folder for each class."""

import hashlib
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from PIL import __version__ as pillow

from metarep.data.datasets.cache import cached_bank
from metarep.data.datasets.folder_build import build
from metarep.data.datasets.options import Options, warn_of_left_out
from metarep.data.images import ImageBank
from metarep.data.labels import Labels
from metarep.data.reading.decode import ADVICE
from metarep.data.reading.depth import Depth, DepthWarning
from metarep.data.reading.depth_survey import ADVICE as DEPTH_ADVICE
from metarep.data.reading.folder_tree import FolderTree, scan, shown, warn_of_notes
from metarep.data.reading.formats import READ
from metarep.data.split import Split
from metarep.errors import DataError, counted, unknown

ABOUT = (
    "your own images, folder:PATH with PATH/<class>/<image> or PATH/{train,val,test}/<class>/<image>; kept at 84 x 84"
)
SIZE = 84
RECIPE = 4  # version of the cached pixels and facts; increase it whenever they change
SPLITS = {
    **{part: (part,) for part in ("train", "val", "test")},
    "trainval": ("train", "val"),
    "all": ("train", "val", "test"),
}


class DuplicateImagesWarning(UserWarning):
    """Warns that a picture or a near copy of it is in more than one class, and perhaps in more than one split."""


def load(argument: str, split: str, options: Options) -> Split:
    """Load one part of a folder of images: uint8 ``(n, c, size, size)``, with one channel if all images are grey.

    Images are scaled until the shorter side fits, and cropped to the centre square (see ``decode``). The key of a
    class is a digest of the content of its readable files. So a renamed copy of a training class is recognised, at any
    size. Adding, removing or re-saving an image makes it another class.

    Args:
        argument: the folder.
        split: ``train``, ``val``, ``test``, ``trainval`` for the first two, or ``all`` for every class.
        options: ``size`` defaults to 84; ``skip_bad`` leaves unreadable images out;
            ``depth`` is black and white of pictures of more than 8 bits; if it is not given, it is chosen from all
            pictures of the folder.

    Raises:
        DataError: an image cannot be read and ``skip_bad`` is not set; a class or split has no images left; or the
            folder is not as ``folder_tree.scan`` wants it.

    Warns:
        DuplicateImagesWarning: a picture or a near copy of it is in more than one class.
        LeftOutWarning: ``skip_bad`` left out an image.
        FolderWarning: names of classes look the same or are one name, or the classes were found one level below.
        DepthWarning: black and white of pictures of more than 8 bits were assumed.
    """
    return load_parts(argument, [split], options)[0]


def load_parts(argument: str, splits: Sequence[str], options: Options) -> list[Split]:
    """Load several parts, each as :func:`load` does; the folder is scanned once.

    Args:
        argument, options: see :func:`load`.
        splits: the parts.
    """
    for split in splits:
        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
    tree = scan(argument)
    warn_of_notes(tree)
    bank, facts = _images(tree, options)
    if facts["skipped"] and not options.skip_bad:
        (_, reason), *more = facts["skipped"]
        others = f" ({counted(len(more), 'more file')} {'is' if len(more) == 1 else 'are'} bad too)" if more else ""
        raise DataError(f"{argument}: {reason}{others}", advice=ADVICE)
    warn_of_left_out((reason for _, reason in facts["skipped"]), len(bank) + len(facts["skipped"]))
    for text in facts["assumed"]:
        warnings.warn(DepthWarning(text, advice=DEPTH_ADVICE), stacklevel=2)
    _warn_of_duplicates(argument, facts["duplicates"])
    return [_part(argument, split, tree, bank, facts) for split in splits]


def _part(argument: str, split: str, tree: FolderTree, bank: ImageBank, facts: dict) -> Split:
    """One part of a folder whose images are all decoded."""
    bounds = np.cumsum([0, *facts["counts"]]).tolist()
    parts = {entry.split for entry in tree.classes}
    for part in SPLITS[split]:
        if part not in parts and split != "all":
            raise _no_split(argument, part, tree)
    chosen = [row for row, entry in enumerate(tree.classes) if entry.split in SPLITS[split]]
    for row in chosen:
        if not facts["counts"][row]:
            raise DataError(
                f"class {tree.classes[row].name!r} of {argument} has no readable image; "
                "repair its files or remove the class"
            )
    counts = torch.tensor([facts["counts"][row] for row in chosen])
    names, keys = zip(*((tree.classes[row].name, facts["keys"][row]) for row in chosen), strict=True)
    labels = Labels(torch.repeat_interleave(counts), names, keys)
    return Split(
        bank.between(bounds[chosen[0]], bounds[chosen[-1] + 1]),
        labels,
        f"folder:{argument}/{split}",
        Depth.of(facts["depth"]),
    )


def _images(tree: FolderTree, options: Options) -> tuple[ImageBank, dict]:
    """Load all images of the folder, sorted by class, and facts about them; from the cache if no file has changed."""
    size = options.size or SIZE
    content = hashlib.sha256(str(tree.root.resolve()).encode("utf-8", "surrogateescape"))
    for entry in tree.classes:
        content.update(f"\n{entry.split}/{entry.name}".encode())
        for file in entry.files:
            try:
                status = (tree.root / file).stat()
                state = f"{status.st_size} {status.st_mtime_ns}"
            except OSError:  # a broken link; decoding names it
                state = "gone"
            content.update(f"\n{shown(file)} {state}".encode())
    if options.depth.ranges:
        content.update(f"\n{sorted(options.depth.as_dict().items())}".encode())
    content.update(" ".join(sorted(READ)).encode())  # another Pillow may read files that this one cannot
    key = f"folder-{RECIPE}-{size}-pillow{pillow}-{content.hexdigest()[:32]}"
    images, facts = cached_bank(key, lambda part: build(part, tree, size, options.depth))
    return ImageBank.of(images), facts


def _warn_of_duplicates(argument: str, duplicates: list[list[str]]) -> None:
    """Warn of pictures that are in more than one class, naming the first three."""
    if duplicates:
        pairs = "; ".join(f"{files[0]} = {files[-1]}" for files in duplicates[:3])
        more = f"; and {len(duplicates) - 3} more" if len(duplicates) > 3 else ""
        many = "1 picture is" if len(duplicates) == 1 else f"{len(duplicates)} pictures are"
        text = f"{argument}: {many} in more than one class ({pairs}{more}); remove the copies, or results will mislead"
        warnings.warn(text, DuplicateImagesWarning, stacklevel=3)


def _no_split(argument: str, split: str, tree: FolderTree) -> DataError:
    """The error for a split that the folder does not have."""
    if tree.own_splits:
        has = ", ".join(sorted({f"{entry.split}/" for entry in tree.classes}))
        return DataError(f"{argument} has no {split}/ folder (it has {has}); make one and move some classes there")
    return DataError(
        f"{argument} has too few classes ({len(tree.classes)}) to split into train, val and test, so all are in test; "
        f"add classes (3 at least) or load test, not {split}"
    )
