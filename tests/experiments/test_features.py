"""Precomputed features: the accuracy of evaluate, retrieval against a slow formula, and arrays that cannot be used."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator, nn

from metarep.data.labels import Labels
from metarep.data.split import Split
from metarep.data.tasks import draw_tasks
from metarep.data.unbalanced import draw_unbalanced_tasks
from metarep.encoders import Encoder, Preprocess
from metarep.errors import MetarepError
from metarep.experiments.measurement import retrieval as module
from metarep.experiments.measurement.evaluation import evaluate
from metarep.experiments.measurement.features import evaluate_features, read_features
from metarep.experiments.measurement.retrieval import FarFeaturesWarning, measure_retrieval
from metarep.learners import GradientDescent, Prototypes
from metarep.learners.learner import Metric


def test_features_have_the_accuracy_of_their_images(drawings: tuple[Split, Split], preprocess: Preprocess) -> None:
    split, pixels = drawings[1], Prototypes(Encoder(nn.Flatten(), preprocess), "cosine")
    g = Generator().manual_seed(1)
    tasks = draw_tasks(split.labels, 40, ways=5, shots=1, queries=5, generator=g)
    features = pixels.prepare(split.bank.images).numpy()
    how: dict[str, Any] = {"ways": 5, "shots": 1, "queries": 5, "tasks": 40}
    report = evaluate_features(features, split.labels, metric="cosine", **how)
    assert report.per_task.tolist() == evaluate(pixels, split.bank, tasks).per_task.tolist()
    assert evaluate_features(features, split.labels, "linear", reliability=True, **how).reliability is not None
    assert evaluate_features(features, split.labels, "descent", **how).accuracy > 20
    centred = evaluate_features(features, split.labels, "simpleshot", training=features[:50], **how)
    assert centred.per_task.tolist() != report.per_task.tolist()
    assert centred.accuracy > 20
    with pytest.raises(MetarepError, match="simpleshot subtracts the mean of training features; give some"):
        evaluate_features(features, split.labels, "simpleshot", **how)
    for name in ("augmented", "averaged"):
        with pytest.raises(MetarepError, match="augments images, so it cannot work on features"):
            evaluate_features(features, split.labels, name, **how)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_retrieval_by_hand(metric: Metric, monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes of one to nine images, in chunks of a few rows."""
    g = Generator().manual_seed(0)
    labels = np.repeat(np.arange(9), np.arange(1, 10))
    rows = torch.randn(45, 3, generator=g) + torch.randn(9, 3, generator=g)[torch.from_numpy(labels)]
    x = rows.double().numpy()
    recall, precision, average = {1: [], 2: [], 4: [], 8: []}, [], []
    for i in range(45):
        same = labels == labels[i]
        if same.sum() == 1:
            continue
        far = ((x - x[i]) ** 2).sum(1)
        if metric == "cosine":
            far = -(x @ x[i]) / np.linalg.norm(x, axis=1)
        order = [j for j in np.argsort(far) if j != i]
        right = same[order]
        for k, each in recall.items():
            each.append(right[:k].any())
        r = same.sum() - 1
        precision.append(right[:r].mean())
        average.append(sum(right[: n + 1].mean() * right[n] for n in range(r)) / r)
    monkeypatch.setattr(module, "VALUES", 45 * 4)
    found = measure_retrieval(rows, labels, metric=metric)
    assert found.recall == pytest.approx({k: 100 * np.mean(each) for k, each in recall.items()})
    assert (found.r_precision, found.map_at_r) == pytest.approx((100 * np.mean(precision), 100 * np.mean(average)))
    assert (found.queries, found.gallery) == (44, 45)


def test_arrays_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    rows, labels = np.eye(40, dtype=np.float32), [i // 20 for i in range(40)]
    lost = rows.copy()
    lost[7, 3] = np.nan
    for features, classes, message in (
        (rows[0], labels, "a row for each image, not of shape"),
        (rows, labels[:9], "40 rows of features and 9 labels"),
        (lost, labels, "row 7 of the features has NaN"),
        (rows, labels, "5-way 1-shot tasks with 15 queries need 5 classes"),
    ):
        with pytest.raises(MetarepError, match=message):
            evaluate_features(features, classes)
    with pytest.raises(MetarepError, match="unknown learner 'prototype'"):
        evaluate_features(rows, labels, "prototype")
    body = Encoder(nn.Sequential(nn.Flatten(), nn.Linear(40, 4)), Preprocess((1, 40), 1, (0.0,), (1.0,)))
    with pytest.raises(MetarepError, match="adapts the body of its encoder"):
        evaluate_features(rows, labels, GradientDescent(body, scope="all"))
    with pytest.raises(MetarepError, match="no class has two images"):
        measure_retrieval(rows, list(range(40)))
    np.savez(tmp_path / "other.npz", features=rows)
    np.savez(tmp_path / "object.npz", features=rows, labels=np.array([{}], object))
    (tmp_path / "bad.npz").write_bytes(b"PK")
    for name, message in (("other", "features and labels"), ("object", "cannot be read"), ("bad", "cannot be read")):
        with pytest.raises(MetarepError, match=message):
            read_features(tmp_path / f"{name}.npz")


def test_unbalanced_tasks_say_so_wherever_they_come_from() -> None:
    labels = [i // 40 for i in range(320)]
    features = np.random.default_rng(0).normal(size=(320, 8)) + np.eye(8)[labels] * 3
    how: dict[str, Any] = {"ways": 3, "shots": 1, "queries": 4}
    drawn = evaluate_features(features, labels, "bd-cspn", tasks=20, balance="dirichlet", **how)
    even = evaluate_features(features, labels, "bd-cspn", tasks=20, **how)
    assert (drawn.answers, even.answers) == ("transductive, dirichlet", "transductive, balanced")
    tasks = draw_unbalanced_tasks(Labels.of(labels), 20, **how, generator=Generator().manual_seed(1))
    given = evaluate_features(features, labels, "bd-cspn", tasks=tasks)
    assert given.answers == "transductive, unbalanced"
    assert given.per_task.tolist() == drawn.per_task.tolist()
    with pytest.raises(MetarepError, match=r"the tasks use image \d+, and there are 40 rows of features"):
        evaluate_features(features[:40], labels[:40], tasks=tasks)
    with pytest.raises(MetarepError, match="training must be a table of finite numbers with 8 columns"):
        evaluate_features(features, labels, "simpleshot", training=features[:, :3], tasks=20, **how)
    with pytest.raises(MetarepError, match=r"may get all 60 queries, .*; take at most 13 queries a class"):
        draw_unbalanced_tasks(Labels.of(labels), 2, ways=3, shots=1, queries=20, generator=Generator())


def test_damaged_files_of_features_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    good = {"features": np.random.default_rng(0).normal(size=(100, 4)), "labels": np.arange(100) // 10}
    np.savez_compressed(path, **good)
    content = bytearray(path.read_bytes())
    content[120:160] = bytes(40)
    path.write_bytes(content)
    with pytest.raises(MetarepError, match=r"cannot be read as an \.npz file"):
        read_features(path)
    np.savez(path, **(good | {"features": good["features"].astype(str)}))
    with pytest.raises(MetarepError, match="features must be an array of numbers"):
        read_features(path)
    np.savez(path, **good, training=good["features"])
    assert read_features(path)[2] is not None


def test_figures_by_distances_are_the_same_wherever_the_features_lie() -> None:
    """A shift changes no distance."""
    rows = np.random.default_rng(0).normal(size=(560, 24)) + np.repeat(np.eye(14, 24), 40, 0)
    labels, found = np.repeat(np.arange(14), 40), []
    for table in (rows, rows + 1000):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", FarFeaturesWarning)
            retrieval = measure_retrieval(table, labels, metric="euclidean")
            found.append((retrieval.map_at_r, evaluate_features(table, labels, "prototypes", tasks=200).accuracy))
        assert [each.category for each in told] == ([] if table is rows else [FarFeaturesWarning] * 2)
    assert found[1] == pytest.approx(found[0], abs=0.05)
    assert "times as far from the origin as from their mean, so float32 has too few digits" in str(told[0].message)
