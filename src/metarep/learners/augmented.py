"""AugmentedLinear: logistic regression on several augmented copies of each support image."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float, Int, Num
from torch import Tensor

from metarep.encoders import Encoder
from metarep.learners.copies import Copies
from metarep.learners.learner import Learner, State
from metarep.learners.linear import Linear


class AugmentedLinear(Linear):
    """Logistic regression on unit-length features of augmented copies of the support, as in RFS.

    Tian et al., Rethinking Few-Shot Image Classification: a Good Embedding Is All You Need?, 2020, whose strength is 1
    (``C=1`` in scikit-learn) and who make five copies of each support image. The copies are made before the encoder, so
    the encoder computes ``1 + copies`` rows for each image. The first is of the plain image, and queries are classified
    by it. All images get the same few random transforms, which are drawn once: the rows of an image never depend on
    other images.

    Args:
        encoder: the representation.
        copies: number of augmented copies of an image.
        augment: name of the preset of augmentations; ``auto`` is ``drawings`` for drawings and otherwise ``photos``.
        strength: L2 regularisation; see :class:`metarep.learners.Linear`.
        average: classify queries by the mean of the scores of all their copies (test-time augmentation).
        power, centre, balance: see :class:`metarep.learners.Linear`.

    Raises:
        MetarepError: ``copies`` is not from 0 to 64, there is no such preset, or a setting of ``Linear`` is invalid.

    >>> import torch
    >>> from metarep.encoders import Preprocess
    >>> learner = AugmentedLinear(Encoder(torch.nn.Flatten(), Preprocess((4, 4), 1, (0.0,), (1.0,))), copies=3)
    >>> image = torch.arange(0, 256, 16, dtype=torch.uint8).view(1, 1, 4, 4)
    >>> rows = learner.prepare(torch.cat([image, image]))  # image, view, feature
    >>> rows[:1, 0].equal(learner.embed(image)), rows[0, 1].equal(rows[0, 0])  # the first view is the plain image
    (True, False)
    >>> rows[0].equal(rows[1])  # all images get the same transforms
    True
    """

    of_copies = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        copies: int = 5,
        augment: str = "auto",
        strength: float = 1.0,
        average: bool = False,
        power: float = 1.0,
        centre: bool = False,
        balance: bool = False,
    ) -> None:
        super().__init__(encoder, "logistic", strength, power=power, centre=centre, balance=balance)
        self.views = Copies(copies, augment, encoder.preprocess)
        self.copies, self.augment, self.average = copies, augment, average

    @property
    def kind(self) -> str:
        return "augmented, averaged" if self.average else "augmented"

    @property
    def settings(self) -> dict[str, Any]:
        names = ("copies", "augment", "strength", "average", "power", "centre", "balance")
        return {name: getattr(self, name) for name in names}

    def prepare(self, x: Num[Tensor, "b c h w"]) -> Float[Tensor, "b views dim"]:
        """The features of each image and of its augmented copies; the first view is the image itself."""
        return self.views.features(self.embed, x)

    def features_of(self, rows: Float[Tensor, "n views dim"]) -> Float[Tensor, "n dim"]:
        """The features of the plain images."""
        return rows[:, 0]

    def adapt(
        self, support: Float[Tensor, "task support views dim"], labels: Int[Tensor, "task support"], ways: int
    ) -> State:
        """The classifier of all views of the support; see :meth:`Linear.adapt`."""
        return super().adapt(support.flatten(1, 2), labels.repeat_interleave(support.shape[2], 1), ways)

    def logits(self, state: State, query: Float[Tensor, "task query views dim"]) -> Float[Tensor, "task query ways"]:
        """The linear scores of the plain images; with ``average``, the mean of those of all views."""
        if not self.average:
            return super().logits(state, query[:, :, 0])
        return super().logits(state, query.flatten(1, 2)).unflatten(1, query.shape[1:3]).mean(2)

    def held_out(
        self,
        support: Float[Tensor, "n views dim"],
        labels: Int[Tensor, " n"],
        ways: int,
        folds: Sequence[Int[Tensor, " _"]],
    ) -> Float[Tensor, "tested ways"]:
        """Cross-validation scores; all views of an image are left out together."""
        return Learner.held_out(self, support, labels, ways, folds)
