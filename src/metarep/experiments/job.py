"""Job: a training as one value, and the settings and the method that follow from it."""

import inspect
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from metarep.data.augment import preset
from metarep.data.batch import TaskBatch, ViewBatch, Views
from metarep.data.split import Split
from metarep.data.strata import Strata
from metarep.data.tasks import warn_of_small_classes
from metarep.encoders import Encoder, Preprocess, build_encoder
from metarep.encoders.freezing import check_freeze, freeze
from metarep.encoders.preprocess import LARGEST
from metarep.encoders.warm_start import warm_start
from metarep.errors import Advice, MetarepError, Slot
from metarep.experiments.pretrained import is_pretrained
from metarep.experiments.pseudo_labels import Labelling, usable
from metarep.experiments.validation import validation_shots
from metarep.methods import METHODS, Method, build_method, check_settings
from metarep.methods.student import SETTINGS as STUDENT
from metarep.methods.student import Student
from metarep.weights.checkpoint import Checkpoint
from metarep.weights.settings import TrainSettings


@dataclass(frozen=True)
class Job:
    """The description of a training: method, data, encoder and all settings.

    The command line, recipes and quickstart all make one, and :func:`metarep.experiments.start.start` runs it.

    Args:
        method: name of the training method.
        settings: settings of the method itself.
        train: values of ``TrainSettings`` that replace the method's defaults. Three of them may be left out.
            ``augment`` is then the preset ``drawings`` for drawings and ``photos`` for other images, or the preset of
            the same kind for views. ``ways`` and ``images`` are then at most the number of classes or images.
        data: the data set, as ``name`` or ``name:argument``.
        train_on: ``train``, with validation tasks from ``val``; or ``trainval``, which has no validation and keeps the
            last weights. ``trainval`` is for the final training, after the number of steps was chosen on validation.
        size: side of the images in pixels; None for the size of the data set.
        encoder: name and settings of the encoder's body; or the name of a trained encoder, as
            :func:`metarep.weights.named.load_representation` takes it, and perhaps its ``arch``. It keeps its own
            preprocessing.
        freeze: what of the encoder is not trained: none, stem, all-but-last, all-but-norms, all-but-lora:R or backbone;
            see :func:`metarep.encoders.freezing.freeze`.
        init: a run folder, a ``.safetensors`` file or a model that ships, of any method. The encoder is initialised
            from it (warm start). The classes that it has seen count as seen.
        teacher: as ``init``, a run that stays frozen, and whose logits a ``baseline`` or ``protonet`` learns from
            (distillation). The classes that it has seen count as seen.
        labels, clusters, partitions, labels_per_class: the labels to train on; see
            :class:`metarep.experiments.pseudo_labels.Labelling`. The classes that a clustered run has seen count as
            seen, as with ``init``.
        depth: bits, or ``BLACK:WHITE``, of images with more than 8 bits; see :mod:`metarep.data.reading.depth`.

    Raises:
        MetarepError: an unknown method or setting, or settings that contradict each other.

    >>> Job("protonet", train={"steps": 100}).train_settings.steps
    100
    """

    method: str
    settings: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    data: str = "glyphs"
    train_on: str = "train"
    size: int | None = None
    encoder: dict[str, Any] = field(default_factory=lambda: {"name": "conv4"})
    init: str | None = None
    teacher: str | None = None
    labels: str = "true"
    clusters: int | None = None
    partitions: int = 1
    labels_per_class: int | None = None
    depth: str | None = None
    freeze: str = "none"

    def __post_init__(self) -> None:
        if self.train_on not in ("train", "trainval"):
            raise MetarepError(
                f"train_on must be train or trainval, not {self.train_on!r}; test classes are never trained on"
            )
        if self.size is not None and self.size > LARGEST:
            raise MetarepError(f"size must be at most {LARGEST:,} pixels, not {self.size:,}")
        check_freeze(self.freeze)
        if self.init and is_pretrained(self.encoder):
            raise MetarepError(
                f"init={self.init!r} and encoder={self.encoder['name']!r} both say where the weights come from",
                advice="leave one of them out",
            )
        check_settings(self.method, self.settings)
        preset(self.train_settings.augment)
        self._check_teacher()
        labelling = self.labelling  # raises an error for labels that contradict each other
        if self.train_settings.local_shards > 1 and (labelling.kind == "clusters" or labelling.per_class is not None):
            chosen = "labels=clusters" if labelling.kind == "clusters" else "labels_per_class"
            raise MetarepError(
                f"{chosen} reads images of all classes, and with local_shards a process has only its own",
                advice=Advice("leave out {local_shards}", local_shards=...),
            )
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

    def _check_teacher(self) -> None:
        """Raise if the method cannot have a teacher, or if settings of distillation are given without a teacher."""
        taught = [name for name, kind in METHODS.items() if issubclass(kind, Student)]
        if self.teacher is not None and self.method not in taught:
            raise MetarepError(
                f"{self.method} cannot learn from a teacher; {', '.join(taught)} can",
                advice=Advice("leave out {teacher}", teacher=...),
            )
        if self.teacher is None and (unused := [name for name in STUDENT if name in self.settings]):
            raise MetarepError(
                f"{', '.join(unused)} weigh what a teacher says, and there is none",
                advice=Advice("name one by {teacher}", teacher=Slot("RUN")),
            )

    @property
    def labelling(self) -> Labelling:
        """The labels to train on."""
        return Labelling(self.labels, self.clusters, self.partitions, self.labels_per_class)

    @property
    def train_settings(self) -> TrainSettings:
        """The settings of the training: the method's defaults, replaced by those of the job."""
        return TrainSettings(**{**METHODS[self.method].defaults, **self.train})


def train_settings(job: Job, split: Split) -> TrainSettings:
    """The settings of a job's training, with the values that follow from its images and labels.

    Args:
        job: the training.
        split: the images and labels to train on.

    Warns:
        SmallClassWarning: some classes are too small for the batches.
    """
    preprocess = Preprocess.of(split.bank)
    settings, eats = job.train_settings, METHODS[job.method].eats
    if "augment" not in job.train:
        views = issubclass(eats, Views) or job.labelling.kind == "instances"
        settings = replace(settings, augment=suited_augment(preprocess, views=views))
    strata = Strata.of(split.labels, settings.local_shards) if settings.local_shards > 1 else None
    if eats is ViewBatch:
        if "images" not in job.train:
            most = strata.most_images(settings.images) if strata else len(split.bank)
            images = min(settings.images, most)
            settings = replace(settings, images=images)
    else:
        labels, queries = split.labels, settings.queries if eats is TaskBatch else 0
        if "ways" not in job.train:
            most = usable(labels, settings.shots, queries)
            if strata:
                shape = replace(settings.shape, queries=queries)
                most = strata.most_ways(
                    shape, whole=strata.whole_tasks(eats, shape, spans=METHODS[job.method].spans_batch)
                )
            settings = replace(settings, ways=max(2, min(settings.ways, most)))
        if labels.kind == "true":
            able = labels.can_give(settings.shots, queries)
            if able.sum() >= settings.ways:  # otherwise the training fails, and its error names the reason
                warn_of_small_classes(labels, able, f"training on {split.name}", settings.shots, queries)
    return replace(settings, validation_shots=validation_shots(settings, eats))


def build(
    job: Job,
    split: Split,
    settings: TrainSettings,
    own: dict[str, Any],
    initial: Checkpoint | None = None,
    pretrained: Encoder | None = None,
) -> Method:
    """The method of a job before its training, on the CPU. Its weights depend on the seed and on what it starts from.

    Args:
        job: names the method and the encoder.
        split: the images to train on; their mean and deviation become the preprocessing.
        settings: settings of the training, from :func:`train_settings`.
        own: settings of the method, from :func:`own_settings`.
        initial: the run that the encoder is initialised from (warm start); None for random weights.
        pretrained: the trained encoder to start from; its preprocessing is kept.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        encoder = pretrained or build_encoder(preprocess=Preprocess.of(split.bank), **job.encoder)
        if initial and pretrained is None:
            try:  # before the method makes copies of it
                warm_start(encoder, initial.learner.encoder, str(job.init))
            except MetarepError as error:
                whole = Advice("start from its whole encoder, which resizes images, with {encoder}", encoder=job.init)
                raise MetarepError(error.message, advice=(*error.advice, whole)) from None
        freeze(encoder, job.freeze)
        return build_method(job.method, encoder, own)


def suited_augment(preprocess: Preprocess, *, views: bool) -> str:
    """The name of the augmentation preset that suits these images.

    Args:
        preprocess: of the images; ``invert`` marks drawings, and the size tells small photographs from large ones.
        views: whether the preset is for views, which differ more than augmented images do.

    >>> photos = Preprocess((32, 32), 3, (0.5,) * 3, (0.25,) * 3)
    >>> suited_augment(photos, views=False), suited_augment(photos, views=True)
    ('photos', 'views-32')
    """
    if preprocess.invert:
        return "views-drawings" if views else "drawings"
    return ("few-shot-84" if max(preprocess.size) >= 64 else "views-32") if views else "photos"


def own_settings(job: Job, settings: TrainSettings, split: Split) -> dict[str, Any]:
    """The settings of the method, with the number of ways or of classes if the method takes it.

    Args:
        job: the training.
        settings: its settings, from :func:`train_settings`.
        split: the images and labels to train on.

    Raises:
        MetarepError: the method learns a weight row for each class, and the labels have several partitions.
    """
    wanted = inspect.signature(METHODS[job.method].__init__).parameters
    if "classes" in wanted and split.labels.others:
        raise MetarepError(
            f"{job.method} learns one weight row for each class, so it cannot train on several partitions",
            advice=Advice("take {partitions}", partitions=1),
        )
    known = {"ways": settings.ways, "classes": len(split.labels.names)}
    return {**{name: value for name, value in known.items() if name in wanted}, **job.settings}
