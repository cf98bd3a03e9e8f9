"""Examples: a few tasks with the answers of each learner, for the page."""

from typing import NamedTuple

import torch

from metarep.data.split import Split
from metarep.data.tasks import TaskIndex, draw_tasks
from metarep.experiments.page.pictures import data_uri
from metarep.learners import Learner

QUERIES = 3  # query images of each class
SHOWN = 128  # pixels: more than a picture of a task takes on the page


class Query(NamedTuple):
    """A query image, its true way, and the way that each learner gave it; the image is a ``data:`` address."""

    picture: str
    way: int
    guesses: dict[str, int]


class SolvedTask(NamedTuple):
    """A task to show: the class name and the support image of every way, and the queries."""

    names: list[str]
    support: list[str]
    queries: list[Query]

    def right(self, learner: str) -> int:
        """The number of queries that a learner answered correctly."""
        return sum(query.guesses[learner] == query.way for query in self.queries)


def solve_examples(
    learners: dict[str, Learner], split: Split, *, tasks: int, ways: int, seed: int, most: int = QUERIES
) -> list[SolvedTask]:
    """Draw a few 1-shot tasks and let each learner solve them.

    They are the first tasks of the seed and were not selected. They are not among the tasks of the measurements.

    Args:
        learners: the learners by name, in evaluation mode.
        split: images and labels of classes that were not trained on.
        tasks: the number of tasks.
        ways: the number of classes of a task; fewer if the split has fewer.
        seed: of the tasks.
        most: the largest number of queries of each class.
    """
    ways = min(ways, len(split.labels.names))
    queries = max(1, min(most, int(split.labels.counts.min()) - 1))
    generator = torch.Generator().manual_seed(seed)
    drawn = draw_tasks(split.labels, tasks, ways=ways, shots=1, queries=queries, generator=generator)
    used, compact = drawn.compact()
    guesses = {}
    with torch.no_grad():
        for name, learner in learners.items():
            device = learner.device
            support, support_y, query, _, ways = compact.of(learner.prepare(split.bank.pixels(used).to(device)))
            guesses[name] = learner.logits(learner.adapt(support, support_y, ways), query).argmax(-1).tolist()
    return [
        _shown(split, drawn[i : i + 1], {name: guess[i] for name, guess in guesses.items()}) for i in range(len(drawn))
    ]


def _shown(split: Split, task: TaskIndex, guesses: dict[str, list[int]]) -> SolvedTask:
    """The names and images of one task, with the guesses of each learner in the order of the queries."""
    pictures = [data_uri(image, SHOWN) for image in split.bank.pixels(task.support[0])]
    queries = [
        Query(data_uri(image, SHOWN), way, {name: guess[number] for name, guess in guesses.items()})
        for number, (image, way) in enumerate(
            zip(split.bank.pixels(task.query[0]), task.query_y[0].tolist(), strict=True)
        )
    ]
    by_way = [pictures[way] for way in task.support_y[0].argsort().tolist()]
    return SolvedTask([split.labels.names[row] for row in task.classes[0].tolist()], by_way, queries)
