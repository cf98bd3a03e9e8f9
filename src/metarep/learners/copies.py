"""Copies: an image and augmented copies of it, by the same few transforms for every image."""

from collections.abc import Callable
from functools import cache

import torch
from jaxtyping import Float, Num
from torch import Generator, Tensor

from metarep.data.augment import Augment, Draws, preset
from metarep.encoders.preprocess import Preprocess
from metarep.errors import MetarepError

MOST = 64  # copies of an image


class Copies:
    """Makes the views of an image: the image itself, and augmented copies of it.

    The transforms are drawn once and are the same for all images, so a view never depends on other images.

    Args:
        copies: number of augmented copies of an image.
        augment: name of the preset of augmentations; ``auto`` is ``drawings`` for drawings and otherwise ``photos``.
        preprocess: how the encoder prepares images; it says whether they are drawings.

    Raises:
        MetarepError: ``copies`` is not from 0 to 64, there is no such preset, or it makes copies that are all the same.
    """

    def __init__(self, copies: int, augment: str, preprocess: Preprocess) -> None:
        if not 0 <= copies <= MOST:
            raise MetarepError(f"copies must be from 0 to {MOST}, not {copies}")
        suited = "drawings" if preprocess.invert else "photos"
        self.random: Augment | None = preset(suited if augment == "auto" else augment)
        if self.random is None and copies:
            raise MetarepError("augment='none' makes copies that are all the same; take copies=0, or another preset")
        self.copies = copies

    def features(
        self, embed: Callable[[Tensor], Float[Tensor, "b dim"]], x: Num[Tensor, "b c h w"]
    ) -> Float[Tensor, "b views dim"]:
        """The features of each image and of its augmented copies; the first view is the image itself.

        Args:
            embed: gives the features of images.
            x: raw images.
        """
        views = [embed(x)]
        if self.copies and self.random is not None:
            draws = _draws(self.random, self.copies, x.shape[-1] / x.shape[-2])
            for copy in range(self.copies):
                same = draws[torch.full((len(x),), copy)]
                views.append(embed(self.random.apply(x, same)))
        return torch.stack(views, 1)


@cache
def _draws(augment: Augment, copies: int, aspect: float) -> Draws:
    """The transforms of the copies, the same for all images."""
    return augment.draw(copies, Generator().manual_seed(0), aspect)
