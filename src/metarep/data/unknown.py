"""Unknown queries: images of classes that are not in a task, to see whether a learner notices."""

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from metarep.data.labels import Labels
from metarep.data.task_index import TaskIndex
from metarep.data.tasks import distinct, tasks_of


def draw_unknown(labels: Labels, tasks: TaskIndex, generator: Generator) -> Int[Tensor, "task query"] | None:
    """Draw queries of unknown classes for each task: as many classes as the task has, with as many queries each.

    The classes are drawn from those that are not in the task, without replacement, as are the images of each.

    Args:
        labels: the labels that the tasks were drawn from.
        tasks: the tasks.
        generator: a CPU generator.

    Returns:
        The row of each image; None where fewer than twice as many classes as a task has can give so many images.

    >>> labels = Labels.of(list("aabbccdd"))
    >>> ways = torch.tensor([[0, 1]])
    >>> task = TaskIndex(torch.tensor([[0, 6]]), torch.tensor([[1, 7]]), ways, ways, torch.tensor([[0, 3]]), ways=2)
    >>> sorted(labels.classes[draw_unknown(labels, task, Generator().manual_seed(0))[0]].tolist())
    [1, 2]
    """
    ways, queries = tasks.ways, max(1, tasks.queries)
    usable = labels.usable(queries, 0)
    place = torch.full((len(labels.names),), len(usable))  # of a class among the usable; behind them for others
    place[usable] = torch.arange(len(usable))
    own = place[tasks.classes.cpu()].sort(-1).values
    left = len(usable) - (own < len(usable)).sum(-1)
    if int(left.min()) < ways:
        return None
    picks = distinct(left, ways, generator)
    for column in own.split(1, dim=1):  # the k-th of the classes that are left, counted among all
        picks = picks + (picks >= column).long()
    return tasks_of(labels, usable[picks], shots=queries, queries=0, generator=generator).support
