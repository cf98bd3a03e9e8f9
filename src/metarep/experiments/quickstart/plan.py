"""Plan: what quickstart trains, and on what tasks it measures. A new family is a line in ``ENTRIES``."""

from dataclasses import dataclass, field
from typing import Any

import torch

from metarep.data.split import Split
from metarep.data.tasks import TaskIndex, draw_tasks
from metarep.encoders import Precision
from metarep.errors import DataError

FLOAT32_SHARE = 0.4  # a processor without bfloat16 needs about 2.5 times as long for a step


@dataclass(frozen=True)
class Entry:
    """One training: a method, its own settings, and training settings over the method's defaults."""

    method: str
    settings: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)

    def train_settings(self, seed: int, device: torch.device, precision: Precision) -> dict[str, Any]:
        """Training settings for this machine: fewer steps where a processor must compute in float32.

        Args:
            seed: of the run.
            device, precision: as picked by ``metarep.machine.device``.
        """
        slow = device.type == "cpu" and precision == "float32"
        steps = max(1, round(self.train["steps"] * FLOAT32_SHARE)) if slow else self.train["steps"]
        return {**self.train, "steps": steps, "seed": seed}


# Small batches: with half a minute to train, more steps are worth more than more images a step. Each training takes
# about 25 s on two quiet cores with bfloat16; a validation costs half a second, and the last weights nearly always win.
SHARED = {"validate_every": 250, "validation_tasks": 400}
# Heads that start from prototypes take tasks of any number of ways, and the report has several.
ANY_WAYS = {"head": "prototype", "inner_lr": 0.01, "inner_steps": 3, "test_steps": 3, "learned_rates": True, "turns": 5}
ENTRIES = (
    Entry("protonet", {}, {**SHARED, "steps": 480, "ways": 30, "queries": 4}),
    Entry("siamese", {}, {**SHARED, "steps": 460, "ways": 40, "shots": 4}),
    Entry("anil", ANY_WAYS, {**SHARED, "steps": 420, "ways": 30, "queries": 4, "tasks": 1}),
    Entry("simclr", {}, {**SHARED, "steps": 280, "images": 128}),
)


@dataclass(frozen=True)
class Plan:
    """What to train and what to measure.

    Args:
        entries: the trainings, in this order.
        table: ways and shots of each column of the results; the first is the headline's.
        shots: of the chart of accuracy against shots, with the ways of the last column.
        queries: query images a class, where the classes have as many.
        tasks: tasks a measurement.
        seed: names those tasks; the same for every seed of training, so that runs can be compared.
        examples: tasks drawn into the picture, 1-shot.
        example_ways: their ways; more than the headline's, so that there are mistakes to see.
        map_classes: classes on the map of the representation.
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
        """``table`` with no more ways than the split has classes."""
        most = len(split.labels.names)
        return list(dict.fromkeys((min(ways, most), shots) for ways, shots in self.table))

    def draw(self, split: Split) -> dict[tuple[int, int], TaskIndex]:
        """The tasks of every measurement, by ways and shots; shapes that the data cannot give are left out.

        Raises:
            DataError: not even the first shape can be drawn.
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
        """Tasks of one shape, with as many of the queries asked for as the classes allow.

        Raises:
            DataError: the classes are too few, or too small for a single query.
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
        raise AssertionError("the last of the queries returns or raises")


PLAN = Plan()
