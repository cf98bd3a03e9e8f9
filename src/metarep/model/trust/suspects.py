"""Suspects: images of a model that look as if they were in the wrong class."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from metarep.model.trust.trust import HeldOut

DOUBTED = 0.1  # an image whose own class gets less than this, and another more than half, looks mislabelled


@dataclass(frozen=True)
class Suspect:
    """An image that looks as if it were in the wrong class.

    Args:
        row: its row in the gallery.
        likelier: the index of the class that it looks like.
        probability: the probability of that class, between 0 and 1, when the image is left out.

    >>> suspects = [Suspect(4, 1, 0.6), Suspect(2, 0, 0.98)]
    >>> max(suspects, key=lambda suspect: suspect.probability).row  # the image to look at first
    2
    """

    row: int
    likelier: int
    probability: float


def find_suspects(held: HeldOut, classes: Int[Tensor, " n"], scale: float) -> list[Suspect]:
    """Finds images that look mislabelled.

    An image is a suspect if its own class gets a probability below 0.1 and another class gets more than 0.5. The
    probabilities are averaged over the times that an image was left out, so that one unlucky fold is not enough.

    Args:
        held: the scores of the images that were left out.
        classes: the class index of each image of the gallery, shape ``(n,)``.
        scale: the factor on the scores; see :class:`Trust`.

    Returns:
        The suspects, the most probable first.

    >>> scores = torch.tensor([[4.0, 0.0], [0.0, 4.0], [4.0, 0.0]])  # the last image is in class 1, and looks like 0
    >>> held = HeldOut(scores, rows=torch.arange(3))
    >>> [suspect] = find_suspects(held, torch.tensor([0, 1, 1]), scale=1.0)
    >>> suspect.row, suspect.likelier, round(suspect.probability, 2)
    (2, 0, 0.98)
    """
    labels = classes[held.rows]
    probabilities = (held.scores * scale).softmax(-1)
    images, own = held.each(probabilities.gather(1, labels.unsqueeze(1)).flatten())
    position = torch.full((len(classes),), -1).scatter(0, images, torch.arange(len(images)))[held.rows]
    sums = probabilities.new_zeros(len(images), probabilities.shape[1]).index_add(0, position, probabilities)
    best, likelier = (sums / position.bincount().unsqueeze(1)).max(-1)
    doubted = ((own < DOUBTED) & (best > 0.5)).nonzero().flatten().tolist()
    suspects = [Suspect(int(images[i]), int(likelier[i]), best[i].item()) for i in doubted]
    return sorted(suspects, key=lambda suspect: -suspect.probability)
