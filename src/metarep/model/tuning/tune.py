"""tune: an encoder learns from labelled images, if it is then better on images that were left out of it."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn import functional

from metarep.data.copies.near_copies import near_copies
from metarep.data.copies.picture_hash import picture_hash
from metarep.encoders.norm_statistics import batch_norms
from metarep.model.model import Model
from metarep.model.trust.familiarity import familiarity
from metarep.model.trust.folds import deal_folds, images_left
from metarep.model.trust.points import PLAIN
from metarep.model.trust.threshold import quantile_of
from metarep.model.trust.trust import HeldOut, measure_trust
from metarep.model.trust.units import join_groups
from metarep.model.tuning.budget import halves_for, takes_too_long
from metarep.model.tuning.clock import Clock
from metarep.model.tuning.fitting import add_views, expect_times, fit_tail, prepare, steps_of
from metarep.model.tuning.tailored import (
    check_images,
    encoder_of,
    others_than,
    scores_of,
    too_few,
    tunable,
    with_statistics,
    with_tail,
)
from metarep.model.tuning.unfinished import Unfinished, key_of
from metarep.model.tuning.verdict import Tuning, Verdict, judge
from metarep.weights.representation import Representation

FOLDS = 5  # at most; every fold is a tuning of its own


def tune_model(
    model: Model,
    images: UInt8[Tensor, "n c h w"],
    labels: Sequence[str],
    on_progress: Callable[[float], None] | None = None,
    unfinished: Unfinished | None = None,
    groups: Sequence[str] | None = None,
) -> tuple[Model, Verdict]:
    """Tunes the encoder of a model without images, and keeps that only if it is better on images that were left out.

    Args:
        model: a model with an encoder and without images.
        images: at the size of the encoder, as :meth:`Model.read` yields them.
        labels: their classes.
        on_progress: called with the finished share, from 0 to 1.
        unfinished: keeps what is finished, so that a tuning that is killed goes on from there.
        groups: see :func:`tune`.

    Returns:
        A model without images whose encoder is tuned, or the given model if it was not better; and the verdict. See
        :func:`tune`.

    Raises:
        MetarepError: the model has images already or no encoder, or its encoder or its learner cannot be tuned.

    >>> model = Model(None, {"name": "prototypes"})
    >>> tune_model(model, torch.zeros(1, 1, 8, 8, dtype=torch.uint8), ["moth"])
    Traceback (most recent call last):
    metarep.errors.MetarepError: the model has no encoder, so it cannot be tuned; tune a new model of an encoder
    """
    start = encoder_of(model)
    names, alarms = [model.gallery.called(label) for label in labels], model.false_alarms
    representation, tuning, verdict = tune(
        start,
        images,
        names,
        head=model.head,
        false_alarms=alarms,
        on_progress=on_progress,
        unfinished=unfinished,
        groups=groups,
    )
    if tuning is None:
        return model, verdict
    return Model(representation, model.head, false_alarms=alarms, depth=model.depth, tuning=tuning), verdict


def tune(
    representation: Representation,
    images: UInt8[Tensor, "n c h w"],
    labels: Sequence[str],
    *,
    head: dict[str, Any] | None = None,
    false_alarms: float = 0.05,
    on_progress: Callable[[float], None] | None = None,
    unfinished: Unfinished | None = None,
    groups: Sequence[str] | None = None,
) -> tuple[Representation, Tuning | None, Verdict]:
    """Adapts an encoder to labelled images, and keeps the change only if it is better on images that were left out.

    Batch norms first get a part of the statistics of the images, for which no label is read
    (:func:`metarep.encoders.norm_statistics.mix_statistics`). Then low-rank updates (:mod:`metarep.encoders.low_rank`)
    of the last layers are trained with augmented views, in a few seconds for each of up to five folds. Each fold leaves
    out images of every class, near copies together; the frozen encoder and the encoder that was tuned on the others
    both classify them (:func:`judge` says when the latter is better). If it is, the encoder is tuned once more, on all
    images.

    Args:
        representation: the encoder, which is not changed.
        images: at the size of the encoder, as :meth:`Model.read` yields them.
        labels: the class of each image.
        head: name and settings of the learner, as for :class:`Model`.
        false_alarms: see :class:`metarep.model.trust.trust.Trust`.
        on_progress: called with the finished share, from 0 to 1.
        unfinished: keeps what each fold gave, so that a tuning that is killed goes on from there.
        groups: what each image shows, such as one specimen, or an empty text. Images of a class and a group are left
            out together.

    Returns:
        The tuned representation, or the given one if it was not better; what the model is to remember of it, or None;
        and the verdict. A class of a single image is learned but not tested. If fewer than 20 images can be left out,
        nothing is tuned, because nothing could tell whether it helps. Nor is a network that would take longer than five
        minutes for 100 images.

    Raises:
        MetarepError: the encoder is an ONNX graph, or the learner does not compare features.
    """
    check_images(representation.encoder, images, labels)
    learner = tunable(representation, head, images[:1])
    names = list(dict.fromkeys(labels))
    classes, ways = torch.tensor([names.index(label) for label in labels]), len(names)
    clock = Clock(on_progress)
    clock.expect(score=0.0)
    planned = [len(classes) // FOLDS] * min(FOLDS, int(classes.bincount().max()))
    mixes = bool(batch_norms(representation.encoder))
    _plan(clock, len(classes), planned, 1 + mixes)
    steps = steps_in(len(classes), planned)
    prepared = prepare(halves_for(representation.encoder, len(images), steps), images, clock, steps)
    sides = len(prepared.plain)
    clock.plan(view=sides + prepared.more_views + mixes * (1 + sides))
    expect_times(prepared, classes, ways, clock)
    if too_long := takes_too_long(clock.left() or 0.0, len(classes)):
        return representation, None, Verdict(False, why=too_long)
    frozen = start = prepared.rows(prepared.halves.tail)
    clock.finished("pass")
    groups = groups or [""] * len(classes)
    units = join_groups(near_copies(functional.normalize(frozen, dim=-1), picture_hash(images)), groups, classes)
    folds = deal_folds(classes, units, most=FOLDS)
    folds = folds[: min(FOLDS, max((len(units[classes == each].unique()) for each in range(ways)), default=0))]
    tested = len(torch.cat(folds).unique()) if folds else 0
    if why := too_few(ways, tested, "image"):
        return representation, None, Verdict(False, why=why)
    clock.passed()
    mixed = representation
    if mixes:
        mixed = with_statistics(representation, images)
        clock.finished("view")
        prepared = prepare(halves_for(mixed.encoder, len(images), steps), images, clock, steps)
        start = prepared.rows(prepared.halves.tail)
        clock.finished("pass")
    prepared = add_views(prepared, images, clock)
    kept = unfinished or Unfinished()
    key = key_of(representation, head, labels, images, groups=groups)
    pieces = {f"{key}-{number}": fold for number, fold in enumerate(folds)}
    _plan(clock, len(classes), [len(fold) for piece, fold in pieces.items() if kept.get(piece) is None], 1 + mixes)
    clock.passed()
    found: list[dict[str, Tensor]] = []
    for piece, fold in pieces.items():
        others = others_than(fold, len(classes))
        given = kept.get(piece)
        if given is None:
            rows = prepared.rows(fit_tail(prepared, start, classes, ways, others, clock))
            clock.finished("pass")
            after = scores_of(learner, rows, classes, ways, others, fold)
            near = familiarity(PLAIN.points(rows[others]), classes[others], ways).score(PLAIN.points(rows[fold]))
            given = kept.put(piece, {"after": after, "near": near})
            clock.finished("score")
        found.append(given | {"before": scores_of(learner, frozen, classes, ways, others, fold)})
    before, after, near = (torch.cat([each[name] for each in found]) for name in ("before", "after", "near"))
    left = torch.cat(folds)
    verdict = judge(before, after, left, classes, len(folds), units)
    if not verdict.kept:
        return representation, None, verdict
    tail = fit_tail(prepared, start, classes, ways, torch.arange(len(classes)), clock)
    tuned = with_tail(mixed, tail, images, "tuned")
    held = HeldOut(after, left, images_left(folds, classes, ways))
    known = quantile_of(held.each(near)[1], ways, false_alarms)
    trust = measure_trust(held, classes, ways, false_alarms, known=known, units=units).lowered(verdict.discount)
    return tuned, Tuning(verdict, trust, tuple(names)), verdict


def _plan(clock: Clock, images: int, folds: Sequence[int], starts: int) -> None:
    """Tells a clock what is to do: a tuning without each fold, of so many images, and one on all images."""
    clock.plan(**{"step": steps_in(images, folds), "pass": starts + len(folds), "score": len(folds)})


def steps_in(images: int, folds: Sequence[int]) -> int:
    """The number of steps of a tuning without each fold, of so many images, and of one on all images."""
    return sum(steps_of(images - fold) for fold in folds) + steps_of(images)
