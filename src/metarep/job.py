"""A training as one value: what, on what, how. The command line, recipes and quickstart all go through here."""

import inspect
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from metarep.augment import preset
from metarep.checkpoint import build_method, check_settings, key_digest
from metarep.datasets import load
from metarep.datasets.split import Split
from metarep.device import pick_device, pick_precision
from metarep.encoders import Preprocess, build_encoder
from metarep.errors import MetarepError
from metarep.methods import METHODS, Method
from metarep.run import RunFolder
from metarep.settings import TrainSettings
from metarep.training import Outcome, Watch, train


@dataclass(frozen=True)
class Job:
    """Everything that names a training.

    Args:
        method: its name.
        settings: the method's own.
        train: settings of ``TrainSettings``, over the method's defaults. ``augment`` may be left out: drawings then get
            the preset ``drawings`` and other images ``photos``; and ``ways``, which are then no more than the classes.
        data: data set, as ``name`` or ``name:argument``.
        train_on: ``train``, with validation tasks from ``val``; or ``trainval``, which leaves nothing to validate on
            and keeps the last weights: for a last training with steps that were chosen on validation before.
        size: side of the images in pixels; None for the data set's own.
        encoder: name and settings of the body.
    """

    method: str
    settings: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    data: str = "glyphs"
    train_on: str = "train"
    size: int | None = None
    encoder: dict[str, Any] = field(default_factory=lambda: {"name": "conv4"})

    def __post_init__(self) -> None:
        if self.train_on not in ("train", "trainval"):
            raise MetarepError(
                f"train_on must be train or trainval, not {self.train_on!r}; test classes are never trained on"
            )
        check_settings(self.method, self.settings)
        preset(self.train_settings.augment)

    @property
    def train_settings(self) -> TrainSettings:
        """Settings of the training: the job's own, over the method's defaults."""
        return TrainSettings(**{**METHODS[self.method].defaults, **self.train})


def start(
    job: Job,
    out: Path,
    *,
    device: str = "auto",
    precision: str = "auto",
    data_dir: Path | None = None,
    skip_bad: bool = False,
    watch: Watch | None = None,
) -> tuple[Method, Outcome]:
    """Train what ``job`` says into the run folder ``out``, or go on where it stopped.

    Raises:
        MetarepError: unknown names or settings, data that cannot be had, a folder that holds another run.
    """
    place = pick_device(device)
    split = load(job.data, job.train_on, size=job.size, data_dir=data_dir, skip_bad=skip_bad)
    validation = None
    if job.train_on == "train":
        validation = load(job.data, "val", size=job.size, data_dir=data_dir, skip_bad=skip_bad)
    method, settings = build(job, split)
    method.to(place)
    method.learner.encoder.precision = pick_precision(precision, place)
    described = describe(job, split, settings, method.learner.encoder.precision)
    folder = RunFolder(out, described, seen_by(split, validation))
    return method, train(method, split, settings, validation=validation, run=folder, watch=watch)


def build(job: Job, split: Split) -> tuple[Method, TrainSettings]:
    """The untrained method of a job and its settings; weights depend on the seed alone."""
    preprocess = Preprocess.of(split.bank)
    settings = job.train_settings
    if "augment" not in job.train:
        settings = replace(settings, augment="drawings" if preprocess.invert else "photos")
    if "ways" not in job.train:
        settings = replace(settings, ways=min(settings.ways, len(split.labels.names)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        method = build_method(
            job.method, build_encoder(preprocess=preprocess, **job.encoder), own_settings(job, settings)
        )
    return method, settings


def own_settings(job: Job, settings: TrainSettings) -> dict[str, Any]:
    """The method's own settings, with training's ways where it wants to know them (for a head with a row a way)."""
    wanted = inspect.signature(METHODS[job.method].__init__).parameters
    return {**({"ways": settings.ways} if "ways" in wanted else {}), **job.settings}


def describe(job: Job, split: Split, settings: TrainSettings, precision: str) -> dict[str, Any]:
    """The settings that a run folder and a checkpoint keep."""
    return {
        "method": job.method,
        "settings": own_settings(job, settings),
        "encoder": job.encoder,
        "train": settings.as_dict(),
        "precision": precision,
        "data": {"name": job.data, "split": job.train_on, "size": split.bank.size[0], "digest": split.labels.digest},
    }


def seen_by(*splits: Split | None) -> set[str]:
    """Digests of the keys of all classes that a training touches; validation classes count too."""
    return {key_digest(key) for split in splits if split is not None for key in split.labels.keys}
