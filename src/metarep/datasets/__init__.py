"""Data sets by name: ``load_dataset("omniglot", "train")`` gives the images and labels of one part."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from typing_extensions import deprecated

from metarep.datasets.depth import Depth
from metarep.datasets.options import Options
from metarep.datasets.split import Split
from metarep.errors import DataError, unknown

DATASETS: dict[str, str] = {
    "omniglot": "metarep.datasets.omniglot",
    "omniglot-runs": "metarep.datasets.omniglot_runs",
    "cifar-fs": "metarep.datasets.cifar_fs",
    "fc100": "metarep.datasets.fc100",
    "miniimagenet": "metarep.datasets.miniimagenet",
    "folder": "metarep.datasets.folder",
    "glyphs": "metarep.datasets.glyphs",
}
PARTS = ("train", "val", "test")
JOINED = {"trainval": ("train", "val"), "all": PARTS}
SPLITS = (*PARTS, *JOINED)

__all__ = ["DATASETS", "PARTS", "SPLITS", "Options", "Split", "about", "load_dataset"]


def load_dataset(
    spec: str,
    split: str = "test",
    *,
    size: int | None = None,
    data_dir: Path | None = None,
    skip_bad: bool = False,
    depth: Depth | str | int | Mapping[str, Any] | None = None,
) -> Split:
    """One part of a data set; no class is ever in two parts.

    Args:
        spec: a name on the list, or ``name:argument``: ``omniglot:lake``, ``folder:photos``.
        split: ``train``, ``val``, ``test``, or several as one: ``trainval`` is the first two, ``all`` every class.
        size: height and width in pixels; the data set's own default if None.
        data_dir: a folder that already holds the archives; ``METAREP_DATA`` if None.
        skip_bad: leave out images that cannot be read, with a warning for each.
        depth: black and white of a folder's pictures of more than 8 bits: a number of bits, ``BLACK:WHITE``, or what
            another split's ``depth`` is; what is not told is seen from all of them. See :mod:`metarep.datasets.depth`.

    Raises:
        MetarepError: an unknown name or split; ``DataError`` where the data cannot be had or read.

    Warns:
        LeftOutWarning, DuplicateImagesWarning, DepthWarning: see ``Options`` and ``metarep.datasets.folder``.

    >>> load_dataset("omniglt")
    Traceback (most recent call last):
    metarep.errors.MetarepError: unknown data set 'omniglt'; did you mean 'omniglot'? Known: cifar-fs, fc100, ...
    """
    name, _, argument = spec.partition(":")
    if name not in DATASETS:
        raise unknown("data set", name, DATASETS)
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    place = Path(data_dir) if data_dir is not None else None
    options = Options(size=size, data_dir=place, skip_bad=skip_bad, depth=Depth.of(depth))
    module = import_module(DATASETS[name])
    if not hasattr(module, "load"):
        raise DataError(f"{name} has tasks of its own and no splits; see {module.__name__}")
    if split in getattr(module, "SPLITS", PARTS):  # a folder joins its parts itself: it reads all of them at once
        return module.load(argument, split, options)
    parts = [module.load(argument, part, options) for part in JOINED[split]]
    return Split.join(parts, parts[0].name.removesuffix("train") + split)


@deprecated("metarep.load_data is now called metarep.load_dataset; the old name goes with the next version")
def load_data(
    spec: str,
    split: str = "test",
    *,
    size: int | None = None,
    data_dir: Path | None = None,
    skip_bad: bool = False,
    depth: Depth | str | int | Mapping[str, Any] | None = None,
) -> Split:
    """The old name of :func:`load_dataset`."""
    return load_dataset(spec, split, size=size, data_dir=data_dir, skip_bad=skip_bad, depth=depth)


load = load_data


def about(name: str) -> str:
    """One line on a data set: what it shows, how many classes and images, their size, where it is from."""
    if name not in DATASETS:
        raise unknown("data set", name, DATASETS)
    return import_module(DATASETS[name]).ABOUT
