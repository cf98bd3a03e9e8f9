"""How features of training images differ within their classes: kept by the encoder, and evened out by some learners."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from metarep.data.images import ImageBank
from metarep.data.labels import Labels
from metarep.data.split import Split
from metarep.encoders.encoder import Encoder
from metarep.encoders.feature_means import centred, device_of, features_at, keep_feature_means, spaced
from metarep.errors import MetarepError, counted

CLASSES, A_CLASS = 64, 16  # at most so many are used; with 300 images a class, accuracies differed by up to 0.2 points
MOST = 2048  # features; the spread of so many takes 16 MB
SPREAD = "feature_spread"  # its name among the tensors of a file


def keep_feature_statistics(encoder: Encoder, split: Split, *, labelled: bool = True) -> None:
    """Let an encoder keep the means and the spread of its features of its training images.

    Args:
        encoder: changed in place. It keeps its mode.
        split: the images and their classes.
        labelled: whether the classes may be read; otherwise no spread is kept.

    Raises:
        MetarepError: the bank is empty, or a feature is NaN or infinite.
    """
    keep_feature_means(encoder, split.bank)
    if labelled:
        keep_feature_spread(encoder, split.bank, split.labels)


def drop_feature_statistics(encoder: Encoder) -> None:
    """Let an encoder forget what belongs to its features of now, since its weights will change."""
    encoder.feature_means = encoder.feature_spread = encoder.classifier = None


def keep_feature_spread(encoder: Encoder, bank: ImageBank, labels: Labels) -> None:
    """Let an encoder keep how its features differ within classes, in ``encoder.feature_spread``.

    The features are as :func:`metarep.encoders.feature_means.centred` makes them, so the means must be kept before. The
    first row of what is kept is their variances within classes, along the principal directions of these, which are the
    other rows. At most ``CLASSES`` classes are looked at, and ``A_CLASS`` images of each. Nothing is kept of an encoder
    of more than ``MOST`` features, or if no class has two images.

    Args:
        encoder: changed in place. It keeps its mode.
        bank: images of classes that the encoder may know, such as its training images.
        labels: their classes.

    Raises:
        MetarepError: the encoder keeps no means, there is not one label for each image, or a feature is NaN or
            infinite.

    >>> from metarep import Preprocess
    >>> encoder = Encoder(torch.nn.Flatten(), Preprocess((1, 2), 1, (0.0,), (1.0,)))
    >>> bank = ImageBank(torch.tensor([[[[9, 0]]], [[[9, 2]]], [[[0, 9]]], [[[2, 9]]]], dtype=torch.uint8))
    >>> keep_feature_means(encoder, bank)
    >>> keep_feature_spread(encoder, bank, Labels.of(["a", "a", "b", "b"]))
    >>> variances, directions = encoder.feature_spread[0], encoder.feature_spread[1:]
    >>> [round(each, 3) for each in variances.tolist()], [round(each, 2) for each in directions.abs()[1].tolist()]
    ([0.0, 0.025], [0.71, 0.71])
    """
    if len(labels) != len(bank):
        raise MetarepError(f"there are {counted(len(bank), 'image')} and {counted(len(labels), 'label')}")
    members = [rows for rows in labels.rows.split(labels.counts.tolist()) if len(rows) > 1]
    if not members or encoder.dim > MOST:
        encoder.feature_spread = None
        return
    rows = [members[place][spaced(len(members[place]), A_CLASS)] for place in spaced(len(members), CLASSES)]
    features = [centred(part, encoder) for part in features_at(encoder, bank, torch.cat(rows))]
    every = bank.gathered(torch.cat(features) if features else torch.empty(0, encoder.dim)).double()
    if not bool(every.isfinite().all()):
        raise MetarepError("a feature of these images is NaN or infinite; a weight or an image is the cause")
    apart = torch.cat([part - part.mean(0) for part in every.split([len(each) for each in rows])])
    variances, directions = torch.linalg.eigh(apart.mT @ apart / (len(apart) - len(rows)))
    encoder.feature_spread = (
        torch.cat([variances.clamp_min(0).unsqueeze(0), directions.mT]).float().to(device_of(encoder))
    )


def whitened(rows: Float[Tensor, "*n dim"], encoder: Encoder, share: float) -> Float[Tensor, "*n dim"]:
    """Centred features whose variances within classes are evened out, on the unit sphere.

    Directions in which images of one class differ much say little about the class. So each direction is divided by the
    root of its variance, a mixture: ``share`` of its own, and the rest of the mean over all directions. This is
    within-class covariance normalisation (Hatch, Kajarekar, Stolcke, Within-class Covariance Normalization for
    SVM-based Speaker Recognition, 2006). The features come out in a basis of principal directions, which changes no
    distance and no angle.

    Args:
        rows: features of the encoder.
        encoder: keeps the means and the spread.
        share: from 0, with which nothing is evened out, to below 1: a variance that is measured on few images may be 0.

    Raises:
        MetarepError: the encoder keeps no spread.

    >>> from metarep import Preprocess
    >>> encoder = Encoder(torch.nn.Flatten(), Preprocess((1, 2), 1, (0.0,), (1.0,)))
    >>> encoder.feature_means = torch.zeros(2, 2)
    >>> encoder.feature_spread = torch.tensor([[1.0, 7.0], [1.0, 0.0], [0.0, 1.0]])
    >>> whitened(torch.tensor([[1.0, 2.0]]), encoder, 0.5)  # divided by the roots of 2.5 and 5.5
    tensor([[0.5957, 0.8032]])
    """
    spread = feature_spread(encoder).to(rows)
    variances = share * spread[0] + (1 - share) * spread[0].mean()
    scale = variances.clamp_min(torch.finfo(rows.dtype).tiny).rsqrt()
    return functional.normalize(centred(rows, encoder) @ spread[1:].mT * (scale / scale.max()), dim=-1)


def feature_spread(encoder: Encoder) -> Float[Tensor, "rows dim"]:
    """The spread that an encoder keeps; see :func:`keep_feature_spread`.

    Args:
        encoder: any encoder.

    Raises:
        MetarepError: it keeps none.
    """
    if encoder.feature_spread is None:
        raise MetarepError(
            f"the encoder {encoder.arch['name']} does not keep how its features differ within classes: its training "
            "has not ended, read no labels, was by an earlier version, or was not ours",
            advice=("metarep.keep_feature_spread(encoder, bank, labels) measures it", "take another learner"),
        )
    return encoder.feature_spread


def written_feature_spread(encoder: Encoder) -> dict[str, Tensor]:
    """What a file holds of the spread of an encoder, by name; empty if it keeps none."""
    return {} if encoder.feature_spread is None else {SPREAD: encoder.feature_spread}


def read_feature_spread(tensors: Mapping[str, Tensor], dim: int) -> Float[Tensor, "rows dim"] | None:
    """The spread among the tensors of a file; None if it has none.

    Args:
        tensors: the tensors of a file, by name.
        dim: the number of features.

    Raises:
        TypeError: the tensor has another shape, or a number that no spread has.

    >>> read_feature_spread({"feature_spread": torch.eye(3)[:, :2]}, 2).shape, read_feature_spread({}, 2)
    (torch.Size([3, 2]), None)
    """
    spread = tensors.get(SPREAD)
    if spread is None:
        return None
    right = spread.shape == (dim + 1, dim) and spread.dtype == torch.float32
    if not right or not bool(spread.isfinite().all()) or bool((spread[0] < 0).any()):
        raise TypeError(f"its tensor {SPREAD!r} is not {dim} variances and {dim} directions")
    return spread
