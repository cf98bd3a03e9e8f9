"""Batched augmentation on the device of the images: every image its own draw, few passes over the pixels.

Library transforms on a batched tensor draw once for the whole batch; here every image has its own draw. Parameters come
from a CPU generator, so one seed names the same views on every device.
"""

from metarep.augment.augment import Augment
from metarep.augment.draws import Draws
from metarep.augment.presets import PRESETS, preset

__all__ = ["PRESETS", "Augment", "Draws", "preset"]
