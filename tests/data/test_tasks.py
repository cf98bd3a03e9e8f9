"""Tasks: drawn fairly, labelled rightly, never mixing support with query, fast."""

import subprocess
import sys
import time
from itertools import permutations

import pytest
import torch
from scipy.stats import chisquare
from torch import Generator, Tensor

from metarep.data import tasks
from metarep.data.labels import Labels
from metarep.data.tasks import TaskIndex, draw_tasks, draw_varied_tasks
from metarep.errors import DataError, MetarepError

UNEVEN = (3, 4, 5, 4, 3)
RARE = 1e-4  # a fair sampler is refused by one seed in ten thousand; the seed here is fixed


def labels_of(*counts: int, groups: Tensor | None = None) -> Labels:
    """Classes a, b, ... of these sizes, their images shuffled among each other."""
    classes = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    order = torch.randperm(len(classes), generator=Generator().manual_seed(9))
    names = tuple(chr(ord("a") + i) for i in range(len(counts)))
    return Labels(classes[order], names, names, None if groups is None else groups[order])


def draw(labels: Labels, n: int, ways: int, shots: int, queries: int, seed: int = 0) -> TaskIndex:
    return draw_tasks(labels, n, ways=ways, shots=shots, queries=queries, generator=Generator().manual_seed(seed))


def p_of_uniform(rows: Tensor, members: Tensor) -> float:
    """How likely such counts of ordered choices are, if every arrangement of ``members`` is equally likely."""
    arrangements = torch.tensor(list(permutations(members.tolist(), rows.shape[1])))
    counts = (rows.unsqueeze(1) == arrangements).all(-1).sum(0)
    assert counts.sum() == len(rows), "something else than distinct members was chosen"
    return float(chisquare(counts.numpy()).pvalue)


@pytest.mark.parametrize("counts", [(4,) * 5, UNEVEN], ids=["even", "uneven"])
def test_every_arrangement_of_classes_is_equally_likely(counts: tuple[int, ...]) -> None:
    tasks = draw(labels_of(*counts), 12_000, ways=3, shots=1, queries=1)
    assert p_of_uniform(tasks.classes, torch.arange(5)) > RARE


@pytest.mark.parametrize("counts", [(5,) * 5, UNEVEN], ids=["even", "uneven"])
def test_every_arrangement_of_images_is_equally_likely(counts: tuple[int, ...]) -> None:
    labels = labels_of(*counts)
    tasks = draw(labels, 8_000, ways=5, shots=1, queries=2)
    chosen = torch.cat([tasks.support.view(-1, 5, 1), tasks.query.view(-1, 5, 2)], dim=-1)
    for c in range(5):
        members = (labels.classes == c).nonzero().squeeze(1)
        assert p_of_uniform(chosen[tasks.classes == c], members) > RARE


def test_a_slightly_unfair_sampler_would_be_refused() -> None:
    """The two tests above can fail: 12,000 draws in which one class comes first a tenth too often."""
    fair = draw(labels_of(*UNEVEN), 12_000, ways=3, shots=1, queries=1).classes
    first = (fair == 0).int().argmax(1)
    moved = fair.clone()
    some = ((fair == 0).any(1) & (torch.rand(len(fair), generator=Generator().manual_seed(0)) < 0.1)).nonzero()[:, 0]
    moved[some, first[some]], moved[some, 0] = fair[some, 0], 0
    assert p_of_uniform(moved, torch.arange(5)) < RARE


@pytest.mark.parametrize("seed", range(20))
def test_tasks_of_random_labels_are_sound(seed: int) -> None:
    g = Generator().manual_seed(seed)
    counts = torch.randint(2, 9, (12,), generator=g).tolist()
    ways, shots, queries = (int(torch.randint(1, 4, (), generator=g)) for _ in range(3))
    labels = labels_of(*counts)
    if sum(count >= shots + queries for count in counts) < ways:
        with pytest.raises(DataError):
            draw(labels, 50, ways, shots, queries)
        return
    tasks = draw(labels, 50, ways, shots, queries, seed)
    assert (len(tasks), tasks.shots, tasks.queries) == (50, shots, queries)
    both = torch.cat([tasks.support, tasks.query], dim=1)
    for task, classes in zip(both.tolist(), tasks.classes.tolist(), strict=True):
        assert len(set(task)) == ways * (shots + queries)
        assert len(set(classes)) == ways
    assert torch.equal(labels.classes[tasks.support], tasks.classes.gather(1, tasks.support_y))
    assert torch.equal(labels.classes[tasks.query], tasks.classes.gather(1, tasks.query_y))
    for known, each in ((tasks.support_y, shots), (tasks.query_y, queries)):
        assert all(torch.bincount(row, minlength=ways).tolist() == [each] * ways for row in known)
    assert (labels.counts[tasks.classes] >= shots + queries).all()


def test_the_order_of_labels_is_the_tasks_own() -> None:
    """Otherwise a learner could remember classes by their number."""
    tasks = draw(labels_of(4, 4, 4), 600, ways=3, shots=1, queries=1)
    assert len({tuple(row) for row in tasks.classes.tolist()}) == 6


@pytest.mark.slow
def test_equal_seeds_give_equal_tasks_in_every_process() -> None:
    program = (
        "import torch; from metarep.data.labels import Labels; from metarep.data.tasks import draw_tasks\n"
        "g = torch.Generator().manual_seed(3)\n"
        "labels = Labels.of([i // 20 for i in range(400)])\n"
        "print(draw_tasks(labels, 100, ways=5, shots=1, queries=15, generator=g).digest)"
    )
    elsewhere = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    labels = Labels.of([i // 20 for i in range(400)])
    here, again, other = (draw(labels, 100, 5, 1, 15, seed) for seed in (3, 3, 4))
    assert here.digest == again.digest == elsewhere.stdout.strip() != other.digest
    assert torch.equal(here.query, again.query)
    grouped = labels_of(*(6,) * 5, groups=torch.arange(3).repeat(10))
    assert draw(grouped, 100, 3, 1, 2, seed=3).digest == draw(grouped, 100, 3, 1, 2, seed=3).digest


def test_the_digest_depends_on_every_field() -> None:
    tasks = draw(labels_of(*UNEVEN), 10, 2, 1, 2)
    changed = [
        TaskIndex(*fields, tasks.classes, tasks.ways)
        for fields in (
            (tasks.support.flip(0), tasks.query, tasks.support_y, tasks.query_y),
            (tasks.support, tasks.query.flip(0), tasks.support_y, tasks.query_y),
            (tasks.support, tasks.query, tasks.support_y.flip(1), tasks.query_y),
            (tasks.support, tasks.query, tasks.support_y, tasks.query_y.flip(1)),
        )
    ]
    assert len({tasks.digest, *(other.digest for other in changed)}) == 5


@pytest.mark.parametrize("sizes", [(2, 2, 2, 2), (1, 5), (5, 1), (1, 1, 1, 1, 1, 1), (3, 1, 2), (4, 1, 1)])
@pytest.mark.parametrize(("shots", "queries"), [(1, 1), (1, 3), (3, 1)])
def test_support_and_query_never_share_a_group(sizes: tuple[int, ...], shots: int, queries: int) -> None:
    """Also where only some ways of dividing the groups leave enough on both sides."""
    groups = torch.cat([torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)) + 10 * c for c in range(4)])
    labels = labels_of(*(sum(sizes),) * 4, groups=groups)
    assert labels.groups is not None
    tasks = draw(labels, 200, 3, shots, queries)
    for support, query in zip(tasks.support.tolist(), tasks.query.tolist(), strict=True):
        assert not set(labels.groups[support].tolist()) & set(labels.groups[query].tolist())
        assert len({*support, *query}) == 3 * (shots + queries)
    assert torch.equal(labels.classes[tasks.support], tasks.classes.gather(1, tasks.support_y))
    assert torch.equal(labels.classes[tasks.query], tasks.classes.gather(1, tasks.query_y))
    if shots == queries:
        assert set(tasks.support.unique().tolist()) == set(range(len(labels))), "some images are never support"


def test_groups_that_only_one_division_fits_are_divided() -> None:
    """Of 4, 3 and 1 images only {4, 1} against {3} gives 5 and 3, whatever order chance or size puts them in."""
    groups = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2] * 3)
    labels = labels_of(8, 8, 8, groups=groups)
    assert labels.groups is not None
    for seed in range(5):
        tasks = draw(labels, 50, 3, 5, 3, seed)
        assert set(labels.groups[tasks.query].unique().tolist()) == {1}


def test_classes_whose_groups_cannot_be_divided_are_not_drawn() -> None:
    labels = labels_of(5, 5, 5, groups=torch.arange(3).repeat_interleave(5))
    with pytest.raises(
        DataError, match=r"0 of the 3 classes have as many, and 'a' has 5, of 1 group; support and query of a class"
    ):
        draw(labels, 20, 3, 1, 2)
    assert len(draw(labels, 20, 3, 3, 0)) == 20, "without queries groups do not matter"
    some = labels_of(5, 5, 5, 6, groups=torch.tensor([0] * 5 + [0, 0, 1, 1, 1] + [0, 1, 2, 3, 4] + [0, 0, 0, 1, 1, 1]))
    assert set(draw(some, 50, 2, 1, 3).classes.flatten().tolist()) == {1, 2, 3}
    assert set(draw(some, 50, 2, 3, 2).classes.flatten().tolist()) == {1, 2, 3}
    assert set(draw(some, 50, 2, 2, 3).classes.flatten().tolist()) == {1, 2, 3}
    with pytest.raises(DataError, match=r"1 of the 4 classes have as many, and 'a' has 5"):
        draw(some, 50, 2, 3, 3)


def test_groups_that_hardly_any_order_divides() -> None:
    """Groups of 1, 2, 4, ... 128 images: one of 256 ways to part them leaves 85 and 170; one order in 70 shows it."""
    groups = torch.cat([torch.full((1 << group,), group) for group in range(8)] * 2)
    labels = labels_of(255, 255, groups=groups)
    check_groups(labels, draw(labels, 20, 2, 85, 170))
    assert not labels.can_give(86, 170).any()


def test_too_few_images_or_classes_say_what_is_missing() -> None:
    with pytest.raises(DataError) as error:
        draw(labels_of(20, 3, 20), 1, ways=3, shots=5, queries=15)
    assert str(error.value) == (
        "3-way 5-shot tasks with 15 queries need 3 classes of at least 20 images; 2 of the 3 classes have as many, "
        "and 'b' has 3. Use fewer shots or queries, or add images"
    )
    with pytest.raises(DataError, match="need 4 classes of at least 2 images; the data has 3 classes"):
        draw(labels_of(5, 5, 5), 1, ways=4, shots=1, queries=1)
    with pytest.raises(MetarepError, match="at least 1 way and 1 shot, not ways=2, shots=0"):
        draw(labels_of(5, 5), 1, ways=2, shots=0, queries=1)


def test_of_compact_chunks_and_slices_are_the_same_tasks() -> None:
    tasks, rows = draw(labels_of(*UNEVEN), 33, 3, 1, 2), torch.arange(19.0).view(19, 1, 1) * torch.ones(19, 2, 2)
    whole = tasks.of(rows)
    assert whole.support.shape == (33, 3, 2, 2)
    assert torch.equal(whole.query[..., 0, 0].long(), tasks.query)
    used, packed = tasks.compact()
    assert used.tolist() == sorted({*tasks.support.flatten().tolist(), *tasks.query.flatten().tolist()})
    parts = list(tasks.chunks(10))
    assert [len(part) for part in parts] == [10, 10, 10, 3]
    for field in range(4):
        assert torch.equal(packed.of(rows[used])[field], whole[field])
        assert torch.equal(torch.cat([part.of(rows)[field] for part in parts]), whole[field])
    assert torch.equal(tasks[4:9].classes, tasks.classes[4:9])


def test_turned_tasks_use_each_image_as_support_once() -> None:
    labels = labels_of(6, 7, 8)
    tasks = draw(labels, 10, 3, 2, 4)
    turned = tasks.turned(3)
    assert (len(turned), turned.shots, turned.queries) == (30, 2, 4)
    for t in range(10):
        turns = [t, t + 10, t + 20]
        images = {*tasks.support[t].tolist(), *tasks.query[t].tolist()}
        assert set(turned.support[turns].flatten().tolist()) == images
        for turn in turns:
            assert {*turned.support[turn].tolist(), *turned.query[turn].tolist()} == images
    assert torch.equal(labels.classes[turned.support], turned.classes.gather(1, turned.support_y))
    assert torch.equal(labels.classes[turned.query], turned.classes.gather(1, turned.query_y))
    assert tasks.turned(1).digest == tasks.digest


@pytest.mark.parametrize(("shots", "queries", "turns"), [(1, 5, 3), (2, 4, 3), (5, 5, 2)])
def test_turned_tasks_share_no_group(shots: int, queries: int, turns: int) -> None:
    groups = torch.randint(4, (6 * 24,), generator=Generator().manual_seed(3))
    labels = labels_of(*[24] * 6, groups=groups)
    tasks = draw(labels, 200, 4, shots, queries)
    turned = tasks.turned(turns)
    assert (len(turned), turned.shots, turned.queries) == (200 * turns, shots, queries)
    check_groups(labels, turned)
    assert torch.equal(turned.query[:200], tasks.query)
    assert torch.equal(labels.classes[turned.support], turned.classes.gather(1, turned.support_y))
    assert torch.equal(labels.classes[turned.query], turned.classes.gather(1, turned.query_y))
    anew = (turned.support[200:].view(turns - 1, 200, 4, shots) != tasks.support.view(200, 4, shots)).any(-1)
    assert anew.float().mean() > 0.9, "nearly always another image is support"
    rows, packed = tasks.compact()
    assert torch.equal(rows[packed.turned(turns).query], turned.query)
    assert torch.equal(tasks[50:].turned(2).query[:150], tasks.query[50:])


def check_groups(labels: Labels, tasks: TaskIndex) -> None:
    """No support image and no query of one class are of one group."""
    groups, n = labels.groups, len(tasks)
    assert groups is not None
    support, query = (groups[rows].view(n, tasks.ways, -1) for rows in (tasks.support, tasks.query))
    assert not (support.unsqueeze(-1) == query.unsqueeze(-2)).any()


def test_varied_tasks_have_every_shape_equally_often() -> None:
    labels, g = labels_of(*(8,) * 6), Generator().manual_seed(0)
    sets = draw_varied_tasks(labels, 2_000, ways=range(2, 6), shots=range(1, 4), queries=3, generator=g)
    shapes = {(part.ways, part.shots): len(part) for part in sets}
    assert set(shapes) == {(way, shot) for way in (2, 3, 4, 5) for shot in (1, 2, 3)}
    assert sum(shapes.values()) == 2_000
    assert chisquare(list(shapes.values())).pvalue > RARE
    assert {part.queries for part in sets} == {3}


@pytest.mark.slow
def test_ten_thousand_tasks_take_less_than_half_a_second() -> None:
    """Of processor time, so that a busy machine does not count; the 1,692 classes are Omniglot's test split."""
    labels, best = Labels.of([i // 20 for i in range(1_692 * 20)]), float("inf")
    for seed in range(3):
        start = time.process_time()
        draw(labels, 10_000, ways=5, shots=1, queries=15, seed=seed)
        best = min(best, time.process_time() - start)
    assert best < 0.5


@pytest.mark.parametrize(("n", "ways", "shots", "queries"), [(1, 5, 1, 15), (3, 2, 5, 0), (1, 20, 1, 1), (1, 1, 1, 0)])
def test_few_tasks_are_those_that_many_operations_would_draw(
    n: int, ways: int, shots: int, queries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a change of the labels of a task changes no later task."""
    labels = Labels.of(torch.arange(30).repeat_interleave(torch.arange(30)).tolist())

    def drawn() -> list[TaskIndex]:
        generator = torch.Generator().manual_seed(n)
        shape = {"ways": ways, "shots": shots, "queries": queries}
        return [draw_tasks(labels, n, **shape, generator=generator) for _ in range(3)]

    few = drawn()
    few[0].support_y[0, 0] = 7
    monkeypatch.setattr(tasks, "FEW", 0)
    for one, other in zip(few[1:], drawn()[1:], strict=True):
        assert one.digest == other.digest
        assert torch.equal(one.classes, other.classes)


def test_tasks_drawn_in_blocks_are_those_drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = labels_of(7, 9, 30, 8, 12, 8)
    at_once = draw(labels, 50, ways=4, shots=2, queries=3)
    monkeypatch.setattr(tasks, "BLOCK", 7)  # of the 200 classes of all tasks
    assert draw(labels, 50, ways=4, shots=2, queries=3).digest == at_once.digest
