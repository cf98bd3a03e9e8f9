"""The mean features of training images: computed once, kept by the encoder, and subtracted by some learners."""

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from metarep.data.images import ImageBank
from metarep.encoders.encoder import Encoder, computing
from metarep.encoders.modes import evaluating
from metarep.errors import MetarepError

POWERS = (1.0, 0.5)  # a mean is kept of the features after each of these powers
MOST = 1024  # images; with 128 to 1,536 of them, accuracies differed by less than 0.05 points
LEAST = 1e-12  # a smaller absolute value becomes 0 under a power; the derivative of a root is infinite at 0


def powered(rows: Float[Tensor, "*n dim"], power: float) -> Float[Tensor, "*n dim"]:
    """The power transform: each feature to a power by its absolute value, with its own sign.

    A power below 1 reduces the weight of the few largest features. Hu, Gripon, Pateux, Leveraging the Feature
    Distribution in Transfer-based Few-Shot Learning, 2021, take 0.5. They apply it to features after a ReLU, which have
    no sign; with the sign it can be applied to any features.

    Args:
        rows: features.
        power: the exponent, above 0; 1 returns the rows themselves.

    >>> powered(torch.tensor([4.0, -9.0, 0.0]), 0.5)
    tensor([ 2., -3.,  0.])
    """
    return rows if power == 1 else rows.sign() * rows.abs().clamp_min(LEAST).pow(power)


@torch.no_grad()
def keep_feature_means(encoder: Encoder, bank: ImageBank, *, most: int = MOST) -> None:
    """Let an encoder keep the means of its features of some images, in ``encoder.feature_means``.

    The images should be of classes that the encoder may know, such as its training images, and never of the classes to
    be measured. Features are taken to each of ``POWERS`` and put on the unit sphere; the means are of these. They are
    computed in float32 with running statistics, as features are when they are deployed. They are not weights: no digest
    of the encoder depends on them.

    Args:
        encoder: changed in place. It keeps its mode.
        bank: the images.
        most: the largest number of images to encode. They are evenly spaced in the bank.

    Raises:
        MetarepError: the bank is empty, or a mean is NaN or infinite.

    >>> from metarep import Preprocess
    >>> encoder = Encoder(torch.nn.Flatten(), Preprocess((1, 2), 1, (0.0,), (1.0,)))
    >>> keep_feature_means(encoder, ImageBank(torch.tensor([[[[0, 255]]], [[[255, 0]]]], dtype=torch.uint8)))
    >>> encoder.feature_means
    tensor([[0.5000, 0.5000],
            [0.5000, 0.5000]])
    """
    if not len(bank):
        raise MetarepError("there are no images to take the mean features of; give at least one")
    rows = spaced(len(bank), most)
    totals = torch.zeros(len(POWERS), encoder.dim, dtype=torch.float64)
    for features in features_at(encoder, bank, rows):
        totals += len(features) * means_of(features)
    totals = bank.gathered(totals.unsqueeze(0)).sum(0)
    if not bool(totals.isfinite().all()):
        raise MetarepError("the mean feature of these images is NaN or infinite; a weight or an image is the cause")
    encoder.feature_means = (totals / len(rows)).float().to(device_of(encoder))
    encoder.feature_spread = None  # that of other means


def spaced(total: int, most: int) -> Int[Tensor, " n"]:
    """At most ``most`` of the numbers below ``total``, evenly spaced.

    >>> spaced(7, 3), spaced(2, 3)
    (tensor([0, 3, 6]), tensor([0, 1]))
    """
    return torch.linspace(0, total - 1, min(total, most)).round().long()


def features_at(encoder: Encoder, bank: ImageBank, rows: Int[Tensor, " n"]) -> list[Float[Tensor, "part dim"]]:
    """Features of those of some images that this process holds, a few at a time, on the CPU.

    They are in float32, with running statistics. The encoder keeps its mode.
    """
    held, device = bank.held(rows), device_of(encoder)
    with evaluating(encoder), computing(encoder, "float32"), torch.no_grad():
        return [encoder(bank.pixels(part).to(device)).cpu() for part in (held.split(128) if len(held) else ())]


def device_of(encoder: Encoder) -> torch.device:
    """The device of the weights of an encoder; the CPU if it has none."""
    return next(encoder.parameters(), torch.zeros(())).device


def means_of(features: Float[Tensor, "n dim"]) -> Float[Tensor, "power dim"]:
    """The means that an encoder keeps of these features, in float64: one for each of ``POWERS``, on the unit sphere.

    Args:
        features: features of images.

    >>> means_of(torch.tensor([[0.0, 2.0], [4.0, 0.0]])).tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    """
    rows = features.double()
    return torch.stack([functional.normalize(powered(rows, power)).mean(0) for power in POWERS])


def centred(rows: Float[Tensor, "*n dim"], encoder: Encoder, power: float = 1.0) -> Float[Tensor, "*n dim"]:
    """Features after a power, on the unit sphere, minus the training mean of such features, on the unit sphere again.

    What all images have in common then has no effect.

    Args:
        rows: features of the encoder.
        encoder: keeps the means.
        power: one of ``POWERS``.

    Raises:
        MetarepError: the encoder keeps no means.

    >>> from metarep import Preprocess
    >>> encoder = Encoder(torch.nn.Flatten(), Preprocess((1, 2), 1, (0.0,), (1.0,)))
    >>> encoder.feature_means = torch.tensor([[0.6, 0.0], [0.6, 0.0]])
    >>> centred(torch.tensor([[6.0, 8.0]]), encoder)
    tensor([[0., 1.]])
    """
    mean = feature_means(encoder)[POWERS.index(power)].to(rows)
    return functional.normalize(functional.normalize(powered(rows, power), dim=-1) - mean, dim=-1)


def feature_means(encoder: Encoder) -> Float[Tensor, "power dim"]:
    """The means that an encoder keeps, one for each of ``POWERS``.

    Args:
        encoder: any encoder.

    Raises:
        MetarepError: it keeps none.
    """
    if encoder.feature_means is None:
        raise MetarepError(
            f"the encoder {encoder.arch['name']} keeps no mean of training features to subtract: its training has not "
            "ended, was by an earlier version, or was not ours",
            advice=("metarep.keep_feature_means(encoder, bank) takes one of given images", "take another learner"),
        )
    return encoder.feature_means


def read_feature_means(entry: Any, dim: int) -> Float[Tensor, "power dim"] | None:  # noqa: ANN401 - of a file
    """The means in the header of a file; None if it has none.

    Args:
        entry: the value of its entry ``feature_means``.
        dim: the number of features.

    Raises:
        TypeError: the value is not a finite number for each feature and power.

    >>> read_feature_means([[0.5, 1.0], [0.25, 1.0]], 2).shape, read_feature_means(None, 2)
    (torch.Size([2, 2]), None)
    """
    if entry is None:
        return None
    rows = [row for row in entry if isinstance(row, list) and len(row) == dim] if isinstance(entry, list) else []
    numbers = [each for row in rows for each in row if type(each) in (int, float) and math.isfinite(each)]
    if len(rows) != len(POWERS) or len(numbers) != dim * len(POWERS):
        raise TypeError(f"its entry 'feature_means' is not {len(POWERS)} rows of {dim} finite numbers")
    return torch.tensor(rows, dtype=torch.float32)
