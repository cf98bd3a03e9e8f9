"""Measurements on features that another program has computed: arrays in, a report out."""

import zipfile
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from metarep.data.labels import Labels
from metarep.data.task_index import TaskIndex
from metarep.encoders import Encoder, Preprocess
from metarep.encoders.feature_means import means_of
from metarep.errors import DataError, MetarepError, TooLargeError, unknown
from metarep.experiments.measurement.evaluation import evaluate_rows
from metarep.experiments.measurement.measure import Setting
from metarep.experiments.measurement.report import Balance, Report
from metarep.experiments.measurement.results import commit
from metarep.experiments.measurement.retrieval import checked_features
from metarep.learners import LEARNERS, Learner, written
from metarep.machine.device import available_bytes, hardware


def evaluate_features(
    features: Float[Tensor, "n dim"] | np.ndarray,
    labels: "Labels | list[Any] | np.ndarray | Tensor",
    learner: str | Learner = "prototypes",
    *,
    ways: int | range = 5,
    shots: int | range = 1,
    queries: int = 15,
    tasks: int | list[TaskIndex] | TaskIndex = 2000,
    seed: int = 1,
    split: str = "features",
    reliability: bool = False,
    balance: Balance = "balanced",
    training: Float[Tensor, "m dim"] | np.ndarray | None = None,
    **settings: Any,  # noqa: ANN401 - the learner's own
) -> Report:
    """Measure the accuracy of a learner on tasks of precomputed features.

    Args:
        features: one row for each image, of classes that the encoder has not seen.
        labels: the class of each image.
        learner: a name of ``LEARNERS``, or a learner that does not adapt the body. Its encoder is not used.
        ways, shots: a number, or a range from which each task draws.
        queries: query images of each class.
        tasks: the number of tasks; or sets of tasks, and then ways, shots, queries and seed are theirs.
        seed: seed of the tasks; the same seed gives the same tasks for the same labels.
        split: name of the data, for the report.
        reliability: also measure open set, calibration, worst class and worst task.
        balance: ``balanced``, or ``dirichlet`` for different numbers of queries; see ``draw_unbalanced_tasks``.
        training: features of training images, for learners that subtract their mean, such as ``simpleshot``.
        settings: arguments of the learner, such as ``metric="cosine"``.

    Raises:
        DataError: features and labels do not belong together, or have too few images for such tasks.
        MetarepError: an unknown learner, or one that adapts the body.

    >>> import torch
    >>> labels = [i // 20 for i in range(200)]
    >>> features = torch.eye(10)[torch.tensor(labels)] + 0.01 * torch.arange(200.0).unsqueeze(1) / 200
    >>> evaluate_features(features, labels, ways=5, shots=1, queries=5, tasks=10).accuracy
    100.0
    """
    rows, known = checked_features(features, labels)
    solver = _learner(learner, rows.shape[1], training, settings)
    if isinstance(tasks, int):
        kinds, counts = (each if isinstance(each, range) else range(each, each + 1) for each in (ways, shots))
        sets = Setting(kinds, counts, queries, tasks, seed, balance=balance).draw(known)
    else:
        sets = [tasks] if isinstance(tasks, TaskIndex) else list(tasks)
        balance = Setting.of_tasks(sets).balance
        last = max(int(max(each.support.max(), each.query.max())) for each in sets)
        if last >= len(rows):
            raise DataError(f"the tasks use image {last}, and there are {len(rows):,} rows of features")
    report = evaluate_rows(solver, rows, sets, split=split, reliability=reliability, labels=known)
    return replace(report, balance=balance)


def read_features(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """The arrays ``features`` and ``labels`` of an ``.npz`` file, and ``training`` if it has one.

    Args:
        path: the file. It may come from a stranger: no code in it is run, and its sizes are checked first.

    Raises:
        TooLargeError: its arrays take more than half of the free memory.
        DataError: it is damaged, or has no such arrays.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(each.file_size for each in archive.infolist())
        if total > (free := available_bytes() // 2):
            raise TooLargeError(f"{path} has {total:,} bytes of arrays; half of the free memory is {free:,}")
        with np.load(path, allow_pickle=False) as arrays:
            features, labels, training = arrays["features"], arrays["labels"], arrays.get("training")
        for name, array in (("features", features), ("labels", labels), ("training", training)):
            kinds = "iufUSb" if name == "labels" else "iuf"
            if array is not None and (not isinstance(array, np.ndarray) or array.dtype.kind not in kinds):
                raise DataError(f"{path}: {name} must be an array of {'labels' if name == 'labels' else 'numbers'}")
        return features, labels, training
    except KeyError:
        raise DataError(f"{path} must hold the arrays features and labels") from None
    except (OSError, ValueError, MemoryError, zlib.error, zipfile.BadZipFile, EOFError) as error:
        if isinstance(error, MetarepError):
            raise
        raise DataError(f"{path} cannot be read as an .npz file of features and labels: {error}") from error


def features_row(path: Path, report: Report, dim: int) -> dict[str, Any]:
    """A row of a results table for features of a file.

    Args:
        path: the file.
        report: their measurement.
        dim: how many numbers an image has.

    Returns:
        The value of each column, by name.
    """
    about = {"method": "features", "encoder": f"{path.name}, {dim} numbers", "data": path.stem, "split": ""}
    about |= {"protocol": report.answers, "seeds": 1, "hardware": hardware(), "commit": commit(), "run": str(path)}
    return report.as_dict() | about


def _learner(learner: str | Learner, dim: int, training: Any, settings: dict[str, Any]) -> Learner:  # noqa: ANN401
    """The learner with a placeholder for its encoder, because features are given instead of images."""
    if isinstance(learner, str):
        if learner not in LEARNERS:
            raise unknown("learner", learner, LEARNERS)
        encoder = Encoder(nn.Flatten(), Preprocess((1, dim), 1, (0.0,), (1.0,)), {"name": "features"})
        if training is not None:
            table = torch.as_tensor(training)
            if table.ndim != 2 or table.shape[1] != dim or not len(table) or not bool(table.isfinite().all()):
                raise DataError(
                    f"training must be a table of finite numbers with {dim} columns, as features, not of shape "
                    f"{tuple(table.shape)}"
                )
            encoder.feature_means = means_of(table).float()
        elif learner == "simpleshot" or settings.get("centre"):
            raise MetarepError(f"{learner} subtracts the mean of training features; give some as training")
        name, learner = learner, LEARNERS[learner](encoder, **settings)
        learner.chosen = written(name, settings)
    if learner.state_numbers or learner.of_copies:
        what = "adapts the body of its encoder" if learner.state_numbers else "augments images"
        raise MetarepError(f"{learner.called} {what}, so it cannot work on features; take another learner")
    return learner
