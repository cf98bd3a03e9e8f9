"""What tuning with labels and adapting without them share: what can be tuned, how it is tested, and what is kept."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Generator, Tensor, nn

from metarep.data.images import ImageBank
from metarep.encoders import Encoder, drop_feature_statistics, keep_feature_means
from metarep.encoders.norm_statistics import mix_statistics
from metarep.encoders.onnx import OnnxBody
from metarep.errors import Advice, MetarepError, counted
from metarep.learners import Learner
from metarep.model.head import build_head
from metarep.model.model import Model
from metarep.weights.representation import Representation

FEWEST = 20  # images that must be left out: fewer cannot say whether a change is better
SHARE = 0.06  # of the images in the statistics of batch norms; chosen on classes that no table measures
MOST = 256  # images from which statistics are taken


def encoder_of(model: Model) -> Representation:
    """The encoder of a model that has no images yet.

    Raises:
        MetarepError: the model has images already, or no encoder.
    """
    if model.representation is None or len(model.gallery):
        what = "has no encoder" if model.representation is None else "has images, whose features are of its encoder"
        raise MetarepError(f"the model {what}, so it cannot be tuned; tune a new model of an encoder")
    return model.representation


def check_images(encoder: Encoder, images: Tensor, labels: Sequence[str] | None = None) -> None:
    """Raise if images are not as :meth:`metarep.model.model.Model.read` yields them, or labels are not one for each.

    Args:
        encoder: gives the size and the number of channels.
        images: labelled or unlabelled images.
        labels: their classes, if they have any.

    Raises:
        MetarepError: the images have another shape or type, or the labels another number.
    """
    wanted = (encoder.preprocess.channels, *encoder.preprocess.size)
    if images.dtype != torch.uint8 or images.ndim != 4 or tuple(images.shape[1:]) != wanted:
        raise MetarepError(
            f"images must be uint8 of the shape (n, {', '.join(map(str, wanted))}), not {images.dtype} of "
            f"{tuple(images.shape)}",
            advice="take what Model.read yields",
        )
    if labels is not None and len(labels) != len(images):
        raise MetarepError(f"{len(images)} images have {len(labels)} labels; give one for each")
    if labels is not None and not len(images):
        raise MetarepError("there are no labelled images; give some of each class")


def tunable(representation: Representation, head: dict[str, Any] | None, image: UInt8[Tensor, "1 c h w"]) -> Learner:
    """The learner by which an encoder is tested before and after its tail is trained.

    Args:
        representation: the encoder.
        head: name and settings of the learner, as for :class:`metarep.model.model.Model`.
        image: any image at the size of the encoder.

    Raises:
        MetarepError: the encoder is an ONNX graph, or the learner does not compare features.
    """
    encoder = representation.encoder
    if isinstance(encoder.body, OnnxBody):
        raise MetarepError("an ONNX graph is frozen and cannot be tuned; fit without tuning, or with another encoder")
    learner = build_head(representation, head)[1].eval()
    with torch.no_grad():
        first = learner.prepare(image)
    if (
        first.ndim != 2
        or first.shape[1] != encoder.dim
        or sum(1 for _ in learner.parameters()) != sum(1 for _ in encoder.parameters())
    ):
        raise MetarepError(
            f"the learner {learner.called!r} does more than compare features of the encoder, so it cannot be tuned",
            advice=Advice("fit with {learner}", learner="prototypes"),
        )
    return learner


def too_few(ways: int, tested: int, what: str) -> str:
    """Why nothing can tell whether a change is better; empty if something can.

    Args:
        ways: number of classes.
        tested: number of images that can be left out.
        what: what they are called.

    >>> too_few(1, 24, "image"), too_few(6, 12, "image")
    ('there is one class only', '12 images can be left out, and 20 are needed to tell whether it helps')
    """
    if ways < 2:
        return "there is one class only"
    if tested >= FEWEST:
        return ""
    can = f"{counted(tested, what)} can be left out" if tested else "no class has a second image to test with"
    return f"{can}, and {FEWEST} are needed to tell whether it helps"


def others_than(fold: Int[Tensor, " k"], images: int) -> Int[Tensor, " m"]:
    """The positions of the images that a fold does not leave out.

    >>> others_than(torch.tensor([1, 3]), 5).tolist()
    [0, 2, 4]
    """
    return torch.ones(images, dtype=torch.bool).index_fill(0, fold, False).nonzero().flatten()


def scores_of(
    learner: Learner,
    rows: Float[Tensor, "n dim"],
    classes: Int[Tensor, " n"],
    ways: int,
    others: Int[Tensor, " m"],
    fold: Int[Tensor, " k"],
) -> Float[Tensor, "k ways"]:
    """The scores of the images of a fold, by a classifier of the others.

    Args:
        learner: makes the classifier.
        rows: the features of all images.
        classes: their class indices.
        ways: number of classes.
        others: the images that the classifier learns from.
        fold: the images that it is asked about.
    """
    with torch.no_grad():
        state = learner.adapt(rows[others].unsqueeze(0), classes[others].unsqueeze(0), ways)
        return learner.logits(state, rows[fold].unsqueeze(0))[0]


def with_statistics(representation: Representation, images: UInt8[Tensor, "n c h w"]) -> Representation:
    """A copy of a representation whose batch norms have a part of the statistics of images.

    Args:
        representation: the encoder, which is not changed.
        images: at its size. Of more than 256, so many are drawn at random.
    """
    new = copy.deepcopy(representation)
    some = torch.randperm(len(images), generator=Generator().manual_seed(0))[:MOST]
    mix_statistics(new.encoder, images[some], SHARE)
    return replace(new)  # so that its digest is its own


def with_tail(
    representation: Representation, tail: nn.Module, images: UInt8[Tensor, "n c h w"], how: str
) -> Representation:
    """A copy of a representation with another tail.

    Args:
        representation: the encoder, which is not changed.
        tail: the trained tail.
        images: those from which the mean features are taken again, if the encoder has any.
        how: what was done, which is added to the name.
    """
    new = copy.deepcopy(representation)
    new.encoder.body.load_state_dict(new.encoder.body.state_dict() | tail.state_dict())
    means = new.encoder.feature_means
    drop_feature_statistics(new.encoder)
    if means is not None:
        keep_feature_means(new.encoder, ImageBank(images))
    return replace(new, name=f"{representation.name}, {how}")
