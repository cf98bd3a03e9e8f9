"""A training as one value: what, on what, how. The command line, recipes and quickstart all go through here."""

import inspect
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from metarep.data.augment import preset
from metarep.data.batches import TaskBatch, ViewBatch
from metarep.data.datasets import load_dataset
from metarep.data.reading.depth import Depth
from metarep.data.split import Split
from metarep.data.tasks import warn_of_small_classes
from metarep.encoders import Preprocess, build_encoder, computing
from metarep.encoders.warm_start import warm_start
from metarep.errors import Advice, MetarepError, Slot
from metarep.experiments.pseudo_labels import Labelling, labels_read, usable
from metarep.experiments.run_folder import SETTINGS, STATE, RunFolder, read_record
from metarep.experiments.training import Outcome, Watch, train
from metarep.experiments.validation import validation_shots
from metarep.machine.device import pick_device, pick_precision
from metarep.methods import METHODS, Method, build_method, check_settings
from metarep.weights.checkpoint import Checkpoint
from metarep.weights.record import DataRecord, RunRecord
from metarep.weights.seen import digests, key_digest, refuse
from metarep.weights.settings import TrainSettings
from metarep.weights.shipped import load_trained

CLUSTERS = "clusters.safetensors"  # in the run folder: who is in which pseudo-class
UNSEEN = "the best step would be chosen on classes that were trained on"
FROM_OTHERS = (
    "start from a run that was trained on train",
    Advice("take {train_on}, which validates on nothing and keeps the last weights", train_on="trainval"),
)


@dataclass(frozen=True)
class Job:
    """Everything that names a training.

    Args:
        method: its name.
        settings: the method's own.
        train: settings of ``TrainSettings``, over the method's defaults. ``augment`` may be left out: drawings then get
            the preset ``drawings`` and other images ``photos``, or their counterparts for views; and ``ways`` or
            ``images``, which are then no more than there are.
        data: data set, as ``name`` or ``name:argument``.
        train_on: ``train``, with validation tasks from ``val``; or ``trainval``, which leaves nothing to validate on
            and keeps the last weights: for a last training with steps that were chosen on validation before.
        size: side of the images in pixels; None for the data set's own.
        encoder: name and settings of the body.
        init: a run folder, a ``.safetensors`` file or a model that ships: its encoder is where this one starts, of
            whatever method it is. The classes it has seen count as seen.
        labels, clusters, partitions, labels_per_class: what is trained on for labels; see
            :class:`metarep.experiments.pseudo_labels.Labelling`. A run that clusters are made with counts
            like ``init``.
        depth: bits, or ``BLACK:WHITE``, of pictures of more than 8 bits; see :mod:`metarep.data.reading.depth`.
    """

    method: str
    settings: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    data: str = "glyphs"
    train_on: str = "train"
    size: int | None = None
    encoder: dict[str, Any] = field(default_factory=lambda: {"name": "conv4"})
    init: str | None = None
    labels: str = "true"
    clusters: int | None = None
    partitions: int = 1
    labels_per_class: int | None = None
    depth: str | None = None

    def __post_init__(self) -> None:
        if self.train_on not in ("train", "trainval"):
            raise MetarepError(
                f"train_on must be train or trainval, not {self.train_on!r}; test classes are never trained on"
            )
        check_settings(self.method, self.settings)
        preset(self.train_settings.augment)
        labelling = self.labelling  # which refuses what cannot be meant
        if METHODS[self.method].eats.label_free and labelling != Labelling():
            raise MetarepError(
                f"{self.method} reads no labels",
                advice=(
                    Advice("leave out {labels} and {labels_per_class}", labels=..., labels_per_class=...),
                    Advice(
                        "train a method that reads them on its run, by {init} or {labels}",
                        init=Slot("RUN"),
                        labels=Slot("clusters:RUN"),
                    ),
                ),
            )

    @property
    def labelling(self) -> Labelling:
        """What is trained on for labels."""
        return Labelling(self.labels, self.clusters, self.partitions, self.labels_per_class)

    @property
    def train_settings(self) -> TrainSettings:
        """Settings of the training: the job's own, over the method's defaults."""
        return TrainSettings(**{**METHODS[self.method].defaults, **self.train})


def start(
    job: Job,
    out: Path,
    *,
    device: torch.device | str = "auto",
    precision: str = "auto",
    data_dir: Path | None = None,
    skip_bad: bool = False,
    watch: Watch | None = None,
) -> tuple[Checkpoint, Outcome]:
    """Train what ``job`` says into the run folder ``out``, or go on where it stopped.

    Returns:
        The checkpoint that the folder holds now, on the device; and how the training went.

    Raises:
        LeakageError: a validation class was trained on, by this run or one that it is based on.
        MetarepError: unknown names or settings, data that cannot be had, a folder that holds another run.
    """
    place, job = pick_device(device), as_begun(job, Path(out))
    initial = load_trained(job.init) if job.init else None
    depth = Depth.of(initial.record.data.depth if initial else None) | Depth.of(job.depth)
    given: dict[str, Any] = {"size": job.size, "data_dir": data_dir, "skip_bad": skip_bad, "depth": depth}
    split = load_dataset(job.data, job.train_on, **given)
    validation = None
    if job.train_on == "train":
        validation = load_dataset(job.data, "val", **given)
    source = load_trained(job.labelling.run, place) if job.labelling.run else None
    runs = [run for run in (initial, source) if run]
    fitted = seen_by(split).union(*(run.fitted_of(validation and validation.labels, job.data) for run in runs))
    seen = fitted.union(seen_by(validation), *(run.seen for run in runs))
    if validation:
        what = f"{validation.name} were trained on, by this run or one it is based on"
        refuse(fitted, validation.labels.keys, validation.labels.names, what, UNSEEN, FROM_OTHERS)
    seed, kept = job.train_settings.seed, Path(out) / CLUSTERS
    resumed = (Path(out) / STATE).exists()  # else it may be a division of a training that never was
    split = job.labelling.of(split, seed, source, kept if resumed else None)
    if validation and job.labels_per_class:
        validation = job.labelling.of(validation, seed)
    settings = train_settings(job, split)
    own = own_settings(job, settings, split)
    method, chosen = build(job, split, settings, own, initial).to(place), pick_precision(precision, place)
    record = describe(job, split, settings, own, chosen, initial, source, skip_bad=skip_bad)
    labels = split.labels
    folder = RunFolder(out, record, seen, fitted, lambda: job.labelling.keep(kept, labels, seed))
    with computing(method, chosen):  # a target's encoder too
        outcome = train(method, split, settings, validation=validation, run=folder, watch=watch)
    return Checkpoint.of(method, record, folder.seen, folder.fitted), outcome


def as_begun(job: Job, out: Path) -> Job:
    """The job with the validation shots of the run that it goes on with, unless it asks for its own.

    Earlier versions validated on one shot, whatever was trained on. Such a run goes on so, for accuracies of other
    tasks cannot be compared.
    """
    path = out / SETTINGS
    if "validation_shots" in job.train or not (out / STATE).exists() or not path.exists():
        return job
    shots = read_record(path).train.validation_shots
    return replace(job, train={**job.train, "validation_shots": shots}) if shots else job


def train_settings(job: Job, split: Split) -> TrainSettings:
    """The settings of a job's training, as far as they follow from its images and labels.

    Warns:
        SmallClassWarning: classes are too small for its batches.
    """
    preprocess = Preprocess.of(split.bank)
    settings, views = job.train_settings, METHODS[job.method].eats is ViewBatch
    if "augment" not in job.train:
        lone = job.labelling.kind == "instances"
        settings = replace(settings, augment=suited_augment(preprocess, views=views or lone))
    if views and "images" not in job.train:
        settings = replace(settings, images=min(settings.images, len(split.bank)))
    if not views:
        labels, queries = split.labels, settings.queries if METHODS[job.method].eats is TaskBatch else 0
        if "ways" not in job.train:
            settings = replace(settings, ways=max(2, min(settings.ways, usable(labels, settings.shots, queries))))
        if labels.kind == "true":
            able = labels.can_give(settings.shots, queries)
            warn_of_small_classes(labels, able, f"training on {split.name}", settings.shots, queries)
    return replace(settings, validation_shots=validation_shots(settings, METHODS[job.method].eats))


def build(
    job: Job, split: Split, settings: TrainSettings, own: dict[str, Any], initial: Checkpoint | None = None
) -> Method:
    """The untrained method of a job; its weights depend on the seed alone, and on ``initial``.

    Args:
        job: names method and encoder.
        split: the images to train on, which say how images are normalised.
        settings, own: of the training and of the method; see :func:`train_settings` and :func:`own_settings`.
        initial: where its encoder starts.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        encoder = build_encoder(preprocess=Preprocess.of(split.bank), **job.encoder)
        if initial:
            warm_start(encoder, initial.learner.encoder, str(job.init))  # before the method makes copies of it
        return build_method(job.method, encoder, own)


def suited_augment(preprocess: Preprocess, *, views: bool) -> str:
    """The preset for images like these: of drawings, of photographs, and of larger photographs."""
    if preprocess.invert:
        return "views-drawings" if views else "drawings"
    return ("few-shot-84" if max(preprocess.size) >= 64 else "views-32") if views else "photos"


def own_settings(job: Job, settings: TrainSettings, split: Split) -> dict[str, Any]:
    """The method's own settings, with the training's ways, or all its classes, where its head has a row for each."""
    wanted = inspect.signature(METHODS[job.method].__init__).parameters
    if "classes" in wanted and split.labels.others:
        raise MetarepError(
            f"{job.method} learns a row a class of one division of the images",
            advice=Advice("take {partitions}", partitions=1),
        )
    known = {"ways": settings.ways, "classes": len(split.labels.names)}
    return {**{name: value for name, value in known.items() if name in wanted}, **job.settings}


def describe(
    job: Job,
    split: Split,
    settings: TrainSettings,
    own: dict[str, Any],
    precision: str,
    initial: Checkpoint | None = None,
    source: Checkpoint | None = None,
    *,
    skip_bad: bool = False,
) -> RunRecord:
    """What a run folder and a checkpoint keep of a job; ``labels`` is the most that this run or its starts read."""
    free = METHODS[job.method].eats.label_free
    digest = key_digest("\n".join(split.labels.names)) if free else split.labels.digest
    return RunRecord(
        method=job.method,
        settings=own,
        encoder=job.encoder,
        train=settings,
        precision=precision,
        data=DataRecord(
            job.data,
            job.train_on,
            split.bank.size[0],
            digest,
            **job.labelling.as_dict(),
            depth=split.depth,
            skip_bad=skip_bad,  # whoever measures the run has the same folder before him
        ),
        labels=labels_read("none" if free else job.labelling.called, initial, source),
        init=Path(str(job.init)).name if initial else "",
    )


def seen_by(*splits: Split | None) -> frozenset[str]:
    """Digests of the keys of all classes of these; to have been seen, a class need not have been learned from."""
    return digests(key for split in splits if split is not None for key in split.labels.keys)
