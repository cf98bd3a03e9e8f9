"""Data sets by name: ``load_dataset("omniglot", "train")`` gives the images and labels of one part."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from typing_extensions import deprecated

from metarep.data.datasets.options import Options
from metarep.data.reading.depth import Depth
from metarep.data.split import Split
from metarep.errors import DataError, unknown

DATASETS: dict[str, str] = {
    "omniglot": "metarep.data.datasets.omniglot",
    "omniglot-runs": "metarep.data.datasets.omniglot_runs",
    "cifar-fs": "metarep.data.datasets.cifar_fs",
    "fc100": "metarep.data.datasets.fc100",
    "caltech-101": "metarep.data.datasets.caltech101",
    "miniimagenet": "metarep.data.datasets.miniimagenet",
    "folder": "metarep.data.datasets.folder",
    "bank": "metarep.data.datasets.bank",
    "glyphs": "metarep.data.datasets.glyphs",
}
"""The data sets by name, each with the module that reads it."""
PARTS = ("train", "val", "test")
JOINED = {"trainval": ("train", "val"), "all": PARTS}
SPLITS = (*PARTS, *JOINED)

__all__ = ["DATASETS", "PARTS", "SPLITS", "Options", "Split", "about", "load_dataset", "load_parts"]


def load_dataset(
    spec: str,
    split: str = "test",
    *,
    size: int | None = None,
    data_dir: Path | None = None,
    skip_bad: bool = False,
    depth: Depth | str | int | Mapping[str, Any] | None = None,
) -> Split:
    """Load one part of a data set. No class is ever in two parts.

    Args:
        spec: a name in ``DATASETS``, or ``name:argument``, such as ``omniglot:lake`` or ``folder:photos``.
        split: ``train``, ``val`` or ``test``; or several parts as one: ``trainval``, or ``all`` for every class.
        size: height and width in pixels; None for the default of the data set.
        data_dir: a folder that already holds the archives; None for ``METAREP_DATA``.
        skip_bad: leave out images that cannot be read, with a warning for each.
        depth: which values are black and white in a folder's pictures of more than 8 bits: a number of bits,
            ``BLACK:WHITE``, or the ``depth`` of another split. What it does not say is chosen from all pictures of the
            folder. See :mod:`metarep.data.reading.depth`.

    Returns:
        The images, their labels, and the name of the part.

    Raises:
        MetarepError: the name or the split is unknown. ``DataError`` if the data cannot be downloaded or read.

    Warns:
        LeftOutWarning, DuplicateImagesWarning, DepthWarning: see ``Options`` and ``metarep.data.datasets.folder``.

    >>> load_dataset("omniglt")
    Traceback (most recent call last):
    metarep.errors.MetarepError: unknown data set 'omniglt'; did you mean 'omniglot'? Known: bank, caltech-101, ...
    """
    return load_parts(spec, [split], size=size, data_dir=data_dir, skip_bad=skip_bad, depth=depth)[0]


def load_parts(
    spec: str,
    splits: Sequence[str],
    *,
    size: int | None = None,
    data_dir: Path | None = None,
    skip_bad: bool = False,
    depth: Depth | str | int | Mapping[str, Any] | None = None,
) -> list[Split]:
    """Load several parts of a data set, as :func:`load_dataset` loads one; a folder is scanned only once.

    Args:
        spec, size, data_dir, skip_bad, depth: see :func:`load_dataset`.
        splits: the parts.
    """
    name, _, argument = spec.partition(":")
    if name not in DATASETS:
        raise unknown("data set", name, DATASETS)
    for split in splits:
        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
    folder = Path(data_dir) if data_dir is not None else None
    options = Options(size=size, data_dir=folder, skip_bad=skip_bad, depth=Depth.of(depth))
    module = import_module(DATASETS[name])
    if not hasattr(module, "load"):
        raise DataError(f"{name} has fixed tasks and no splits, so it cannot be loaded as one; see {module.__name__}")
    if hasattr(module, "load_parts"):
        return module.load_parts(argument, splits, options)
    return [_load(module, argument, split, options) for split in splits]


def _load(module: ModuleType, argument: str, split: str, options: Options) -> Split:
    """Load one part, which the module of the data set joins from several parts itself if it can."""
    if split in getattr(module, "SPLITS", PARTS):
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
    """Describe a data set in one line: its content, the number of classes and images, their size, and its source.

    >>> about("glyphs")[:25]
    '591 letters of 12 scripts'

    Raises:
        MetarepError: the name is unknown.
    """
    if name not in DATASETS:
        raise unknown("data set", name, DATASETS)
    return import_module(DATASETS[name]).ABOUT
