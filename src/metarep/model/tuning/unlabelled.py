"""adapt: an encoder learns from unlabelled images, if it then classifies the labelled ones better."""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Generator, Tensor, nn
from torch.nn import functional

from metarep.data.copies.near_copies import near_copies
from metarep.data.copies.picture_hash import picture_hash
from metarep.errors import MetarepError
from metarep.methods.contrastive import Projector, nt_xent
from metarep.model.model import Model
from metarep.model.trust.folds import deal_folds
from metarep.model.trust.units import join_groups
from metarep.model.tuning.budget import halves_for, takes_too_long
from metarep.model.tuning.clock import Clock
from metarep.model.tuning.fitting import Prepared, add_views, prepare, train_tail
from metarep.model.tuning.tailored import check_images, encoder_of, others_than, scores_of, too_few, tunable, with_tail
from metarep.model.tuning.unfinished import Unfinished, key_of
from metarep.model.tuning.verdict import Verdict, judge
from metarep.weights.representation import Representation

MOST = 600  # unlabelled images that are learned from; of more, so many are drawn at random
LEAST = 32  # unlabelled images: with fewer there is little to contrast an image with
STEPS, TEMPERATURE, HIDDEN, OUTPUTS = 30, 0.2, 512, 128  # chosen on classes that no table measures


def adapt_model(
    model: Model,
    images: UInt8[Tensor, "n c h w"],
    labels: Sequence[str],
    unlabelled: UInt8[Tensor, "m c h w"],
    on_progress: Callable[[float], None] | None = None,
    unfinished: Unfinished | None = None,
    groups: Sequence[str] | None = None,
) -> tuple[Model, Verdict]:
    """Adapts the encoder of a model without images to unlabelled images, if that is better for the labelled ones.

    Args:
        model: a model with an encoder and without images.
        images: labelled images at the size of the encoder, as :meth:`Model.read` yields them.
        labels: their classes.
        unlabelled: images of the same domain, at the same size, and of any class.
        on_progress: called with the finished share, from 0 to 1.
        unfinished: keeps the adapted layers until the model is made, so that a command that is killed goes on.
        groups: see :func:`metarep.model.tuning.tune.tune`.

    Returns:
        A model without images whose encoder is adapted, or the given model if that was not better; and the verdict. See
        :func:`adapt`.

    Raises:
        MetarepError: the model has images already or no encoder, its encoder or its learner cannot be tuned, or there
            are fewer than 32 unlabelled images.

    >>> model = Model(None, {"name": "prototypes"})
    >>> adapt_model(model, torch.zeros(1, 1, 8, 8, dtype=torch.uint8), ["moth"], torch.zeros(1, 1, 8, 8).byte())
    Traceback (most recent call last):
    metarep.errors.MetarepError: the model has no encoder, so it cannot be tuned; tune a new model of an encoder
    """
    start, names = encoder_of(model), [model.gallery.called(label) for label in labels]
    adapted, verdict = adapt(
        start,
        images,
        names,
        unlabelled,
        head=model.head,
        on_progress=on_progress,
        unfinished=unfinished,
        groups=groups,
    )
    if adapted is start:
        return model, verdict
    about = {"false_alarms": model.false_alarms, "depth": model.depth, "adapting": verdict}
    return Model(adapted, model.head, **about), verdict


def adapt(
    representation: Representation,
    images: UInt8[Tensor, "n c h w"],
    labels: Sequence[str],
    unlabelled: UInt8[Tensor, "m c h w"],
    *,
    head: dict[str, Any] | None = None,
    on_progress: Callable[[float], None] | None = None,
    unfinished: Unfinished | None = None,
    groups: Sequence[str] | None = None,
) -> tuple[Representation, Verdict]:
    """Adapts an encoder to unlabelled images by SimCLR, and keeps that only if labelled images are classified better.

    Low-rank updates (:mod:`metarep.encoders.low_rank`) of the last layers learn to find the other view of an image
    among all views of a batch (Chen et al. 2020). No label is read for that. Then labelled images are left out in
    folds, near copies together, and a classifier of the others answers for them with the features before and after
    (:func:`metarep.model.tuning.verdict.judge` says when the new ones are better). The encoder has not seen the
    labelled images, unless they are among the unlabelled ones too.

    Args:
        representation: the encoder, which is not changed.
        images, labels: labelled images at the size of the encoder, and their classes.
        unlabelled: images of the same domain at the same size. Of more than 600, so many are drawn at random.
        head: name and settings of the learner, as for :class:`metarep.model.model.Model`.
        on_progress: called with the finished share, from 0 to 1.
        unfinished: keeps the adapted layers until the model is made, so that a command that is killed goes on.
        groups: see :func:`metarep.model.tuning.tune.tune`.

    Returns:
        The adapted representation, or the given one if it was not better; and the verdict. If fewer than 20 labelled
        images can be left out, nothing is adapted, because nothing could tell whether it helps. Nor is a network that
        would take longer than five minutes for 100 images.

    Raises:
        MetarepError: the encoder is an ONNX graph, the learner does not compare features, there are fewer than 32
            unlabelled images, or images and labels are not as described.
    """
    check_images(representation.encoder, images, labels)
    encoder, learner = representation.encoder, tunable(representation, head, images[:1])
    check_images(encoder, unlabelled)
    unlabelled = _others(unlabelled, images)
    if len(unlabelled) < LEAST:
        raise MetarepError(
            f"at least {LEAST} unlabelled images are needed to learn from them, not {len(unlabelled)}; copies of "
            "labelled ones do not count"
        )
    names = list(dict.fromkeys(labels))
    classes, ways = torch.tensor([names.index(label) for label in labels]), len(names)
    some = torch.randperm(len(unlabelled), generator=Generator().manual_seed(0))[:MOST]
    halves = halves_for(encoder, len(some), 2 * STEPS)  # two views of each image
    labelled = prepare(halves, images, Clock())
    began = time.perf_counter()
    frozen = labelled.rows(labelled.halves.tail)
    seconds = (time.perf_counter() - began) / (len(images) * len(labelled.plain))
    units = near_copies(functional.normalize(frozen, dim=-1), picture_hash(images))
    units = join_groups(units, groups or [""] * len(classes), classes)
    folds = deal_folds(classes, units)
    tested = len(torch.cat(folds).unique()) if folds else 0
    if why := too_few(ways, tested, "labelled image"):
        return representation, Verdict(False, why=why)
    kept, piece = unfinished or Unfinished(), key_of(representation, None, (), unlabelled[some])
    weights = kept.get(piece)
    if weights is None:
        clock, own = Clock(on_progress), unlabelled[some]
        prepared = prepare(halves, own, clock, 2 * STEPS)
        step = 3 * 2 * min(prepared.batch, len(own)) * seconds  # forward and back
        if too_long := takes_too_long(STEPS * step, len(own)):
            return representation, Verdict(False, why=too_long)
        clock.expect(step=step)
        clock.plan(view=prepared.more_views + len(prepared.plain), step=STEPS)
        weights = kept.put(piece, _contrasted(add_views(prepared, own, clock), clock).state_dict())
    tail = copy.deepcopy(labelled.halves.tail)
    tail.load_state_dict(weights)
    before, after = (
        torch.cat([scores_of(learner, rows, classes, ways, others_than(fold, len(classes)), fold) for fold in folds])
        for rows in (frozen, labelled.rows(tail))
    )
    verdict = judge(before, after, torch.cat(folds), classes, len(folds), units, surely=True)
    verdict = replace(verdict, unlabelled=len(some))
    if not verdict.kept:
        return representation, verdict
    return with_tail(representation, tail, images, "adapted"), verdict


def _others(unlabelled: UInt8[Tensor, "m c h w"], labelled: UInt8[Tensor, "n c h w"]) -> UInt8[Tensor, "k c h w"]:
    """The unlabelled images that are not the same picture as a labelled one, under whatever name."""
    own = {row.tobytes() for row in picture_hash(labelled).numpy()}
    keep = torch.tensor([row.tobytes() not in own for row in picture_hash(unlabelled).numpy()], dtype=torch.bool)
    return unlabelled[keep]


def _contrasted(prepared: Prepared, clock: Clock) -> nn.Module:
    """The tail of an encoder after it has contrasted views of the images. The projector is thrown away."""
    count, images = prepared.views.shape[:2]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        projector = Projector(prepared.halves.encoder.dim, OUTPUTS, hidden=HIDDEN)

    def loss_of(tail: nn.Module, batch: Tensor, generator: Generator) -> Tensor:
        one = torch.randint(count, (len(batch),), generator=generator)
        other = (one + torch.randint(1, count, (len(batch),), generator=generator)) % count
        found = tail(torch.cat([prepared.views[one, batch], prepared.views[other, batch]]))
        first, second = projector(found).chunk(2)
        return nt_xent(first, second, TEMPERATURE)

    return train_tail(prepared, torch.arange(images), STEPS, loss_of, list(projector.parameters()), clock)
