"""Folder: the data set of a user's own images, with one folder for each class."""

import hashlib
import warnings
from collections import defaultdict

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import __version__ as pillow
from torch import Tensor

from metarep.data.copies.near_copies import near_copies
from metarep.data.copies.picture_hash import picture_hash
from metarep.data.datasets.cache import cached_images
from metarep.data.datasets.options import Options, warn_of_left_out
from metarep.data.images import ImageBank
from metarep.data.labels import Labels
from metarep.data.reading.decode import ADVICE, decode_all
from metarep.data.reading.depth import ADVICE as DEPTH_ADVICE
from metarep.data.reading.depth import Depth, DepthWarning, notice
from metarep.data.reading.folder_tree import FolderTree, scan, shown, warn_of_notes
from metarep.data.reading.formats import READ
from metarep.data.split import Split
from metarep.errors import DataError, counted, unknown

ABOUT = (
    "your own images, folder:PATH with PATH/<class>/<image> or PATH/{train,val,test}/<class>/<image>; kept at 84 x 84"
)
SIZE = 84
RECIPE = 4  # raise it whenever the pixels or the facts change
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
            ``depth`` is black and white of pictures of more than 8 bits, which all of the folder suggest if not told.

    Raises:
        DataError: an image cannot be read and ``skip_bad`` is not set; a class or split has no images left; or the
            folder is not as ``folder_tree.scan`` wants it.

    Warns:
        DuplicateImagesWarning: a picture or a near copy of it is in more than one class.
        LeftOutWarning: ``skip_bad`` left out an image.
        FolderWarning: names of classes look the same or are one name, or the classes were found one level below.
        DepthWarning: black and white of pictures of more than 8 bits were assumed.
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    tree = scan(argument)
    warn_of_notes(tree)
    images, facts = _images(tree, options)
    if facts["skipped"] and not options.skip_bad:
        (_, reason), *more = facts["skipped"]
        others = f" ({counted(len(more), 'more file')} {'is' if len(more) == 1 else 'are'} bad too)" if more else ""
        raise DataError(f"{argument}: {reason}{others}", advice=ADVICE)
    warn_of_left_out((reason for _, reason in facts["skipped"]), len(images) + len(facts["skipped"]))
    for text in facts["assumed"]:
        warnings.warn(DepthWarning(text, advice=DEPTH_ADVICE), stacklevel=2)
    _warn_of_duplicates(argument, facts["duplicates"])
    bounds = np.cumsum([0, *facts["counts"]]).tolist()
    there = {entry.split for entry in tree.classes}
    for part in SPLITS[split]:
        if part not in there and split != "all":
            raise _no_split(argument, part, tree)
    chosen = [row for row, entry in enumerate(tree.classes) if entry.split in SPLITS[split]]
    for row in chosen:
        if not facts["counts"][row]:
            raise DataError(
                f"class {tree.classes[row].name!r} of {argument} has no readable image left; mend or remove it"
            )
    counts = torch.tensor([facts["counts"][row] for row in chosen])
    names, keys = zip(*((tree.classes[row].name, facts["keys"][row]) for row in chosen), strict=True)
    labels = Labels(torch.repeat_interleave(counts), names, keys)
    return Split(
        ImageBank(images[bounds[chosen[0]] : bounds[chosen[-1] + 1]]),
        labels,
        f"folder:{argument}/{split}",
        Depth.of(facts["depth"]),
    )


def _images(tree: FolderTree, options: Options) -> tuple[UInt8[Tensor, "n c h w"], dict]:
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
    return cached_images(key, lambda: _build(tree, size, options.depth))


def _build(tree: FolderTree, size: int, depth: Depth) -> tuple[UInt8[np.ndarray, "n c h w"], dict]:
    """Decode all images of the folder, sorted by class, and collect facts about them that JSON can hold."""
    files = [(row, file) for row, entry in enumerate(tree.classes) for file in entry.files]
    images = np.empty((len(files), 3, size, size), np.uint8)  # pages that no image reaches cost no memory
    counts, contents = [0] * len(tree.classes), [[] for _ in tree.classes]
    skipped: list[tuple[str, str]] = []
    places: dict[bytes, list[tuple[int, str]]] = defaultdict(list)
    grey, done, owners = True, 0, list[tuple[int, str]]()
    sources = [(tree.root / file, shown(file)) for _, file in files]
    with warnings.catch_warnings(record=True) as told:  # kept in the cache, to be given with every use
        warnings.simplefilter("always", DepthWarning)
        depth = notice(sources, depth)
    decoded = decode_all(sources, size=(size, size), channels=3, depth=depth)
    for (row, file), pixels in zip(files, decoded, strict=True):
        if isinstance(pixels, DataError):
            skipped.append((shown(file), pixels.message))
            continue
        images[done] = pixels
        done += 1
        counts[row] += 1
        owners.append((row, shown(file)))
        grey = grey and bool((pixels[0] == pixels[1]).all() and (pixels[0] == pixels[2]).all())
        with open(tree.root / file, "rb") as content:
            contents[row].append(hashlib.file_digest(content, "sha256").digest())
        places[hashlib.sha256(pixels.tobytes()).digest()].append((row, shown(file)))
    if not done:
        raise DataError(f"{tree.root} has no readable image: {skipped[0][1]}")
    shared = [found for found in places.values() if len({row for row, _ in found}) > 1]
    shared += _near_copies(images[:done], owners, shared)
    facts = {
        "counts": counts,
        "keys": [f"folder:{hashlib.sha256(b''.join(sorted(each))).hexdigest()[:16]}" for each in contents],
        "skipped": skipped,
        "depth": depth.as_dict(),
        "assumed": [each.message.message for each in told if isinstance(each.message, DepthWarning)],
        "duplicates": [[file for _, file in found] for found in shared],
    }
    return images[:done, :1] if grey else images[:done], facts


def _near_copies(
    images: UInt8[np.ndarray, "n c h w"], owners: list[tuple[int, str]], known: list[list[tuple[int, str]]]
) -> list[list[tuple[int, str]]]:
    """Find near copies of a picture that are in more than one class: saved again, scaled or mirrored.

    Args:
        images: the images.
        owners: the class and the file name of each image.
        known: groups of duplicates that are reported already; they are left out.

    Returns:
        The owners of the pictures of each group.
    """
    group = near_copies(None, picture_hash(torch.from_numpy(images)))
    found: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for owner, name in zip(owners, group.tolist(), strict=True):
        found[name].append(owner)
    told = {owner for some in known for owner in some}
    return [some for some in found.values() if len({row for row, _ in some}) > 1 and not set(some) <= told]


def _warn_of_duplicates(argument: str, duplicates: list[list[str]]) -> None:
    if duplicates:
        pairs = "; ".join(f"{files[0]} = {files[-1]}" for files in duplicates[:3])
        more = f"; and {len(duplicates) - 3} more" if len(duplicates) > 3 else ""
        many = "1 picture is" if len(duplicates) == 1 else f"{len(duplicates)} pictures are"
        text = f"{argument}: {many} in more than one class ({pairs}{more}); remove the copies, or results will mislead"
        warnings.warn(text, DuplicateImagesWarning, stacklevel=3)


def _no_split(argument: str, split: str, tree: FolderTree) -> DataError:
    if tree.own_splits:
        there = ", ".join(sorted({f"{entry.split}/" for entry in tree.classes}))
        return DataError(f"{argument} has no {split}/ folder (it has {there}); make one and move some classes there")
    return DataError(
        f"{argument} has too few classes ({len(tree.classes)}) to split into train, val and test, so all are in test; "
        f"add classes (3 at least) or ask for test, not {split}"
    )
