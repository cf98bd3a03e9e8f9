"""Strata: the parts into which the classes of a data set are divided; a batch has equally much of each part."""

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from metarep.data.batch import Batch, BatchShape, TaskBatch
from metarep.data.labels import Labels
from metarep.data.task_index import TaskIndex
from metarep.data.tasks import distinct, draw_tasks
from metarep.errors import Advice, DataError, MetarepError


@dataclass(frozen=True)
class Strata:
    """The classes of a data set in several parts, from each of which a batch draws equally much.

    Several processes, each of which holds the images of some parts, then read no other images: the images of a batch
    are in the order of the parts. Every process draws the whole batch from labels alone.

    Args:
        parts: the labels of each part, whose rows and classes begin at 0. The images are sorted by class.

    >>> strata = Strata.of(Labels.of(list("aabbccdd")), 2)
    >>> [part.names for part in strata.parts]
    [('a', 'b'), ('c', 'd')]
    """

    parts: tuple[Labels, ...]

    @classmethod
    def of(cls, labels: Labels, number: int) -> "Strata":
        """Divide the classes: neighbours belong together, and the parts have equally many classes, or one more.

        Args:
            labels: the classes.
            number: the number of parts.

        Raises:
            DataError: there are fewer classes than parts, or several partitions.
        """
        return cls(tuple(labels.share(part, number) for part in range(number)))

    @cached_property
    def rows(self) -> list[int]:
        """The row of the first image of each part."""
        return list(accumulate((len(part) for part in self.parts), initial=0))[:-1]

    @cached_property
    def classes(self) -> list[int]:
        """The first class of each part."""
        return list(accumulate((len(part.names) for part in self.parts), initial=0))[:-1]

    def order(self, rows: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """The positions of rows, sorted by the part that a row belongs to.

        >>> Strata.of(Labels.of(list("aabb")), 2).order(torch.tensor([3, 0, 2, 1])).tolist()
        [1, 3, 0, 2]
        """
        return torch.bucketize(rows, torch.tensor(self.rows), right=True).argsort(stable=True)

    def whole_tasks(self, eats: type[Batch], shape: BatchShape, *, spans: bool) -> bool:
        """Whether each task of a batch has the classes of one part; otherwise of all parts alike.

        Args:
            eats: the type of the batch.
            shape: its size.
            spans: whether the loss compares images of the whole batch.
        """
        return eats is TaskBatch and not (spans and shape.tasks < len(self.parts))

    def most_images(self, n: int) -> int:
        """The largest number of images up to ``n`` of which each part gives equally many."""
        return min(n // len(self.parts), *(len(part) for part in self.parts)) * len(self.parts)

    def most_ways(self, shape: BatchShape, *, whole: bool) -> int:
        """The largest number of classes up to ``shape.ways`` that can be drawn; see :meth:`draw_tasks`.

        >>> Strata.of(Labels.of(list("aabbccdd")), 2).most_ways(BatchShape(ways=60, shots=1, queries=1), whole=False)
        4
        """
        able = [int(part.can_give(shape.shots, shape.queries).sum()) for part in self.parts]
        return min(shape.ways, *able) if whole else min(shape.ways // len(self.parts), *able) * len(self.parts)

    def draw_images(self, n: int, generator: Generator) -> Int[Tensor, " n"]:
        """Draw the rows of ``n`` different images, equally many of each part.

        Raises:
            DataError: a part has too few images.
        """
        each = self._each(n, "images")
        if short := [part for part in self.parts if len(part) < each]:
            raise DataError(
                f"a batch of {n} images takes {each} of each of {len(self.parts)} parts (local_shards), and one has "
                f"{len(short[0])}; set images to fewer"
            )
        drawn = [distinct(torch.tensor(len(part)), each, generator) for part in self.parts]
        return torch.cat([rows + first for rows, first in zip(drawn, self.rows, strict=True)])

    def draw_tasks(self, shape: BatchShape, generator: Generator, *, whole: bool) -> TaskIndex:
        """Draw tasks; otherwise as :func:`metarep.data.tasks.draw_tasks`.

        Args:
            shape: the size of the batch; without queries, for labelled images, the classes of a part stay together.
            generator: a CPU generator.
            whole: whether each task has the classes of one part. Otherwise it has equally many of each part.

        Raises:
            DataError: a part has too few classes or images.
        """
        n, ways = shape.tasks, shape.ways
        if whole:
            n = self._each(n, "tasks")
        else:
            ways = self._each(ways, "ways")
        drawn = []
        for number, labels in enumerate(self.parts):
            try:
                index = draw_tasks(labels, n, ways=ways, shots=shape.shots, queries=shape.queries, generator=generator)
            except DataError as error:
                of = f"part {number + 1} of the {len(self.parts)} parts of the classes (local_shards)"
                raise DataError(f"{of}: {error.message}", advice=error.advice) from error
            first = self.rows[number]
            index = index.of_rows(index.support + first, index.query + first)
            drawn.append(replace(index, classes=index.classes + self.classes[number]))
        return _one_after_another(drawn) if whole else _side_by_side(drawn, shape, generator)

    def _each(self, total: int, unit: str) -> int:
        """The number of items that are drawn from each part, so that all parts together give ``total``.

        Raises:
            MetarepError: ``total`` is not a multiple of the number of parts.
        """
        each, over = divmod(total, len(self.parts))
        if over:
            raise MetarepError(
                f"a batch takes equally many {unit} of each of {len(self.parts)} parts (local_shards), and {total} "
                "cannot be divided",
                advice=Advice(f"make {{{unit}}} a multiple of {len(self.parts)}", **{unit: ...}),
            )
        return each


def _one_after_another(drawn: list[TaskIndex]) -> TaskIndex:
    """Concatenate the tasks of all parts: each task has classes of one part."""
    groups = [index.groups for index in drawn if index.groups is not None]
    return TaskIndex(
        torch.cat([index.support for index in drawn]),
        torch.cat([index.query for index in drawn]),
        torch.cat([index.support_y for index in drawn]),
        torch.cat([index.query_y for index in drawn]),
        torch.cat([index.classes for index in drawn]),
        drawn[0].ways,
        torch.cat(groups) if groups else None,
    )


def _side_by_side(drawn: list[TaskIndex], shape: BatchShape, generator: Generator) -> TaskIndex:
    """Merge one task of every part into each task. Its classes are in random order, so no class reveals its part."""
    n, ways = len(drawn[0]), shape.ways
    order = torch.arange(ways).expand(n, ways)
    if shape.queries:  # the classes of labelled images are not numbered by their order
        order = torch.rand(n, ways, generator=generator).argsort(-1)

    def joined(parts: list[Tensor]) -> Tensor:
        """Concatenate rows of all parts, each ``(task, way * image)``, and put the ways into the random order."""
        by_way = torch.cat(
            [part.view(n, index.ways, part.shape[1] // index.ways) for part, index in zip(parts, drawn, strict=True)],
            dim=1,
        )
        return by_way.gather(1, order.unsqueeze(-1).expand_as(by_way)).flatten(1)

    groups = None
    known = [
        index.groups.split([index.support.shape[1], index.query.shape[1]], 1)
        for index in drawn
        if index.groups is not None
    ]
    if known:
        groups = torch.cat([joined([support for support, _ in known]), joined([query for _, query in known])], dim=1)
    numbers = torch.arange(ways)
    return TaskIndex(
        joined([index.support for index in drawn]),
        joined([index.query for index in drawn]),
        numbers.repeat_interleave(shape.shots).repeat(n, 1),
        numbers.repeat_interleave(shape.queries).repeat(n, 1),
        joined([index.classes for index in drawn]),
        ways,
        groups,
    )
