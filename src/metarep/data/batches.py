"""Batches of images to train on: labelled images, tasks or views, all drawn from a bank by one function."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor

from metarep.data.augment import Augment
from metarep.data.batch import Batch, BatchShape, LabelledBatch, LabelledViewBatch, TaskBatch, ViewBatch
from metarep.data.images import ImageBank
from metarep.data.labels import Labels
from metarep.data.strata import Strata
from metarep.data.superclasses import draw_tasks_within
from metarep.data.task_index import TaskIndex
from metarep.data.tasks import distinct, draw_tasks
from metarep.errors import Advice, DataError, MetarepError
from metarep.machine.ranks import Part, ranks

MANY = 1_000_000  # images above which the images of views are not drawn by permuting all of them
VIEW_PRESETS = "set augment to views-drawings, crops-drawings, views-32 or few-shot-84"


def draw_batch(
    eats: type[Batch],
    bank: ImageBank,
    labels: Labels,
    shape: BatchShape,
    augment: Augment | None,
    generator: Generator,
    *,
    spans: bool = True,
    within: bool = False,
    strata: Strata | None = None,
) -> Batch:
    """Draw one batch at random.

    Several processes with equal generators draw the same batch, and each gathers and augments its part of the images.

    Where each image is a class of its own (``labels.kind`` is ``instances``), the image is drawn once for every
    sample, and each sample is augmented independently.

    Args:
        eats: the type of the batch: ``LabelledBatch``, ``TaskBatch``, ``ViewBatch`` or ``LabelledViewBatch``.
        bank: the pixels.
        labels: the class of each image of the bank; not read for views.
        shape: the size of the batch.
        augment: applied to each image with its own random parameters; None for raw pixels.
        generator: a CPU generator; it decides which images are drawn and how they are augmented.
        spans: whether the loss compares images of the whole batch. Otherwise each process gets the labels of its own
            images. Of tasks each process gets whole ones; if there are fewer tasks than processes, and the loss spans
            the batch, the images of a task are split. It makes no difference in a single process.
        within: fill each task, or a labelled batch, with classes of one superclass, and of further ones only if it has
            too few (:func:`metarep.data.superclasses.draw_tasks_within`). It does not go with ``strata``.
        strata: the parts of the classes of which a batch takes equally much; None to draw from all classes alike. The
            bank then has the images in the order of their classes, and needs those of this process's parts only.

    Raises:
        DataError: the labels, or for views the bank, have too few images for ``shape``; or there are no superclasses.
        MetarepError: nothing can be learned from this shape, or views or instances have no augmentation.

    >>> bank, labels = ImageBank(torch.zeros(40, 1, 8, 8, dtype=torch.uint8)), Labels.of(list("abcd") * 10)
    >>> shape = BatchShape(ways=3, shots=2, queries=4, tasks=5)
    >>> batch = draw_batch(TaskBatch, bank, labels, shape, None, Generator().manual_seed(0))
    >>> len(batch.tasks), len(batch.images) == 5 * 3 * (2 + 4)
    (5, True)
    """
    if eats is ViewBatch:
        if within:
            raise MetarepError(
                "mine=superclass draws classes, and this method eats views, whose classes are never read; take "
                "mine=batch"
            )
        return _draw_views(bank, shape.images, augment, generator, spans, strata)
    check_shape(eats, shape)
    if eats is LabelledViewBatch:
        _refuse_equal_views(augment)
    labelled = issubclass(eats, LabelledBatch)
    if labels.kind == "instances" and augment is None:
        raise MetarepError(
            "each image is a class of its own; its samples are the same without augmentation, and nothing could be "
            f"learned from them; {VIEW_PRESETS}"
        )
    if labelled:
        shape = replace(shape, tasks=1, queries=0)
    if strata:
        index = strata.draw_tasks(shape, generator, whole=strata.whole_tasks(eats, shape, spans=spans))
        return batch_of(eats, bank, index, augment, generator, spans=spans, strata=strata)
    if labels.others:
        choice = (labels, *labels.others)
        labels = choice[int(torch.randint(len(choice), (), generator=generator))]
    draw = partial(draw_tasks_within, fill=True) if within else draw_tasks
    index = draw(
        labels,
        shape.tasks,
        ways=shape.ways,
        shots=shape.shots,
        queries=shape.queries,
        generator=generator,
    )
    return batch_of(eats, bank, index, augment, generator, spans=spans)


def check_shape(eats: type[Batch], shape: BatchShape) -> None:
    """Refuse a shape that nothing can be learned from.

    Raises:
        MetarepError: a labelled batch with fewer than two images of a class, or tasks without queries.
    """
    if eats is LabelledBatch and shape.shots < 2:
        raise MetarepError(f"a labelled batch needs at least 2 images a class to make pairs, not shots={shape.shots}")
    if eats is TaskBatch and shape.queries < 1:
        raise MetarepError(f"tasks to train on need at least 1 query a class, not queries={shape.queries}")


def batch_of(
    eats: type[Batch],
    bank: ImageBank,
    index: TaskIndex,
    augment: Augment | None,
    generator: Generator,
    *,
    spans: bool = True,
    strata: Strata | None = None,
) -> Batch:
    """Gather and augment the images of tasks that are drawn already.

    Args:
        eats: ``TaskBatch``; or ``LabelledBatch`` or ``LabelledViewBatch`` for the images of a single task.
        bank: the pixels.
        index: the tasks; for a labelled batch one task without queries.
        augment: applied to each image with its own random parameters; None for raw pixels.
        generator: a CPU generator; it decides how images are augmented.
        spans, strata: see :func:`draw_batch`.
    """
    both = torch.cat([index.support, index.query], dim=1)
    rows = both.reshape(-1)
    position = torch.arange(both.numel())
    if strata:  # each process has the images of its own parts
        order = strata.order(rows)
        rows, position = rows[order], order.argsort()
    least = len(strata.parts) if strata else ranks()
    by_task = ranks() > 1 and eats is TaskBatch and not (spans and len(index) < least)
    part = _own_part(len(index), "tasks") if by_task else _own_part(len(rows), "images")
    each = both.shape[1] if by_task else 1
    own = slice(part.start * each, part.stop * each)
    more: dict[str, Any] = {"own": own, "by_task": by_task, "weight": part.weight if by_task or not spans else 1.0}
    pixels = bank.pixels(rows[own])
    if issubclass(eats, LabelledBatch):
        both = torch.stack([index.support_y[0], index.classes[0][index.support_y[0]]])
        labels, classes = (both if spans else both[:, own]).to(pixels.device, non_blocking=True)
        if eats is LabelledBatch:
            return LabelledBatch(_augmented(pixels, len(rows), own, augment, generator), rows, labels, classes, **more)
        first, second = _two_views(pixels, len(rows), own, augment, generator)
        return LabelledViewBatch(first, rows, labels, classes, second, **more)
    images = _augmented(pixels, len(rows), own, augment, generator)
    if by_task:
        index, both = index[part.slice], both[part.slice]
        position = position[: both.numel()]  # the tasks are in the order of processes
    support, query = position.view(both.shape).split([index.support.shape[1], index.query.shape[1]], dim=1)
    return TaskBatch(images, rows, index.of_rows(support, query), **more)


def _draw_views(
    bank: ImageBank, n: int, augment: Augment | None, generator: Generator, spans: bool, strata: Strata | None
) -> ViewBatch:
    """Draw ``n`` different images and two independent views of each."""
    _refuse_equal_views(augment)
    if n > len(bank):
        raise DataError(
            f"a batch of {n} different images needs a data set of at least {n}, and this one has {len(bank)}; "
            "set images to fewer"
        )
    if strata:
        rows = strata.draw_images(n, generator)
    elif len(bank) > MANY:
        rows = distinct(torch.tensor(len(bank)), n, generator)
    else:
        rows = torch.randperm(len(bank), generator=generator)[:n]
    part = _own_part(n, "images")
    first, second = _two_views(bank.pixels(rows[part.slice]), n, part.slice, augment, generator)
    return ViewBatch(first, rows, second, own=part.slice, weight=1.0 if spans else part.weight)


def _two_views(
    images: Tensor, total: int, own: slice, augment: Augment | None, generator: Generator
) -> tuple[Tensor, Tensor]:
    first = _augmented(images, total, own, augment, generator)
    return first, _augmented(images, total, own, augment, generator)


def _refuse_equal_views(augment: Augment | None) -> None:
    if augment is None:
        raise MetarepError(
            "two views of an image are the same without augmentation, and nothing could be learned from them; "
            f"{VIEW_PRESETS}"
        )


def _augmented(images: Tensor, total: int, own: slice, augment: Augment | None, generator: Generator) -> Tensor:
    """Augment the images of this process. Random parameters are drawn for those of all processes, ``total``."""
    if augment is None:
        return images
    return augment.apply(images, augment.draw(total, generator, images.shape[-1] / images.shape[-2])[own])


def _own_part(total: int, unit: str) -> Part:
    """The part of a batch of ``total`` items that this process computes.

    Raises:
        MetarepError: there are fewer items than processes.
    """
    part = Part.own(total)
    if part.total < part.ranks:
        raise MetarepError(
            f"a batch of {total} {unit} cannot be split over {part.ranks} processes",
            advice=(Advice(f"take more {{{unit}}}", **{unit: ...}), "start fewer processes"),
        )
    return part
