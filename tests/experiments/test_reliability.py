"""Open set, calibration, worst class and worst task: against slow formulas in float64, and where the truth is known."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ranks import run_ranks
from torch import Generator, Tensor, nn

from metarep.data.labels import Labels
from metarep.data.split import Split
from metarep.data.tasks import TaskIndex, draw_tasks, draw_varied_tasks
from metarep.data.unknown import draw_unknown
from metarep.encoders import Encoder, Preprocess
from metarep.errors import MetarepError
from metarep.experiments.measurement.calibration import (
    BINS,
    LEVELS,
    calibration_error,
    confidence_bins,
    conformal_threshold,
    levels,
)
from metarep.experiments.measurement.evaluation import evaluate, evaluate_rows
from metarep.experiments.measurement.open_set import auroc, false_alarms
from metarep.experiments.measurement.reliability import FIGURES, Reliability, Tally
from metarep.experiments.measurement.shards import Shard, merge_shards, write_shard
from metarep.learners import LEARNERS, Learner, Neighbours, Prototypes


def learner(kind: type[Learner] = Prototypes, dim: int = 2) -> Learner:
    encoder = Encoder(nn.Flatten(), Preprocess((1, dim), 1, (0.0,), (1.0,)))
    encoder.feature_means = torch.zeros(2, dim)
    return kind(encoder)


def points(classes: int, each: int, dim: int, apart: float, seed: int = 0) -> tuple[Tensor, Labels]:
    """Rows of a normal distribution around the mean of their class; the means are ``apart`` from zero."""
    generator = Generator().manual_seed(seed)
    labels = Labels.of([i // each for i in range(classes * each)])
    means = apart * torch.randn(classes, dim, generator=generator)
    return means[labels.classes] + torch.randn(len(labels), dim, generator=generator), labels


def tasks_of(labels: Labels, n: int, ways: int = 5, queries: int = 5) -> TaskIndex:
    return draw_tasks(labels, n, ways=ways, shots=2, queries=queries, generator=Generator().manual_seed(1))


def test_auroc_and_false_alarms_by_hand() -> None:
    """All pairs, one by one; whole numbers, so that there are ties."""
    generator = Generator().manual_seed(0)
    known, unknown = (torch.randint(low, high, (20, 40), generator=generator).float() for low, high in ((3, 9), (0, 7)))
    for k, u, area, alarms in zip(known, unknown, auroc(known, unknown), false_alarms(known, unknown), strict=True):
        pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in k.tolist() for b in u.tolist()]
        assert area.item() == pytest.approx(np.mean(pairs))
        threshold = max(t for t in k.tolist() if np.mean([a >= t for a in k.tolist()]) >= 0.95)
        assert alarms.item() == pytest.approx(np.mean([b >= threshold for b in u.tolist()]))


def test_random_scores_have_an_area_of_a_half_and_separate_ones_of_one() -> None:
    generator = Generator().manual_seed(0)
    known, unknown = torch.rand(2, 400, 75, generator=generator)
    assert auroc(known, unknown).mean().item() == pytest.approx(0.5, abs=0.01)
    assert false_alarms(known, unknown).mean().item() == pytest.approx(0.95, abs=0.01)
    assert auroc(known + 1, unknown).eq(1).all()
    assert false_alarms(known + 1, unknown).eq(0).all()
    for apart, wanted in ((0.0, 50), (1000.0, 100)):
        rows, labels = points(20, 20, 8, apart)
        report = evaluate_rows(learner(), rows, [tasks_of(labels, 300)], reliability=True, labels=labels)
        assert report.reliability is not None
        assert report.reliability.auroc == pytest.approx(wanted, abs=1.5)


def test_the_calibration_error_by_hand() -> None:
    generator = Generator().manual_seed(0)
    logits = 2 * torch.randn(3000, 4, generator=generator)
    probability, answer = logits.softmax(-1).max(-1)
    right = (answer == torch.randint(4, (3000,), generator=generator)).float()
    p, r = probability.double().numpy(), right.double().numpy()
    error = 0.0
    for b in range(BINS):
        inside = (p > b / BINS) & (p <= (b + 1) / BINS)
        error += inside.mean() * abs(r[inside].mean() - p[inside].mean()) if inside.any() else 0
    parts = [confidence_bins(a, b) for a, b in zip(probability.split(700), right.split(700), strict=True)]
    assert calibration_error(torch.stack(parts).sum(0)) == pytest.approx(error, abs=1e-6)
    assert torch.equal(torch.stack(parts).sum(0), confidence_bins(probability, right)), "parts have the same digits"


def test_a_lost_score_gives_no_figure() -> None:
    lost, fine = torch.tensor([[math.nan, 0.2], [0.9, 0.8]]), torch.tensor([[0.1, 0.3], [0.1, 0.3]])
    for figure, right in ((auroc, 1.0), (false_alarms, 0.0)):
        for found in (figure(lost, fine), figure(-fine, -lost)):
            assert math.isnan(found[0])
            assert found[1] == right


def test_levels_and_threshold_by_hand() -> None:
    generator = Generator().manual_seed(0)
    logits = 5 * torch.randn(500, 6, generator=generator)
    exact = logits.double().softmax(-1)
    ratio = (5 * exact / (1 - exact)).log()  # 0 for a guess
    size = (ratio.abs().log2() + 20) * 256
    assert (levels(logits) - (10240 + size.clamp_min(0) * ratio.sign())).abs().max() < 1.01, "in the same step"
    true = levels(logits)[:, 0]
    counts = true.bincount(minlength=LEVELS)
    kth = sorted(true.tolist(), reverse=True)[math.ceil(501 * 0.9) - 1]
    assert conformal_threshold(counts) == kth
    assert levels(torch.full((1, 2), math.nan)).tolist() == [[0, 0]]


@pytest.mark.parametrize("times", [1e-3, 0.01, 1.0, 30.0, 1000.0])
def test_label_sets_are_those_of_float64_however_flat_or_steep_the_logits_are(times: float) -> None:
    generator = Generator().manual_seed(0)
    query_y = torch.arange(5).repeat(3).expand(400, 15)
    logits = torch.randn(400, 15, 5, generator=generator) + 2 * torch.nn.functional.one_hot(query_y, 5)
    tally = Tally.of(times * logits, query_y, 0, 0.0)
    found = Reliability.of(tally, torch.zeros(400))
    exact = (times * logits).double()
    above = exact - exact.amax(-1, keepdim=True)
    rest = torch.stack([torch.cat([above[..., :k], above[..., k + 1 :]], -1).logsumexp(-1) for k in range(5)], -1)
    odds = above - rest  # in the order of softmax probabilities, also where these are 1 in float64
    own = odds.gather(-1, query_y.unsqueeze(-1)).squeeze(-1)
    size = held = 0.0
    for half in (0, 1):
        other = own[1 - half :: 2].flatten().sort(descending=True).values
        least = other[math.ceil((len(other) + 1) * 0.9) - 1]
        size += (odds[half::2] >= least).sum().item() / own.numel()
        held += 100 * (own[half::2] >= least).sum().item() / own.numel()
    assert found.set_size == pytest.approx(size, abs=0.02)
    assert found.coverage == pytest.approx(held, abs=0.2)


def test_label_sets_cover_as_often_as_they_say() -> None:
    """New tasks of the same classes: 90 %, within the error of 2,000 tasks; easy tasks have smaller sets."""
    sizes = []
    for apart in (0.5, 1.0):
        rows, labels = points(40, 30, 4, apart)
        report = evaluate_rows(learner(), rows, [tasks_of(labels, 2000)], reliability=True, labels=labels)
        assert report.reliability is not None
        assert report.reliability.coverage == pytest.approx(90, abs=1.0)  # standard error: 0.3
        sizes.append(report.reliability.set_size)
    assert 5 > sizes[0] > sizes[1] > 0.9


def test_worst_class_and_worst_task_by_hand(drawings: tuple[Split, Split], preprocess: Preprocess) -> None:
    split, pixels = drawings[1], Prototypes(Encoder(nn.Flatten(), preprocess))
    tasks = tasks_of(split.labels, 40)
    report = evaluate(pixels, split.bank, tasks, reliability=True, labels=split.labels)
    assert report.reliability is not None
    rows = pixels.prepare(split.bank.images)
    worst = []
    for task in tasks.chunks(1):
        support, support_y, query, query_y, ways = task.of(rows)
        right = pixels.logits(pixels.adapt(support, support_y, ways), query).argmax(-1) == query_y
        worst.append(min(right[query_y == way].double().mean().item() for way in range(ways)))
    assert report.reliability.worst_class == pytest.approx(100 * np.mean(worst), abs=1e-4)
    assert report.reliability.worst_task == report.per_task.min()
    assert report.reliability.low_task == pytest.approx(np.quantile(report.per_task.numpy(), 0.05))
    assert report.reliability.task_seconds > 0
    plain = evaluate(pixels, split.bank, tasks)
    assert torch.equal(plain.per_task, report.per_task), "the accuracy is the same to the last digit"
    assert {*report.as_dict()} - {*plain.as_dict()} == {*FIGURES, "without_unknown"}


def test_unknown_queries_are_of_other_classes_and_all_equally_likely() -> None:
    labels = Labels.of([i // 8 for i in range(96)])
    tasks = tasks_of(labels, 600, ways=4)
    rows = draw_unknown(labels, tasks, Generator().manual_seed(0))
    assert rows is not None
    assert rows.shape == tasks.query.shape
    classes = labels.classes[rows].view(600, 4, 5)
    assert (classes == classes[..., :1]).all(), "as many images of each class"
    for own, other, some in zip(tasks.classes.tolist(), classes[..., 0].tolist(), rows.tolist(), strict=True):
        assert len({*own, *other}) == 8
        assert len({*some}) == 20
    assert classes[..., 0].flatten().bincount().sub(200).abs().max() < 60


@pytest.mark.parametrize("name", sorted(LEARNERS))
def test_every_learner_has_every_figure(name: str) -> None:
    """Also with ways and shots that vary."""
    rows, labels = points(12, 12, 6, 3.0)
    g = Generator().manual_seed(0)
    sets = draw_varied_tasks(labels, 30, ways=range(2, 6), shots=range(1, 4), queries=4, generator=g)
    if name == "augmented":
        rows = rows.unsqueeze(1)  # its rows have an axis of views
    found = evaluate_rows(learner(LEARNERS[name], 6), rows, sets, reliability=True, labels=labels).reliability
    assert found is not None
    assert all(math.isfinite(getattr(found, figure)) for figure in FIGURES), found
    assert found.auroc > 70


def test_nearest_rows_say_how_near_they_are() -> None:
    """The share of votes of one neighbour is always 1; its similarity is not."""
    rows, labels = points(12, 12, 6, 3.0)
    found = evaluate_rows(learner(Neighbours, 6), rows, [tasks_of(labels, 50)], reliability=True, labels=labels)
    assert found.reliability is not None
    assert found.reliability.auroc > 70


def test_too_few_classes_leave_the_open_set_empty() -> None:
    rows, labels = points(9, 12, 2, 3.0)
    found = evaluate_rows(learner(), rows, [tasks_of(labels, 20)], reliability=True, labels=labels).reliability
    assert found is not None
    assert math.isnan(found.auroc)
    assert math.isnan(found.false_alarms)
    assert "no open set: 5 known and 5 unknown classes of 5 queries are more than the 9 classes can give" in str(found)


@pytest.mark.slow
def test_shards_merge_to_the_same_figures(
    drawings: tuple[Split, Split], preprocess: Preprocess, tmp_path: Path
) -> None:
    split, pixels = drawings[1], Prototypes(Encoder(nn.Flatten(), preprocess))
    tasks, paths = tasks_of(split.labels, 500), [tmp_path / f"{number}.json" for number in (1, 2, 3)]
    how = {"reliability": True, "labels": split.labels}
    for number, path in enumerate(paths, 1):
        report = evaluate(pixels, split.bank, tasks, shard=Shard(number, 3), **how)
        assert report.reliability is not None
        write_shard(path, Shard(number, 3), [(report.as_dict(), report.per_task, report.reliability.tally)])
    whole, (merged,) = evaluate(pixels, split.bank, tasks, **how).as_dict(), merge_shards(paths)
    same = {*FIGURES, "accuracy", "ci95", "tasks"} - {"task_seconds"}
    assert {name: merged[name] for name in same} == {name: whole[name] for name in same}
    for old, new in (('"true": [[0', '"true": [[-1'), ('"tally"', '"other"')):
        paths[0].write_text(paths[0].read_text().replace(old, new, 1))
        with pytest.raises(MetarepError, match=r"is not a shard|only some of the shards measured"):
            merge_shards(paths)
        paths[0].write_text(paths[0].read_text().replace(new, old, 1))


def of_a_rank() -> dict[str, Any]:
    rows, labels = points(20, 12, 4, 1.0)
    tasks = tasks_of(labels, 400)
    return evaluate_rows(learner(), rows, [tasks], reliability=True, labels=labels).as_dict()


@pytest.mark.slow
def test_two_processes_give_the_same_figures() -> None:
    whole, *each = of_a_rank(), *run_ranks(2, of_a_rank)
    for name in {*FIGURES, "accuracy", "ci95"} - {"task_seconds"}:
        assert [one[name] for one in each] == [whole[name]] * 2, name


def test_a_settled_learner_gives_the_same_digits() -> None:
    """Each image is normalised once instead of once in each task that it is in."""
    for kind in (Prototypes, Neighbours):
        for dim in (3, 64, 1280):
            rows, labels = points(8, 10, dim, 0.3)
            own = kind(Encoder(nn.Flatten(), Preprocess((1, dim), 1, (0.0,), (1.0,))), metric="cosine")
            task, settled = tasks_of(labels, 20), own.settled()
            assert settled is not own
            logits = []
            for each, used in ((own, rows), (settled, own.settle(rows))):
                support, support_y, query, _, ways = task.of(used)
                logits.append(each.logits(each.adapt(support, support_y, ways), query))
            assert torch.equal(*logits)


def test_a_subclass_gets_its_rows_as_they_are() -> None:
    class Other(Prototypes):
        """May compare rows in a way of its own."""

    rows, other = torch.randn(3, 4), Other(Encoder(nn.Flatten(), Preprocess((1, 4), 1, (0.0,), (1.0,))), "cosine")
    assert other.settled() is other
    assert torch.equal(other.settle(rows), rows)
