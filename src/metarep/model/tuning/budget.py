"""Budget of a tuning: how large its batches and its tail may be, so that 20 classes of 5 images take two minutes.

Operations are counted, and time is not measured, so a tuning gives the same on every machine. Only whether it is tried
at all depends on the time.
"""

from torch import Tensor

from metarep.encoders import Encoder
from metarep.encoders.halves import Halves, operations

WORK = 1e11  # floating-point operations of all steps for each image: most of a second of two cores
MOST, FEWEST = 128, 16  # images of a step
USUAL = 32  # images of a step for which the tail of a vision transformer is chosen
TOO_LONG, IMAGES = 300.0, 100  # seconds that a tuning of so many images may take; more images may take more


def halves_for(encoder: Encoder, images: int, steps: int) -> Halves:
    """The trunk and the tail of an encoder that is to be tuned.

    Args:
        encoder: in evaluation mode.
        images: number of images to learn from.
        steps: number of steps.
    """
    return Halves(encoder, most=_forward(images, steps) / USUAL)


def batch_for(halves: Halves, maps: Tensor, steps: int) -> int:
    """The number of images of a step.

    Args:
        halves: the layers of the encoder.
        maps: the maps from which the images are classified, one row an image.
        steps: number of steps.
    """
    fit = _forward(len(maps), steps) / max(1, operations(halves.tail, maps[:1]))
    return max(FEWEST, min(MOST, int(fit)))


def takes_too_long(seconds: float, images: int) -> str:
    """Why a tuning on so many images that would take these seconds is not tried; empty if it is.

    >>> takes_too_long(720.0, 100), takes_too_long(720.0, 300)
    ('it would take about 12 minutes with this encoder; on smaller images it is faster', '')
    """
    if seconds <= TOO_LONG * max(1, images / IMAGES):
        return ""
    return f"it would take about {seconds / 60:.0f} minutes with this encoder; on smaller images it is faster"


def _forward(images: int, steps: int) -> float:
    """The operations that the forward pass of a step may need. The backward pass needs twice as many."""
    return WORK * images / (3 * steps)
