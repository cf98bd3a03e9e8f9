"""Tasks within superclasses."""

import pytest
import torch
from torch import Generator

from metarep.data.batch import BatchShape, LabelledBatch, TaskBatch, ViewBatch
from metarep.data.batches import draw_batch
from metarep.data.images import ImageBank
from metarep.data.labels import Labels
from metarep.data.superclasses import draw_tasks_within, superclasses
from metarep.errors import DataError, MetarepError

SIZES = {"Greek": 3, "Latin": 6, "Thai": 9}
NAMES = [f"{alphabet}/{number}" for alphabet, size in SIZES.items() for number in range(size)]
LABELS = Labels.of([name for name in NAMES for _ in range(6)])
SHAPE = {"shots": 1, "queries": 2}


def drawn(n: int, seed: int = 0, **how: int) -> torch.Tensor:
    """The superclass of each class of each task."""
    tasks = draw_tasks_within(LABELS, n, **(SHAPE | how), generator=Generator().manual_seed(seed))
    assert (tasks.classes.sort(1).values.diff(dim=1) > 0).all()  # a class is once in a task
    assert torch.equal(LABELS.classes[tasks.query], tasks.classes.gather(1, tasks.query_y))
    return superclasses(LABELS)[tasks.classes]


def test_tasks_are_of_one_superclass_and_every_class_is_equally_likely() -> None:
    """Superclasses of too few classes are left out, and each other is drawn in proportion to its classes."""
    found = drawn(3000, ways=5)
    assert (found == found[:, :1]).all()
    shares = found[:, 0].bincount(minlength=3) / len(found)
    assert shares[0] == 0
    assert abs(shares[1] - 6 / 15) < 0.03
    orders = draw_tasks_within(LABELS, 3000, ways=5, **SHAPE, generator=Generator().manual_seed(0)).classes
    first = orders[:, 0].bincount(minlength=len(NAMES))[3:] / len(orders)
    assert (first - 1 / 15).abs().max() < 0.02  # any class, at any place of a task


def test_filled_tasks_take_whole_superclasses_first() -> None:
    found = drawn(500, ways=12, fill=True)
    for task in found.tolist():
        kinds = list(dict.fromkeys(task))
        assert task == sorted(task, key=kinds.index)  # one superclass after another
        assert all(task.count(kind) == list(SIZES.values())[kind] for kind in kinds[:-1])
    assert {task[0] for task in found.tolist()} == {0, 1, 2}


def test_what_cannot_be_drawn_is_said() -> None:
    with pytest.raises(DataError, match="the largest has 9 classes"):
        drawn(1, ways=10)
    with pytest.raises(DataError, match="a class called 'wren'"):
        superclasses(Labels.of(["bird/robin", "wren"]))
    with pytest.raises(MetarepError, match="at least 1 way"):
        drawn(1, ways=0)


@pytest.mark.parametrize("eats", [LabelledBatch, TaskBatch])
def test_batches_within_superclasses(eats: type) -> None:
    bank = ImageBank(torch.zeros(len(LABELS), 1, 4, 4, dtype=torch.uint8))
    shape = BatchShape(ways=6, shots=2, queries=2, tasks=1)
    for seed in range(20):
        batch = draw_batch(eats, bank, LABELS, shape, None, Generator().manual_seed(seed), within=True)
        kinds = superclasses(LABELS)[LABELS.classes[batch.rows]].tolist()
        assert len(set(kinds)) == 1 + (kinds[0] == 0)  # Greek has three characters, so others follow


def test_views_have_no_superclasses() -> None:
    bank = ImageBank(torch.zeros(9, 1, 4, 4, dtype=torch.uint8))
    with pytest.raises(MetarepError, match="take mine=batch"):
        draw_batch(ViewBatch, bank, LABELS, BatchShape(images=4), None, Generator(), within=True)
