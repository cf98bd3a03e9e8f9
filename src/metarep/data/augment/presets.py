"""Presets: augmentations by name."""

from metarep.data.augment.augment import Augment
from metarep.errors import unknown

# Drawings are rotated and sheared as handwriting varies, but never mirrored: a mirrored letter is another letter.
PRESETS: dict[str, Augment | None] = {
    "none": None,
    # For training with labels.
    "drawings": Augment(rotate=12, scale=(0.8, 1.2), shear=10, shift=0.08),
    "photos": Augment(crop=(0.4, 1.0), flip=0.5),
    # Photographs of 32 pixels, moved by up to 4 and not enlarged: for small networks, which lose accuracy by crops.
    "photos-32": Augment(shift=4 / 32, flip=0.5, brightness=0.4, contrast=0.4, saturation=0.4),
    # For training without labels: a network learns what two views have in common, so they must differ in all else.
    "views-drawings": Augment(rotate=20, scale=(0.7, 1.3), shear=15, shift=0.12),
    # The same with a crop, which is stretched: for long trainings, in which views-drawings becomes too easy.
    "crops-drawings": Augment(rotate=20, scale=(0.7, 1.3), shear=15, shift=0.12, crop=(0.4, 1.0), ratio=(0.6, 5 / 3)),
    "views-32": Augment(
        crop=(0.2, 1.0), flip=0.5, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, jitter=0.8, grey=0.2
    ),
    "few-shot-84": Augment(
        crop=(0.2, 1.0), flip=0.5, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, jitter=0.8, blur=0.5, kernel=9
    ),
}


def preset(name: str) -> Augment | None:
    """Look up an augmentation by its name; ``none`` gives None.

    >>> preset("drawings").rotate
    12

    Raises:
        MetarepError: no preset has this name.
    """
    if name not in PRESETS:
        raise unknown("augmentation", name, PRESETS)
    return PRESETS[name]
