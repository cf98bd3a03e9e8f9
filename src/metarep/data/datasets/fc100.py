"""FC100: CIFAR-100's classes as a few-shot benchmark (Oreshkin et al. 2018)."""

from metarep.data.datasets.cifar import load_part
from metarep.data.datasets.lists import split_list
from metarep.data.datasets.options import Options
from metarep.data.split import Split
from metarep.errors import DataError

ABOUT = "100 classes x 600 photographs, 32 x 32 RGB, 60 / 20 / 20 by superclass (Oreshkin et al. 2018; CIFAR-100)"


def load(argument: str, split: str, options: Options) -> Split:
    """Load one part of FC100. No superclass of CIFAR-100 is in two parts, so it is harder than CIFAR-FS.

    The parts of FC100 and of CIFAR-FS overlap: never test on one of them what was trained on the other.

    Args:
        argument: must be empty.
        split: ``train``, ``val`` or ``test``.
        options: ``size`` defaults to 32.

    Raises:
        DataError: an argument is given, or the archive is damaged or cannot be downloaded.
    """
    if argument:
        raise DataError(f"fc100 has no variants, but {argument!r} was given; write 'fc100' alone")
    return load_part(f"fc100/{split}", split_list("fc100")[split], options)
