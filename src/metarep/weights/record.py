"""RunRecord: what a training is, as one typed value. It is written and read here alone."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from metarep.data.reading.depth import Depth
from metarep.weights.settings import TrainSettings


@dataclass(frozen=True)
class DataRecord:
    """What a run was trained on.

    Args:
        name: the data set, as ``name`` or ``name:argument``.
        split: ``train`` or ``trainval``.
        size: side of the images in pixels.
        digest: of the labels; of the class names where no labels are read.
        clusters, partitions, clustered_by: of pseudo-classes; ``clustered_by`` is the name of the run whose features
            were clustered, and empty where none were.
        labels_per_class: true labels a class that were read; None for all.
        depth: black and white of pictures of more than 8 bits.
        skip_bad: whether images that could not be read were left out.
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
        """The record as JSON holds it; options that were not used are left out."""
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
    """What a run is: everything that names its training. A run folder and a checkpoint keep it.

    Args:
        method: its name.
        settings: the method's own settings.
        encoder: name and settings of the body.
        train: how long, how fast, on what batches.
        precision: what the encoder computed in, ``float32`` or ``bfloat16``.
        data: what it was trained on.
        labels: the most that this run, or one that it is based on, has read: ``none``, ``instances``, ``clusters``,
            ``5-a-class``, or ``true`` for all labels.
        init: the name of the run that its encoder started from; empty for random weights.
        name: what its encoder is called in a model; empty in the file of a run.
    """

    method: str
    settings: dict[str, Any] = field(default_factory=dict)
    encoder: dict[str, Any] = field(default_factory=dict)
    train: TrainSettings = field(default_factory=TrainSettings)
    precision: str = "float32"
    data: DataRecord = field(default_factory=DataRecord)
    labels: str = "true"
    init: str = ""
    name: str = ""

    @classmethod
    def read(cls, saved: Mapping[str, Any]) -> "RunRecord":
        """The record that :meth:`as_dict` wrote, by this version or an earlier one.

        Settings that are younger than the run have their defaults.

        Raises:
            KeyError, TypeError, ValueError: it is not the record of a run.
        """
        train = TrainSettings(**_known(TrainSettings, saved.get("train", {})))
        data = DataRecord.read(saved.get("data", {}))
        parts = {"method": saved["method"], "settings": dict(saved["settings"]), "train": train, "data": data}
        return cls(**{**_known(cls, saved), **parts})

    def as_dict(self) -> dict[str, Any]:
        """The record as JSON holds it; ``labels``, ``init`` and ``name`` only where they say something."""
        return {
            "method": self.method,
            "settings": self.settings,
            "encoder": self.encoder,
            "train": self.train.as_dict(),
            "precision": self.precision,
            "data": self.data.as_dict(),
            **({"labels": self.labels} if self.labels != "true" else {}),
            **({"init": self.init} if self.init else {}),
            **({"name": self.name} if self.name else {}),
        }

    def difference(self, saved: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
        """The first setting in which a saved record is of another run; None if it is of this one.

        ``skip_bad`` does not count: the digest of the labels says which images were read.

        Returns:
            The setting, as in ``train.lr``; its value in the saved record; its value here.
        """
        own = json.loads(json.dumps(self.as_dict()))  # JSON has no tuples
        for part in sorted(saved.keys() | own.keys()):
            was, now = saved.get(part), own.get(part)
            if part == "train" and isinstance(was, dict):
                was = TrainSettings().as_dict() | was  # a setting that is younger than the run has its default
            if part == "data" and isinstance(was, dict) and isinstance(now, dict):
                was, now = ({k: v for k, v in each.items() if k != "skip_bad"} for each in (was, now))
            if was == now:
                continue
            if isinstance(was, dict) and isinstance(now, dict):
                name = next(name for name in was | now if was.get(name) != now.get(name))
                return f"{part}.{name}", was.get(name), now.get(name)
            return part, was, now
        return None


def _known(kind: type[Any], saved: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the saved values that are fields of this class; a newer metarep may have written more."""
    return {each.name: saved[each.name] for each in fields(kind) if each.name in saved}
