"""Batched augmentation on the device of the images, with random parameters of its own for every image.

Most library transforms, applied to a batch, draw parameters once for the whole batch. Here the parameters come from a
CPU generator, so the same seed gives the same views on every device.
"""

from metarep.data.augment.augment import Augment
from metarep.data.augment.draws import Draws
from metarep.data.augment.presets import PRESETS, preset

__all__ = ["PRESETS", "Augment", "Draws", "preset"]
