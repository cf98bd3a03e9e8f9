"""AveragedPrototypes: the nearest class mean, by features that are averaged over augmented copies of each image."""

from typing import Any

from jaxtyping import Float, Num
from torch import Tensor
from torch.nn import functional

from metarep.encoders import Encoder
from metarep.learners.copies import Copies
from metarep.learners.learner import Metric
from metarep.learners.prototypes import Prototypes


class AveragedPrototypes(Prototypes):
    """Nearest-class-mean classification by the mean features of an image and of augmented copies of it.

    This is test-time augmentation of support and queries (Krizhevsky, Sutskever, Hinton, ImageNet Classification with
    Deep Convolutional Neural Networks, 2012, average the predictions of ten crops). What an encoder makes of the slant
    or the crop of one picture is averaged out, which helps most with one image a class. The encoder computes
    ``1 + copies`` rows for each image.

    Args:
        encoder: the representation.
        metric, temperature: see :class:`Prototypes`. For the cosine, the features of each copy have unit length.
        copies: number of augmented copies of an image.
        augment: name of the preset of augmentations; ``auto`` is ``drawings`` for drawings and otherwise ``photos``.
        power, centre, whiten: see :class:`Prototypes`.

    Raises:
        MetarepError: ``copies`` is not from 0 to 64, there is no such preset, or a setting of ``Prototypes`` is
            invalid.

    >>> import torch
    >>> from metarep.encoders import Preprocess
    >>> learner = AveragedPrototypes(Encoder(torch.nn.Flatten(), Preprocess((4, 4), 1, (0.0,), (1.0,))), copies=3)
    >>> learner.prepare(torch.full((2, 1, 4, 4), 255, dtype=torch.uint8)).mean().item()
    1.0
    """

    of_copies = True
    unit = False

    def __init__(
        self,
        encoder: Encoder,
        metric: Metric = "euclidean",
        temperature: float = 1.0,
        *,
        copies: int = 8,
        augment: str = "auto",
        power: float = 1.0,
        centre: bool = False,
        whiten: float = 0.0,
    ) -> None:
        super().__init__(encoder, metric, temperature, power=power, centre=centre, whiten=whiten)
        self.views, self.augment = Copies(copies, augment, encoder.preprocess), augment

    @property
    def kind(self) -> str:
        return "averaged, whitened" if self.whiten else "averaged"

    @property
    def settings(self) -> dict[str, Any]:
        return super().settings | {"copies": self.views.copies, "augment": self.augment}

    def embed(self, x: Num[Tensor, "b c h w"]) -> Float[Tensor, "b dim"]:
        """The mean of the features of each image and of its augmented copies."""
        return self.mean_of(self.views.features(self.encoder, x))

    def mean_of(self, views: Float[Tensor, "b views dim"]) -> Float[Tensor, "b dim"]:
        """The mean over the views of each image, which have unit length for the cosine."""
        return (functional.normalize(views, dim=-1) if self.metric == "cosine" else views).mean(1)
