"""CIFAR-FS: CIFAR-100's classes as a few-shot benchmark (Bertinetto et al. 2019)."""

from metarep.datasets.cifar import listed, load_part
from metarep.datasets.options import Options
from metarep.datasets.split import Split
from metarep.errors import DataError

ABOUT = (
    "100 classes x 600 photographs, 32 x 32 RGB, 64 / 16 / 20 classes (Bertinetto et al. 2019; CIFAR-100, for research)"
)


def load(argument: str, split: str, options: Options) -> Split:
    """One part of CIFAR-FS: the classes are dealt out at random, so parts share superclasses.

    Args:
        argument: must be empty.
        split: ``train``, ``val`` or ``test``.
        options: ``size`` defaults to 32.
    """
    if argument:
        raise DataError(f"cifar-fs takes no argument; {argument!r} was given")
    return load_part(f"cifar-fs/{split}", listed("cifar_fs.json", split), options)
