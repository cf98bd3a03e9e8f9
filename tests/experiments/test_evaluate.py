"""evaluate: the number, its interval, and that nothing a query gets depends on other queries."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from thinning import few
from torch import Generator, Tensor, nn

from metarep.data.datasets.omniglot_runs import Runs
from metarep.data.labels import Labels
from metarep.data.split import Split
from metarep.data.tasks import TaskIndex, draw_tasks, draw_varied_tasks
from metarep.encoders import Encoder, Preprocess
from metarep.errors import LeakageError, MetarepError
from metarep.experiments.measurement.evaluation import evaluate
from metarep.experiments.measurement.lake_runs import error_rate
from metarep.experiments.measurement.measure import Setting, measure, measure_all
from metarep.learners import Linear, Neighbours, Pairwise, Prototypes
from metarep.methods import ProtoNet
from metarep.weights.checkpoint import Checkpoint
from metarep.weights.record import RunRecord
from metarep.weights.seen import key_digest

Drawings = tuple[Split, Split]
Make = Callable[..., Encoder]


def tasks_of(split: Split, n: int = 40, ways: int = 4, shots: int = 2, queries: int = 3, seed: int = 0) -> TaskIndex:
    g = Generator().manual_seed(seed)
    return draw_tasks(split.labels, n, ways=ways, shots=shots, queries=queries, generator=g)


def warm(encoder: Encoder, split: Split) -> Encoder:
    """Running statistics that are those of no single batch."""
    encoder.train()
    with torch.no_grad():
        for start in range(0, 200, 20):
            encoder(split.bank.images[start : start + 20])
    return encoder


def test_accuracy_and_interval_by_hand(drawings: Drawings, preprocess: Preprocess) -> None:
    split = drawings[1]
    tasks = tasks_of(split)
    report = evaluate(Prototypes(Encoder(nn.Flatten(), preprocess)), split.bank, tasks, split=split.name)
    pixels = 1 - split.bank.images.flatten(1).numpy() / 255
    accuracies = []
    for t in range(len(tasks)):
        means = [
            np.mean([pixels[row] for row, y in zip(tasks.support[t], tasks.support_y[t], strict=True) if y == way], 0)
            for way in range(4)
        ]
        right = [
            int(np.argmin([((pixels[row] - mean) ** 2).sum() for mean in means])) == int(y)
            for row, y in zip(tasks.query[t], tasks.query_y[t], strict=True)
        ]
        accuracies.append(100 * np.mean(right))
    assert report.per_task.tolist() == pytest.approx(accuracies, abs=1e-4)
    assert report.accuracy == pytest.approx(np.mean(accuracies))
    assert report.ci95 == pytest.approx(1.96 * np.std(accuracies, ddof=1) / math.sqrt(40), rel=1e-5)
    assert 25 < report.accuracy < 100
    assert (report.tasks, report.ways, report.shots, report.queries) == (40, "4", "2", 3)
    assert (report.protocol, report.normalisation, report.learner) == ("inductive", "running", "prototypes")
    assert (report.split, report.digest) == ("drawings/test", tasks.digest)
    assert report.seconds > 0
    assert f"4-way 2-shot: {report.accuracy:.2f} ± {report.ci95:.2f} % (40 tasks of 3 queries" in str(report)
    assert "per_task" not in report.as_dict()


@pytest.mark.slow
def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Labels that mean nothing: the true accuracy is chance, and 95 of 100 intervals hold it."""
    from metarep.data.images import ImageBank

    g = Generator().manual_seed(0)
    bank = ImageBank.from_arrays(torch.randint(256, (2_000, 2, 2), dtype=torch.uint8, generator=g))
    labels = Labels.of([i % 50 for i in range(2_000)])
    learner = Prototypes(Encoder(nn.Flatten(), Preprocess((2, 2), 1, (0.0,), (1.0,))))
    covered = 0
    for _ in range(200):
        report = evaluate(learner, bank, draw_tasks(labels, 100, ways=5, shots=1, queries=5, generator=g))
        covered += abs(report.accuracy - 20) < report.ci95
    assert 178 <= covered <= 199


@pytest.mark.parametrize("name", ["conv4", pytest.param("resnet12", marks=pytest.mark.slow)])
def test_the_batch_size_changes_nothing(drawings: Drawings, small_encoder: Make, name: str) -> None:
    split = drawings[1]
    learner, tasks = Prototypes(warm(small_encoder(name), split)), tasks_of(split)
    reports = [evaluate(learner, split.bank, tasks, batch=batch) for batch in (1, 7, 256, 10_000)]
    for report in reports[1:]:
        assert torch.equal(report.per_task, reports[0].per_task)


@pytest.mark.slow
@pytest.mark.parametrize("kind", few([Prototypes, Pairwise, Neighbours, Linear], 2))
def test_a_query_does_not_depend_on_the_others(drawings: Drawings, small_encoder: Make, kind: Any) -> None:
    """End to end through batch normalisation: one query at a time, or in another order, scores the same."""
    split = drawings[1]
    learner = kind(warm(small_encoder(), split))
    learner.train()
    tasks = tasks_of(split)
    whole = evaluate(learner, split.bank, tasks).per_task
    order = torch.randperm(12, generator=Generator().manual_seed(0))
    moved = replace(tasks, query=tasks.query[:, order], query_y=tasks.query_y[:, order])
    assert torch.allclose(evaluate(learner, split.bank, moved).per_task, whole)
    alone = [
        evaluate(
            learner, split.bank, replace(tasks, query=tasks.query[:, i : i + 1], query_y=tasks.query_y[:, i : i + 1])
        )
        for i in range(12)
    ]
    assert torch.allclose(torch.stack([report.per_task for report in alone]).mean(0), whole)


def test_the_mode_the_statistics_and_gradients_stay_as_they_were(drawings: Drawings, small_encoder: Make) -> None:
    split, learner = drawings[1], Prototypes(small_encoder()).train()
    norms = [layer for layer in learner.modules() if isinstance(layer, nn.BatchNorm2d)]
    norms[0].eval()  # someone has frozen the first one
    modes = [layer.training for layer in learner.modules()]
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    evaluate(learner, split.bank, tasks_of(split))
    assert [layer.training for layer in learner.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in learner.state_dict().items())
    assert torch.is_grad_enabled()
    learner.eval()
    evaluate(learner, split.bank, tasks_of(split))
    assert not any(layer.training for layer in learner.modules())


def test_the_mode_is_restored_after_an_error(drawings: Drawings, small_encoder: Make) -> None:
    class Failing(Prototypes):
        def adapt(self, support: Tensor, labels: Tensor, ways: int) -> dict[str, Tensor]:
            raise RuntimeError("on purpose")

    split, learner = drawings[1], Failing(small_encoder()).train()
    with pytest.raises(RuntimeError, match="on purpose"):
        evaluate(learner, split.bank, tasks_of(split))
    assert learner.training
    assert torch.is_grad_enabled()


def test_each_image_is_prepared_once(drawings: Drawings, small_encoder: Make) -> None:
    class Counting(Prototypes):
        prepared = 0

        def prepare(self, x: Tensor) -> Tensor:
            assert not torch.is_grad_enabled(), "a graph of every image would fill the memory"
            self.prepared += len(x)
            return super().prepare(x)

    split, learner = drawings[1], Counting(small_encoder())
    tasks = tasks_of(split, n=300)
    evaluate(learner, split.bank, tasks)
    assert learner.prepared == len({*tasks.support.flatten().tolist(), *tasks.query.flatten().tolist()})


def test_measurements_of_one_learner_share_its_rows(drawings: Drawings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures are those of measurements by themselves, and no image goes through the encoder twice."""
    encoder = Encoder(nn.Flatten(), Preprocess((28, 28), 1, (0.0,), (1.0,)))
    settings = [Setting(range(ways, ways + 1), range(1, 2), queries=3, tasks=40) for ways in (2, 5, 4)]
    split, seen = drawings[1], []
    alone = [measure(Prototypes(encoder), split, setting).per_task.tolist() for setting in settings]
    monkeypatch.setattr(Prototypes, "prepare", lambda self, x: (seen.extend(x.flatten(1).tolist()), self.embed(x))[1])
    found = [
        report.per_task.tolist() for _, report in measure_all(Prototypes(encoder), split, settings, references=False)
    ]
    assert found == alone
    assert len(seen) == len({*map(tuple, seen)}) <= len(split.bank)


def test_tasks_of_several_shapes_are_pooled(drawings: Drawings, small_encoder: Make) -> None:
    split, learner = drawings[1], Prototypes(small_encoder())
    g = Generator().manual_seed(0)
    sets = draw_varied_tasks(split.labels, 60, ways=range(2, 5), shots=range(1, 3), queries=3, generator=g)
    whole = evaluate(learner, split.bank, sets)
    parts = [evaluate(learner, split.bank, part).per_task for part in sets]
    assert torch.allclose(whole.per_task, torch.cat(parts))
    assert whole.accuracy == pytest.approx(torch.cat(parts).mean().item())
    assert (whole.tasks, whole.ways, whole.shots) == (60, "2-4", "1-2")
    other = [*sets[:-1], tasks_of(split, len(sets[-1]), sets[-1].ways, sets[-1].shots, seed=9)]
    assert evaluate(learner, split.bank, other).digest != whole.digest, "the digest names all of the tasks"


def test_progress_rises_to_one(drawings: Drawings, small_encoder: Make) -> None:
    split, seen = drawings[1], []
    evaluate(Prototypes(small_encoder()), split.bank, tasks_of(split), batch=50, on_progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1)
    assert 0 < seen[0] < 0.8


def test_no_tasks_is_an_error(drawings: Drawings, small_encoder: Make) -> None:
    with pytest.raises(MetarepError, match="there are no tasks to evaluate on"):
        evaluate(Prototypes(small_encoder()), drawings[1].bank, [])


def test_one_task_has_no_interval(drawings: Drawings, small_encoder: Make) -> None:
    assert math.isnan(evaluate(Prototypes(small_encoder()), drawings[1].bank, tasks_of(drawings[1], n=1)).ci95)


def test_classes_that_were_seen_are_refused(small_encoder: Make) -> None:
    """By key, not by name: a rotated character is still that character."""
    seen = frozenset(key_digest(f"omniglot/{c}") for c in "abcde")
    trained = Checkpoint.of(ProtoNet(small_encoder()), RunRecord("protonet"), seen)

    def labels(*keys: str) -> Labels:
        return Labels(torch.arange(len(keys)), tuple(f"class {i}" for i in range(len(keys))), keys)

    trained.refuse_seen(labels("omniglot/x", "omniglot/y", "other/a"), "omniglot/test")
    with pytest.raises(LeakageError, match=r"1 of the 2 classes of omniglot/test were seen in training \(class 1\)"):
        trained.refuse_seen(labels("omniglot/x", "omniglot/a"), "omniglot/test")
    with pytest.raises(LeakageError, match=r"6 of the 6 classes of some were .*\(class 0, class 2, class 3, …\)"):
        trained.refuse_seen(labels(*(f"omniglot/{c}" for c in "aabcde")), "some")  # two turns of one character
    with pytest.raises(LeakageError, match=r"\(omniglot/a\): an accuracy"):
        trained.refuse_keys(["omniglot/a"], "runs without names")


def test_the_error_of_one_shot_runs_by_hand(drawings: Drawings, small_encoder: Make) -> None:
    """One answer for each test drawing by itself; the interval is over runs."""
    bank, learner = drawings[1].bank, Prototypes(warm(small_encoder(), drawings[0])).eval()
    rows = torch.arange(800).view(40, 20)[:, :2].reshape(4, 10, 2)  # of each class one to learn from and one to ask for
    query_y = torch.stack([torch.randperm(10, generator=Generator().manual_seed(run)) for run in range(4)])
    query = rows[..., 1].gather(1, query_y)
    runs = Runs(bank, rows[..., 0].contiguous(), query, torch.arange(10).repeat(4, 1), query_y, ((),) * 4)
    report = error_rate(learner, runs)
    with torch.no_grad():
        features = learner.embed(bank.images).view(4, 10, 20, -1)
    wrong = []
    for support, asked in zip(features[:, :, 0], features[:, :, 1], strict=True):
        nearest = [int(((support - each) ** 2).sum(1).argmin()) for each in asked]
        wrong.append(100 * np.mean([guess != own for own, guess in enumerate(nearest)]))
    assert report.error == pytest.approx(np.mean(wrong))
    assert report.ci95 == pytest.approx(1.96 * np.std(wrong, ddof=1) / math.sqrt(4))
    assert 0 < report.error < 90
    assert len(set(wrong)) > 1
    assert (report.runs, report.ways, report.protocol, report.learner) == (4, 10, "inductive", "prototypes")
    assert error_rate(learner.train(), runs) == report, "running statistics"
    assert learner.training
