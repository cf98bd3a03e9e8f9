"""Tasks with unbalanced queries: the shares of the classes, and what stays as in balanced tasks."""

from dataclasses import replace

import pytest
import torch
from torch import Generator

from metarep.data.labels import Labels
from metarep.data.tasks import draw_tasks
from metarep.data.unbalanced import dirichlet, draw_unbalanced_tasks, whole_shares
from metarep.errors import DataError, MetarepError

SHAPE = {"ways": 4, "shots": 2, "queries": 5}


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def test_unbalanced_tasks_are_tasks() -> None:
    labels = Labels.of([c for c in "abcdefg" for _ in range(30)])
    tasks = draw_unbalanced_tasks(labels, 300, **SHAPE, generator=seeded())
    assert (len(tasks), tasks.shots, tasks.queries, tasks.query.shape) == (300, 2, 5, (300, 20))
    for side, y in ((tasks.support, tasks.support_y), (tasks.query, tasks.query_y)):
        assert torch.equal(labels.classes[side], tasks.classes.gather(1, y)), "each row is of the class it stands for"
    both = torch.cat([tasks.support, tasks.query], 1)
    assert all(len(row.unique()) == 28 for row in both), "no image is drawn twice in a task"
    assert tasks.digest == draw_unbalanced_tasks(labels, 300, **SHAPE, generator=seeded()).digest
    assert tasks.digest != draw_unbalanced_tasks(labels, 300, **SHAPE, generator=seeded(1)).digest
    assert tasks.digest != draw_tasks(labels, 300, **SHAPE, generator=seeded()).digest


@pytest.mark.parametrize("alpha", [1, 2, 8])
def test_the_shares_have_the_moments_of_a_dirichlet_distribution(alpha: int) -> None:
    shares = dirichlet(20_000, 5, alpha, seeded())
    torch.testing.assert_close(shares.sum(1), torch.ones(20_000, dtype=torch.float64))
    assert shares.mean(0).tolist() == pytest.approx([0.2] * 5, abs=0.005)
    assert shares.var(0).tolist() == pytest.approx([0.2 * 0.8 / (5 * alpha + 1)] * 5, rel=0.05)
    counts = whole_shares(shares, 75)
    assert torch.equal(counts.sum(1), torch.full((20_000,), 75))
    assert (counts - 75 * shares).abs().max() < 1


def test_support_and_query_of_a_class_stay_in_different_groups() -> None:
    labels = replace(Labels.of([c for c in "abcde" for _ in range(60)]), groups=torch.arange(300) % 6)
    tasks = draw_unbalanced_tasks(labels, 40, ways=3, shots=1, queries=4, generator=seeded())
    assert tasks.groups is not None
    rows = torch.cat([tasks.support, tasks.query], 1)
    assert torch.equal(tasks.groups, labels.groups[rows])
    for task in range(40):
        for i, way in enumerate(tasks.support_y[task].tolist()):
            own = tasks.query[task][tasks.query_y[task] == way]
            assert int(labels.groups[tasks.support[task, i]]) not in labels.groups[own].tolist()


def test_classes_that_are_too_small_are_named() -> None:
    labels = Labels.of([c for c in "abcdefg" for _ in range(20)])
    with pytest.raises(
        DataError, match=r"may get all 20 queries, and the largest 4 classes have 20 images or more; take at most 4"
    ):
        draw_unbalanced_tasks(labels, 3, **SHAPE, generator=seeded())
    with pytest.raises(MetarepError, match=r"an alpha of at least 1, not .* alpha=0"):
        draw_unbalanced_tasks(labels, 3, **SHAPE, generator=seeded(), alpha=0)


def test_instances_have_as_many_queries_as_a_task_needs() -> None:
    labels = replace(Labels.of(range(6)), kind="instances")
    tasks = draw_unbalanced_tasks(labels, 5, **SHAPE, generator=seeded())
    assert tasks.query.shape == (5, 20)
