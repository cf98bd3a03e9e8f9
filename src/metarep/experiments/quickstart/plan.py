"""Plan: the trainings of quickstart and the tasks of its measurements. A new family is one line in ``ENTRIES``."""

from dataclasses import dataclass, field
from typing import Any

import torch

from metarep.data.split import Split
from metarep.data.tasks import TaskIndex, draw_tasks
from metarep.encoders import Precision
from metarep.errors import DataError

FLOAT32_SHARE = 0.4  # a CPU without bfloat16 needs about 2.5 times as long for a step


@dataclass(frozen=True)
class Entry:
    """One training of quickstart.

    Args:
        method: name of the method.
        settings: settings of the method.
        train: values of ``TrainSettings`` that replace the method's defaults; ``steps`` is needed.
    """

    method: str
    settings: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)

    def train_settings(self, seed: int, device: torch.device, precision: Precision) -> dict[str, Any]:
        """The training settings for this machine; a CPU that computes in float32 trains fewer steps.

        Args:
            seed: seed of the run.
            device, precision: as given by ``metarep.machine.device``.

        >>> Entry("protonet", train={"steps": 100}).train_settings(3, torch.device("cpu"), "float32")
        {'steps': 40, 'seed': 3}
        """
        slow = device.type == "cpu" and precision == "float32"
        steps = max(1, round(self.train["steps"] * FLOAT32_SHARE)) if slow else self.train["steps"]
        return {**self.train, "steps": steps, "seed": seed}


# Batches are small: in half a minute of training, more steps help more than more images in a step. Each training takes
# about 25 s on two idle cores with bfloat16. A validation takes half a second. The last weights are nearly always best.
SHARED = {"validate_every": 250, "validation_tasks": 400}
# Heads that start from prototypes solve tasks with any number of ways; the report has tasks of several.
ANY_WAYS = {"head": "prototype", "inner_lr": 0.01, "inner_steps": 3, "test_steps": 3, "learned_rates": True, "turns": 5}
ENTRIES = (
    Entry("protonet", {}, {**SHARED, "steps": 480, "ways": 30, "queries": 4}),
    Entry("siamese", {}, {**SHARED, "steps": 460, "ways": 40, "shots": 4}),
    Entry("anil", ANY_WAYS, {**SHARED, "steps": 420, "ways": 30, "queries": 4, "tasks": 1}),
    Entry("simclr", {}, {**SHARED, "steps": 280, "images": 128}),
)


@dataclass(frozen=True)
class Plan:
    """The trainings and the measurements of quickstart.

    Args:
        entries: the trainings, in this order.
        table: ways and shots of each column of the results; the headline uses the first.
        shots: shots of the chart of accuracy against shots; its ways are those of the last column.
        queries: query images of each class; fewer if the classes have fewer images.
        tasks: number of tasks of each measurement.
        seed: seed of those tasks. It does not depend on the seed of the trainings, so that runs can be compared.
        examples: number of 1-shot tasks that the page shows.
        example_ways: ways of these tasks; more than in the headline, so that there are mistakes to see.
        map_classes: number of classes on a map.
    """

    entries: tuple[Entry, ...] = ENTRIES
    table: tuple[tuple[int, int], ...] = ((5, 1), (5, 5), (20, 1), (20, 5))
    shots: tuple[int, ...] = (1, 2, 3, 5, 10)
    queries: int = 15
    tasks: int = 1000
    seed: int = 1
    examples: int = 2
    example_ways: int = 10
    map_classes: int = 12

    def columns(self, split: Split) -> list[tuple[int, int]]:
        """Ways and shots of each column: ``table`` with at most as many ways as the split has classes."""
        most = len(split.labels.names)
        return list(dict.fromkeys((min(ways, most), shots) for ways, shots in self.table))

    def draw(self, split: Split) -> dict[tuple[int, int], TaskIndex]:
        """Draw the tasks of every measurement, by ways and shots. Shapes that the data cannot give are left out.

        Args:
            split: images and labels of the classes to measure on.

        Raises:
            DataError: the data cannot give the first shape.
        """
        columns = self.columns(split)
        drawn = {}
        for shape in dict.fromkeys([*columns, *((columns[-1][0], shots) for shots in self.shots)]):
            try:
                drawn[shape] = self.draw_shape(split, *shape)
            except DataError:
                if shape == columns[0]:
                    raise
        return drawn

    def draw_shape(self, split: Split, ways: int, shots: int) -> TaskIndex:
        """Draw tasks of one shape, with fewer queries than ``queries`` if the classes are too small.

        Args:
            split: images and labels of the classes to measure on.
            ways, shots: the shape of the tasks.

        Raises:
            DataError: there are too few classes, or they are too small for a single query.
        """
        for queries in (self.queries, 10, 5, 2, 1):
            generator = torch.Generator().manual_seed(self.seed)
            try:
                return draw_tasks(
                    split.labels, self.tasks, ways=ways, shots=shots, queries=queries, generator=generator
                )
            except DataError:
                if queries == 1:
                    raise
        raise AssertionError("unreachable: the last number of queries returns or raises")


PLAN = Plan()
