"""start: run the training of a job in its run folder, or resume it."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from metarep.data.datasets import load_dataset
from metarep.data.reading.depth import Depth
from metarep.data.split import Split
from metarep.encoders import computing
from metarep.encoders.freezing import LORA
from metarep.errors import Advice, MetarepError
from metarep.experiments.job import Job, build, own_settings, train_settings
from metarep.experiments.pretrained import Pretrained, is_pretrained, open_pretrained
from metarep.experiments.pseudo_labels import labels_read
from metarep.experiments.readings import Watch
from metarep.experiments.run_folder import RunFolder, read_record
from metarep.experiments.saved_states import SavedStates
from metarep.experiments.teaching import TEACHER, teach, teacher_of
from metarep.experiments.training import Outcome, train
from metarep.learners import GradientDescent
from metarep.machine.deterministic import deterministic
from metarep.machine.device import Precision, pick_device, pick_precision
from metarep.machine.ranks import rank
from metarep.methods import METHODS, Method
from metarep.weights.checkpoint import Checkpoint
from metarep.weights.hub.contents import SETTINGS
from metarep.weights.hub.fetch import pinned
from metarep.weights.hub.names import short_name
from metarep.weights.record import DataRecord, RunRecord
from metarep.weights.seen import digests, key_digest, refuse
from metarep.weights.settings import TrainSettings
from metarep.weights.shipped import load_trained

CLUSTERS = "clusters.safetensors"  # in the run folder: the pseudo-class of every image
UNSEEN = "the best step would be chosen on classes that were trained on"
FROM_OTHERS = (
    "start from a run that was trained on train",
    Advice("take {train_on}, which validates on nothing and keeps the last weights", train_on="trainval"),
)


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
    """Run the training of ``job`` in the run folder ``out``, or resume it where it stopped.

    Args:
        job: the training.
        out: the run folder; made if it does not exist.
        device: ``auto``, ``cpu``, ``cuda`` and so on.
        precision: ``auto``, ``float32`` or ``bfloat16``.
        data_dir: folder of downloaded data sets; None for the default.
        skip_bad: leave out images that cannot be read, with a warning for each.
        watch: called now and then with the progress; see :func:`metarep.experiments.training.train`.

    Returns:
        The checkpoint that the folder holds now, with its weights on the device; and the outcome of the training.

    Raises:
        LeakageError: a validation class was trained on, by this run or by one that it is based on.
        MetarepError: unknown names or settings, data that is not available, or a folder that holds another run.
    """
    target = pick_device(device)
    chosen = pick_precision(precision, target)
    return start_on(job, out, target, chosen, data_dir=data_dir, skip_bad=skip_bad, watch=watch)


def start_on(
    job: Job,
    out: Path,
    device: torch.device,
    precision: Precision,
    *,
    data_dir: Path | None = None,
    skip_bad: bool = False,
    watch: Watch | None = None,
) -> tuple[Checkpoint, Outcome]:
    """:func:`start` with a device and a precision that were already chosen.

    Args:
        job, out, data_dir, skip_bad, watch: see :func:`start`.
        device, precision: as given by :mod:`metarep.machine.device`.
    """
    with deterministic(job.train_settings.deterministic, device):  # also for the sums of clusters and preprocessing
        return _start_on(job, out, device, precision, data_dir, watch, skip_bad=skip_bad)


def _start_on(
    job: Job,
    out: Path,
    device: torch.device,
    precision: Precision,
    data_dir: Path | None,
    watch: Watch | None,
    *,
    skip_bad: bool,
) -> tuple[Checkpoint, Outcome]:
    job = as_begun(pinned_job(job), Path(out))
    initial = load_trained(job.init) if job.init else None
    depth = Depth.of(initial.record.data.depth if initial else None) | Depth.of(job.depth)
    given: dict[str, Any] = {"size": job.size, "data_dir": data_dir, "skip_bad": skip_bad, "depth": depth}
    split = load_dataset(job.data, job.train_on, **given)
    validation = None
    if job.train_on == "train":
        validation = load_dataset(job.data, "val", **given)
    pretrained = open_pretrained(job.encoder, split.bank.size, job.freeze) if is_pretrained(job.encoder) else None
    initial = pretrained.run if pretrained else initial
    source = load_trained(job.labelling.run, device) if job.labelling.run else None
    resumed = SavedStates(Path(out)).files  # else the files may be of a training that failed before its first step
    teacher = teacher_of(job, Path(out) / TEACHER if resumed else None, device)
    runs = [run for run in (initial, source, teacher) if run]
    fitted = seen_by(split).union(*(run.fitted_of(validation and validation.labels, job.data) for run in runs))
    seen = fitted.union(seen_by(validation), *(run.seen for run in runs))
    if validation:
        what = f"{validation.name} were trained on, by this run or one it is based on"
        refuse(fitted, validation.labels.keys, validation.labels.names, what, UNSEEN, FROM_OTHERS)
    seed, kept = job.train_settings.seed, Path(out) / CLUSTERS
    split = job.labelling.of(split, seed, source, kept if resumed else None)
    if validation and job.labels_per_class:
        validation = job.labelling.of(validation, seed)
    split = split.local(job.train_settings.local_shards)
    settings = train_settings(job, split)
    own = own_settings(job, settings, split)
    if watch and pretrained and pretrained.layout and rank() == 0:
        watch({"step": 0, "steps": settings.steps, "encoder": f"{pretrained.name} is {pretrained.layout}"})
    method = build(job, split, settings, own, initial, pretrained and pretrained.encoder).to(device)
    refuse_merged(job, method)
    if teacher:
        teach(method, teacher, split.labels, str(job.teacher))
    models = (initial, source, teacher, pretrained)
    record = describe(job, split, settings, own, precision, *models, skip_bad=skip_bad)
    labels = split.labels

    def keep() -> None:
        job.labelling.keep(kept, labels, seed)
        if teacher:
            teacher.save(Path(out) / TEACHER)

    folder = RunFolder(out, record, seen, fitted, keep)
    taught = computing(teacher.method, precision) if teacher else nullcontext()
    with computing(method, precision), taught:  # every encoder of the method, also that of a target network
        outcome = train(method, split, settings, validation=validation, run=folder, watch=watch)
    return Checkpoint.of(method, record, folder.seen, folder.fitted), outcome


def refuse_merged(job: Job, method: Method) -> None:
    """Raise if inner steps change low-rank updates that are merged into the weights after the training.

    They would change all weights afterwards, and their rates and states would be of other tensors.
    """
    learner = method.learner
    if job.freeze.startswith(LORA) and isinstance(learner, GradientDescent) and learner.scope != "head":
        raise MetarepError(
            f"{job.method} would adapt low-rank updates in training, and all weights once these are merged into them",
            advice=Advice(
                "let inner steps keep the updates with {scope}", scope=f"lora:{job.freeze.removeprefix(LORA)}"
            ),
        )


def pinned_job(job: Job) -> Job:
    """The job with the hash of the commit in each name on the Hub, so that its record says what it started from.

    >>> pinned_job(Job("protonet", init="runs/simclr")).init
    'runs/simclr'
    """
    return replace(
        job,
        encoder={**job.encoder, "name": pinned(str(job.encoder["name"]))},
        init=job.init and pinned(str(job.init)),
        teacher=job.teacher and pinned(str(job.teacher)),
        labels=f"clusters:{pinned(job.labelling.run)}" if job.labelling.run else job.labels,
    )


def as_begun(job: Job, out: Path) -> Job:
    """The job with the validation shots of the run that it resumes, unless the job sets them itself.

    Earlier versions always validated on 1-shot tasks. Such a run keeps them when it is resumed, because accuracies on
    different tasks cannot be compared.

    Args:
        job: the training.
        out: the run folder, which need not exist.
    """
    path = out / SETTINGS
    if "validation_shots" in job.train or not SavedStates(out).files or not path.exists():
        return job
    shots = read_record(path).train.validation_shots
    return replace(job, train={**job.train, "validation_shots": shots}) if shots else job


def describe(
    job: Job,
    split: Split,
    settings: TrainSettings,
    own: dict[str, Any],
    precision: str,
    initial: Checkpoint | None = None,
    source: Checkpoint | None = None,
    teacher: Checkpoint | None = None,
    pretrained: Pretrained | None = None,
    *,
    skip_bad: bool = False,
) -> RunRecord:
    """The record of a run, which its folder and its checkpoint keep.

    Args:
        job: the training.
        split: the images and labels to train on.
        settings, own: settings of the training and of the method.
        precision: what the encoder computes in, ``float32`` or ``bfloat16``.
        initial: the run that the encoder is initialised from.
        source: the run whose features are clustered.
        teacher: the run that teaches this one.
        pretrained: the trained encoder that training starts from.
        skip_bad: whether images that cannot be read are left out.
    """
    free = METHODS[job.method].eats.label_free
    digest = key_digest("\n".join(split.labels.names)) if free else split.labels.digest
    return RunRecord(
        method=job.method,
        settings=own,
        encoder=job.encoder
        | ({"digest": pretrained.digest} if pretrained else {})
        | ({"layout": pretrained.layout} if pretrained and pretrained.layout else {})
        | ({"freeze": job.freeze} if job.freeze != "none" else {}),
        train=settings,
        precision=precision,
        data=DataRecord(
            job.data,
            job.train_on,
            split.bank.size[0],
            digest,
            **job.labelling.as_dict(),
            depth=split.depth,
            skip_bad=skip_bad,  # a later measurement reads the same folder, with the same unreadable images
        ),
        labels=labels_read("none" if free else job.labelling.called, initial, source, teacher),
        init=pretrained.name if pretrained else short_name(str(job.init)) if initial else "",
        teacher=short_name(str(job.teacher)) if teacher else "",
    )


def seen_by(*splits: Split | None) -> frozenset[str]:
    """Digests of the keys of all classes in the splits. None is skipped.

    A class counts as seen even if no weight was fitted to it.
    """
    return digests(key for split in splits if split is not None for key in split.labels.keys)
