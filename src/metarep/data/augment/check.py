"""Check the settings of an augmentation."""

from typing import Any

from metarep.errors import MetarepError

SHARES = ("flip", "jitter", "grey", "blur", "solarise", "threshold")
NOT_NEGATIVE = ("rotate", "shear", "shift", "cutout", "brightness", "contrast", "saturation", "hue")


def check(augment: Any) -> None:  # noqa: ANN401 - an Augment, which imports this
    """Refuse settings that are out of range.

    Args:
        augment: an ``Augment``.

    Raises:
        MetarepError: the first setting that is out of range, with its value and the range.
    """
    for name in SHARES:
        if not 0 <= getattr(augment, name) <= 1:
            raise MetarepError(f"{name} must be from 0 to 1, not {getattr(augment, name)}")
    for name in NOT_NEGATIVE:
        if not getattr(augment, name) >= 0:
            raise MetarepError(f"{name} must be at least 0, not {getattr(augment, name)}")
    if augment.hue > 0.5:
        raise MetarepError(f"hue must be at most 0.5, half the circle either way, not {augment.hue}")
    if not augment.shear < 90:
        raise MetarepError(f"shear must be below 90 degrees, not {augment.shear}")
    for name in ("scale", "ratio", "sigma", "crop"):
        span = getattr(augment, name)
        if span is not None and not (len(span) == 2 and 0 < span[0] <= span[1]):
            raise MetarepError(f"{name} must be a smallest and a largest value above 0, not {span}")
    if augment.crop is not None and augment.crop[1] > 1:
        raise MetarepError(f"crop must be shares of the area, at most 1, not {augment.crop}")
    if augment.kernel < 1 or augment.kernel % 2 == 0:
        raise MetarepError(f"kernel must be an odd number of pixels, not {augment.kernel}")
