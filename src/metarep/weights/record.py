"""RunRecord: the description of a training that files keep. Only this module writes and reads it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from metarep.data.reading.depth import Depth
from metarep.weights.settings import TrainSettings


@dataclass(frozen=True)
class DataRecord:
    """The data that a run was trained on.

    Args:
        name: the data set, as ``name`` or ``name:argument``.
        split: ``train`` or ``trainval``.
        size: side of the images in pixels.
        digest: digest of the labels; or of the class names if no labels were read.
        clusters: number of clusters that became pseudo-classes; None for one for every 40 images.
        partitions: number of divisions into clusters.
        clustered_by: name of the run whose features were clustered; empty if none were.
        labels_per_class: number of labelled images of each class; None for all.
        depth: the values of black and white in images with more than 8 bits.
        skip_bad: whether images that could not be read were left out.

    >>> DataRecord("glyphs", "train", 28).as_dict()
    {'name': 'glyphs', 'split': 'train', 'size': 28, 'digest': ''}
    """

    name: str = ""
    split: str = ""
    size: int | None = None
    digest: str = ""
    clusters: int | None = None
    partitions: int = 1
    clustered_by: str = ""
    labels_per_class: int | None = None
    depth: Depth = field(default_factory=Depth)
    skip_bad: bool = False

    @classmethod
    def read(cls, saved: Mapping[str, Any]) -> "DataRecord":
        """The record that :meth:`as_dict` wrote, by this version or an earlier one."""
        return cls(**{**_known(cls, saved), "depth": Depth.of(saved.get("depth"))})

    def as_dict(self) -> dict[str, Any]:
        """The record as values that JSON can hold, without options that were not used."""
        written: dict[str, Any] = {"name": self.name, "split": self.split, "size": self.size, "digest": self.digest}
        if self.clustered_by:
            written |= {
                "clusters": self.clusters,
                "partitions": self.partitions,
                "clustered_by": self.clustered_by,
            }
        if self.labels_per_class is not None:
            written["labels_per_class"] = self.labels_per_class
        if self.depth.ranges:
            written["depth"] = self.depth.as_dict()
        if self.skip_bad:
            written["skip_bad"] = True
        return written


@dataclass(frozen=True)
class RunRecord:
    """The description of a run, with everything that its training depends on. A run folder and a checkpoint keep it.

    Args:
        method: name of the method.
        settings: settings of the method.
        encoder: name and settings of the encoder's body.
        train: settings of the training: number of steps, learning rate, batches and so on.
        precision: precision of the encoder, ``float32`` or ``bfloat16``.
        data: the data that it was trained on.
        labels: the most labels that this run, or one that it is based on, has read: ``none``, ``instances``,
            ``clusters``, ``5-a-class``, or ``true`` for all labels.
        init: name of the run that the encoder was initialised from (warm start); empty for random weights.
        teacher: name of the run that taught this one (distillation); empty without a teacher.
        name: name of the encoder in a model folder; empty in the file of a run.

    >>> RunRecord("protonet").differences(RunRecord("siamese").as_dict())
    [('method', 'siamese', 'protonet')]
    """

    method: str
    settings: dict[str, Any] = field(default_factory=dict)
    encoder: dict[str, Any] = field(default_factory=dict)
    train: TrainSettings = field(default_factory=TrainSettings)
    precision: str = "float32"
    data: DataRecord = field(default_factory=DataRecord)
    labels: str = "true"
    init: str = ""
    teacher: str = ""
    name: str = ""

    @classmethod
    def read(cls, saved: Mapping[str, Any]) -> "RunRecord":
        """The record that :meth:`as_dict` wrote, by this version or an earlier one.

        Settings that did not exist when the run was made have their defaults.

        Args:
            saved: the record as values of JSON.

        Raises:
            KeyError, TypeError, ValueError: the values are not the record of a run.
        """
        train = TrainSettings(**_known(TrainSettings, saved.get("train", {})))
        data = DataRecord.read(saved.get("data", {}))
        if not isinstance(saved["method"], str):
            raise TypeError(f"its method is {saved['method']!r} and not a name")
        parts = {"method": saved["method"], "settings": dict(saved["settings"]), "train": train, "data": data}
        return cls(**{**_known(cls, saved), **parts})

    def as_dict(self) -> dict[str, Any]:
        """The record as values that JSON can hold; the last four only if they are not default."""
        return {
            "method": self.method,
            "settings": self.settings,
            "encoder": self.encoder,
            "train": self.train.as_dict(),
            "precision": self.precision,
            "data": self.data.as_dict(),
            **({"labels": self.labels} if self.labels != "true" else {}),
            **({"init": self.init} if self.init else {}),
            **({"teacher": self.teacher} if self.teacher else {}),
            **({"name": self.name} if self.name else {}),
        }

    def differences(self, saved: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
        """The settings that differ in a saved record; empty if both describe the same run.

        Three settings are ignored: ``skip_bad``, because the digest of the labels already depends on the images that
        were read; ``layout``, because it follows from the digest of the encoder; and ``save_every``, which changes no
        result. Of another method only the name is listed, because its settings are others.

        Args:
            saved: the other record, as :meth:`as_dict` writes it.

        Returns:
            For each the name of the setting, such as ``train.lr``; its value in the saved record; its value here.
        """
        own = _flat(json.loads(json.dumps(self.as_dict())))  # JSON has no tuples
        defaults = {f"train.{name}": value for name, value in TrainSettings().as_dict().items()}
        before = (defaults if isinstance(saved.get("train"), dict) else {}) | _flat(saved)
        names = sorted((before.keys() | own.keys()).difference(ANY_VALUE))
        if before.get("method") != own["method"]:
            names = [name for name in names if not name.startswith("settings")]
        return [(name, before.get(name), own.get(name)) for name in names if before.get(name) != own.get(name)]


ANY_VALUE = ("data.skip_bad", "encoder.layout", "train.save_every")  # settings that may differ when a run is resumed


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a record by names such as ``train.lr``."""
    parts = {part: value if isinstance(value, dict) else {"": value} for part, value in record.items()}
    return {f"{part}.{name}" if name else part: each for part, own in parts.items() for name, each in own.items()}


def _known(kind: type[Any], saved: Mapping[str, Any]) -> dict[str, Any]:
    """The saved values that are fields of this class. A newer metarep may have written others."""
    if not isinstance(saved, Mapping):
        raise TypeError(f"{kind.__name__} is a {type(saved).__name__} and not a dictionary")
    return {each.name: saved[each.name] for each in fields(kind) if each.name in saved}
