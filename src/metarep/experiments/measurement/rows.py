"""Rows of results tables: what was measured, and how it was trained, as the value of each column."""

from pathlib import Path
from typing import Any

from metarep.encoders import Encoder
from metarep.experiments.measurement.report import Report
from metarep.experiments.measurement.results import commit
from metarep.machine.device import hardware
from metarep.weights.checkpoint import Checkpoint


def beginning(init: str | None, teacher: str | None) -> str:
    """What a training began with, as result rows say it in the column ``init``.

    Args:
        init: name of the run that the encoder was initialised from; None or empty for random weights.
        teacher: name of the run that taught it; None or empty without one.

    >>> beginning(None, "baseline-cifar-fs")
    'random, taught by baseline-cifar-fs'
    """
    return (init or "random") + (f", taught by {teacher}" if teacher else "")


def encoder_name(trained: Checkpoint) -> str:
    """The name of an encoder in result rows: its body and the width, or the name of a frozen one.

    Args:
        trained: the run, or the frozen encoder.

    >>> from metarep.weights.shipped import load_trained
    >>> encoder_name(load_trained("omniglot-protonet"))
    'conv4-64'
    """
    encoder = trained.learner.encoder
    if trained.record.name:
        return trained.record.name
    name, settings = encoder.arch["name"], encoder.arch
    if name == "efficientnet-lite":
        return f"{name}{settings.get('variant', 0)}"
    width = settings.get("width", 64 if name in ("conv4", "resnet12") else None)
    width = "-".join(map(str, settings["widths"])) if settings.get("widths") else width
    name = f"{name}:{settings['model']}" if "model" in settings else f"{name}-{width}" if width else name
    return f"{name} averaged" if settings.get("average") else name  # without it, another network has its name


def image_size(encoder: Encoder) -> str:
    """The size of an encoder's images in result rows: the side in pixels, or height and width.

    >>> from metarep.encoders import Preprocess, build_encoder
    >>> image_size(build_encoder("conv4", Preprocess((48, 64), 1, (0.5,), (0.5,))))
    '48x64'
    """
    height, width = encoder.preprocess.size
    return str(height) if height == width else f"{height}x{width}"


def trained_columns(trained: Checkpoint) -> dict[str, str]:
    """The columns that say what was trained, and how.

    >>> from metarep.weights.shipped import load_trained
    >>> columns = trained_columns(load_trained("omniglot-protonet"))
    >>> columns["method"], columns["trained_on"], columns["init"], columns["size"]
    ('protonet', 'omniglot:vinyals/trainval', 'random', '28')
    """
    run = trained.record
    return {
        "method": run.method,
        "trained_on": f"{run.data.name}/{run.data.split}".strip("/"),
        "labels": run.labels,
        "init": beginning(run.init, run.teacher) if run.data.name else "pretrained",
        "encoder": encoder_name(trained),
        "size": image_size(trained.learner.encoder),
    }


def result_row(trained: Checkpoint, name: str, report: Report, path: Path | str, **more: Any) -> dict[str, Any]:  # noqa: ANN401
    """A row of a results table: the report, and how the run was trained.

    Args:
        trained: the trained run, also for a reference row.
        name: ``trained``, or the name of the reference.
        report: its measurement.
        path: the run folder.
        more: values that replace or add columns.

    Returns:
        The value of each column, by name.
    """
    source, _, split = report.split.rpartition("/")
    subject = {**trained_columns(trained), "normalisation": report.normalisation}
    if name != "trained":
        subject |= {"method": name, "trained_on": "", "labels": "none", "init": "random"}
    if name == "raw pixels":
        subject |= {"init": "", "encoder": "none", "normalisation": "none"}
    return {
        **report.as_dict(),
        **subject,
        "protocol": report.answers,
        "data": source,
        "split": split,
        "seeds": 1,
        "hardware": hardware(),
        "recipe": "",
        "commit": commit(),
        "run": str(path),
        **more,
    }
