"""CIFAR-FS: CIFAR-100's classes as a few-shot benchmark (Bertinetto et al. 2019)."""

from metarep.data.datasets.cifar import load_part
from metarep.data.datasets.lists import split_list
from metarep.data.datasets.options import Options
from metarep.data.split import Split
from metarep.errors import DataError

ABOUT = (
    "100 classes x 600 photographs, 32 x 32 RGB, 64 / 16 / 20 classes (Bertinetto et al. 2019; CIFAR-100, for research)"
)


def load(argument: str, split: str, options: Options) -> Split:
    """Load one part of CIFAR-FS. Its classes were split at random, so superclasses appear in several parts.

    Args:
        argument: must be empty.
        split: ``train``, ``val`` or ``test``.
        options: ``size`` defaults to 32.

    Raises:
        DataError: an argument is given, or the archive is damaged or cannot be downloaded.
    """
    if argument:
        raise DataError(f"cifar-fs has no variants, but {argument!r} was given; write 'cifar-fs' alone")
    return load_part(f"cifar-fs/{split}", split_list("cifar_fs")[split], options)
