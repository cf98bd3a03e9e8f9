"""How features differ within a class, or between views of one image: an encoder keeps it, and some learners use it."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn import functional

from metarep.data.augment import Augment
from metarep.data.images import ImageBank
from metarep.data.labels import Labels
from metarep.data.split import Split
from metarep.encoders.encoder import Encoder, computing
from metarep.encoders.feature_means import centred, device_of, features_at, keep_feature_means, spaced
from metarep.encoders.modes import evaluating
from metarep.errors import MetarepError, counted

CLASSES, A_CLASS = 64, 16  # at most so many are used; with 300 images a class, accuracies differed by up to 0.2 points
IMAGES, VIEWS = 256, 4  # images that are looked at, and views of each; four times as many gained 0.4 to 0.9 points
MOST = 2048  # features; the spread of so many takes 16 MB
SPREAD = "feature_spread"  # its name among the tensors of a file


def keep_feature_statistics(encoder: Encoder, split: Split, views: Augment | None = None) -> None:
    """Let an encoder keep the means and the spread of its features of its training images.

    Args:
        encoder: changed in place. It keeps its mode.
        split: the images and their classes, which are not read if there are views.
        views: the augmentation that makes views of an image. The spread is then that of views, and otherwise that
            within classes.

    Raises:
        MetarepError: the bank is empty, or a feature is NaN or infinite.
    """
    keep_feature_means(encoder, split.bank)
    if views is not None:
        keep_view_spread(encoder, split.bank, views)
    else:
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
    apart = torch.cat([part - part.mean(0) for part in every.split([len(each) for each in rows])])
    encoder.feature_spread = _spread(apart.mT @ apart / (len(apart) - len(rows)), encoder)


@torch.no_grad()
def keep_view_spread(encoder: Encoder, bank: ImageBank, augment: Augment) -> None:
    """Let an encoder keep how its features differ between views of one image, in ``encoder.feature_spread``.

    This needs no labels. A network without labels is trained to give all views of an image the same features, so what
    still differs says little about its class. What is kept has the form that :func:`keep_feature_spread` gives it.
    ``VIEWS`` views of at most ``IMAGES`` images are looked at, and they are always the same ones.

    Args:
        encoder: changed in place. It keeps its mode.
        bank: images that the encoder may know, such as its training images.
        augment: makes the views, such as the augmentation of the training.

    Raises:
        MetarepError: the encoder keeps no means, or a feature is NaN or infinite.

    >>> from metarep import Augment, Preprocess
    >>> encoder = Encoder(torch.nn.Flatten(), Preprocess((1, 2), 1, (0.0,), (1.0,)))
    >>> bank = ImageBank(torch.tensor([[[[9, 9]]], [[[9, 0]]]], dtype=torch.uint8))
    >>> keep_feature_means(encoder, bank)
    >>> keep_view_spread(encoder, bank, Augment(flip=0.5))
    >>> least, most = encoder.feature_spread[0].tolist()  # a mirrored image differs in one direction alone
    >>> round(least, 3), most > 0.1
    (0.0, True)
    """
    if encoder.dim > MOST:
        encoder.feature_spread = None
        return
    rows, generator = spaced(len(bank), IMAGES), Generator().manual_seed(0)
    draws = [augment.draw(len(rows), generator, aspect=bank.size[1] / bank.size[0]) for _ in range(VIEWS)]
    total = torch.zeros(encoder.dim, encoder.dim, dtype=torch.float64)
    held = torch.isin(rows, bank.held(rows)).nonzero().flatten()
    with evaluating(encoder), computing(encoder, "float32"):
        for part in held.split(64):
            pixels = bank.pixels(rows[part]).to(device_of(encoder))
            views = [centred(encoder(augment.apply(pixels, draw[part])), encoder).cpu() for draw in draws]
            together = torch.stack(views).double()
            apart = (together - together.mean(0)).flatten(0, 1)
            total += apart.mT @ apart
    total = bank.gathered(total.unsqueeze(0)).sum(0)
    encoder.feature_spread = _spread(total / (len(rows) * (VIEWS - 1)), encoder)


def _spread(covariance: Float[Tensor, "dim dim"], encoder: Encoder) -> Float[Tensor, "rows dim"]:
    """What an encoder keeps of a covariance of its features: variances, and below them their principal directions.

    Raises:
        MetarepError: a value is NaN or infinite.
    """
    if not bool(covariance.isfinite().all()):
        raise MetarepError("a feature of these images is NaN or infinite; a weight or an image is the cause")
    variances, directions = torch.linalg.eigh(covariance)
    return torch.cat([variances.clamp_min(0).unsqueeze(0), directions.mT]).float().to(device_of(encoder))


def whitened(rows: Float[Tensor, "*n dim"], encoder: Encoder, share: float) -> Float[Tensor, "*n dim"]:
    """Centred features whose variances within classes, or between views, are evened out, on the unit sphere.

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
            "has not ended, had no two images of a class, was by an earlier version, or was not ours",
            advice=(
                "metarep.keep_feature_spread(encoder, bank, labels), or keep_view_spread without labels, measures it",
                "take another learner",
            ),
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
