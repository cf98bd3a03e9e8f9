"""The file of a model of several labels: features and labels of its images, and what was measured, as safetensors."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from metarep.data.copies.picture_hash import LENGTH
from metarep.data.reading.depth import Depth
from metarep.machine.files import write_tensors
from metarep.model.gallery_checks import checked_file
from metarep.model.multi_label.calibration import Calibration
from metarep.model.multi_label.model import MultiLabelModel
from metarep.model.multi_label.scores import LabelVerdict
from metarep.weights.representation import Representation

FORMAT = "labels-1"


def write_labels(path: Path, model: MultiLabelModel, representation: Representation) -> None:
    """Write a model in one file, which replaces an older one by a rename.

    Args:
        path: a ``.safetensors`` file.
        model: the model; what it says of its own images is measured now, if it has not been.
        representation: the encoder; only its digest is written.
    """
    header = {
        "format": FORMAT,
        "space": representation.digest,
        "head": model.head,
        "depth": model.depth.as_dict(),
        "names": list(model.names),
        "items": list(model.items),
        "calibration": asdict(model.calibration),
        "trust": asdict(model.trust) if model.trust else None,
    }
    if any(model.groups):
        header["groups"] = list(model.groups)
    tensors = {"rows": model.rows, "marks": model.marks.to(torch.uint8), "hashes": model.hashes}
    write_tensors(path, tensors, header)


def read_labels(path: Path, representation: Representation) -> MultiLabelModel:
    """Read a model from the file that :func:`write_labels` wrote.

    Args:
        path: the file.
        representation: the encoder that its features come from.

    Raises:
        MetarepError: the file is damaged, has another format, or belongs to another encoder.
    """
    with checked_file(path, FORMAT, representation) as (tensors, header):
        rows, marks, hashes = tensors["rows"], tensors["marks"], tensors["hashes"]
        names, items = header["names"], header["items"]
        groups = header.get("groups", [""] * len(items))
        if not all(isinstance(text, str) for text in [*names, *items, *groups]) or len(set(names)) < len(names):
            raise ValueError("its names are not all texts, or two of them are the same")
        if rows.shape != (len(items), representation.encoder.dim) or not rows.isfinite().all():
            raise ValueError(f"its rows have shape {tuple(rows.shape)}, or are not all finite")
        if (
            marks.shape != (len(groups), len(names))
            or hashes.shape != (len(groups), LENGTH)
            or len(groups) != len(items)
        ):
            raise ValueError("its tensors and lists have different lengths")
        model = MultiLabelModel(
            representation,
            names,
            rows,
            marks.bool(),
            items,
            head=header["head"],
            hashes=hashes.to(torch.int8),
            depth=Depth.of(header["depth"]),
            groups=groups,
        )
        trust = header.get("trust")
        verdict = None if trust is None else _trust(trust, set(names))
        model.restore_calibration(_calibration(header["calibration"], len(names)), verdict)
    return model


def _calibration(fields: Mapping[str, Any], labels: int) -> Calibration:
    thresholds, tested = fields["thresholds"], fields["tested"]
    if not isinstance(thresholds, list) or not isinstance(tested, list) or {len(thresholds), len(tested)} != {labels}:
        raise ValueError(f"its thresholds are not of {labels} labels")
    scale, shift, *values = (float(value) for value in [fields["scale"], fields["shift"], *thresholds])
    if not all(map(math.isfinite, (scale, shift, *values))):
        raise ValueError("its calibration is not finite")
    return Calibration(scale, shift, tuple(values), tuple(bool(each) for each in tested))


def _trust(fields: Mapping[str, Any], names: set[str]) -> LabelVerdict:
    own = {
        name: {"images": int(each["images"])} | {key: float(each[key]) for key in ("average_precision", "f1")}
        for name, each in fields["per_label"].items()
    }
    if set(own) != set(fields["names"]) or not set(own) <= names:
        raise ValueError("its trust is of other labels")
    figures = {key: float(fields[key]) for key in ("precision", "micro", "macro")}
    intervals = {key: (float(low), float(high)) for key, (low, high) in fields["intervals"].items()}
    verdict = LabelVerdict(int(fields["images"]), tuple(fields["names"]), **figures, intervals=intervals, per_label=own)
    verdict.as_dict()  # fails if an interval is missing
    return verdict
