"""Which labels a training reads: the true ones, few of them, clusters of a run's features, or each image its own."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn import functional

from metarep.data.images import ImageBank
from metarep.data.labels import Labels
from metarep.data.split import Split
from metarep.encoders.finite import refuse_lost_rows
from metarep.errors import MetarepError, unknown
from metarep.experiments.evaluation import evaluating
from metarep.experiments.kmeans import kmeans
from metarep.learners import Learner
from metarep.machine.files import read_tensors, write_tensors
from metarep.weights.checkpoint import Checkpoint

KINDS = ("true", "clusters:RUN", "instances")
IN_A_CLUSTER = 40  # images, on average, where nobody says how many clusters there should be
ORDER = ("none", "instances", "clusters")  # of what is known of labels; then so many a class, then all of them


@dataclass(frozen=True)
class Labelling:
    """What is written beside ``--labels``: the labels of a training, before there are images.

    Args:
        labels: ``true``; ``clusters:RUN``, pseudo-classes of images that a run's features hold together; ``instances``,
            each image a class whose samples are its views.
        clusters: how many; None for one for every 40 images.
        partitions: how often the images are divided anew; every batch is of one of the divisions.
        per_class: true labels a class that are read, of all others not even the images; None for all.

    Raises:
        MetarepError: settings that do not go together.
    """

    labels: str = "true"
    clusters: int | None = None
    partitions: int = 1
    per_class: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("true", "clusters", "instances") or (self.kind != "clusters" and ":" in self.labels):
            raise unknown("labels", self.labels, KINDS)
        if self.kind == "clusters" and not self.run:
            raise MetarepError("labels=clusters needs the run whose features are divided: clusters:RUN")
        if self.kind != "clusters" and (self.clusters, self.partitions) != (None, 1):
            raise MetarepError(f"clusters and partitions go with labels=clusters:RUN, not with {self.labels}")
        if self.kind != "true" and self.per_class is not None:
            raise MetarepError(f"labels_per_class chooses among true labels, not among {self.labels}")
        for name, value, least in (("clusters", self.clusters, 2), ("partitions", self.partitions, 1)):
            if value is not None and value < least:
                raise MetarepError(f"{name} must be at least {least}, not {value}")
        if self.per_class is not None and self.per_class < 1:
            raise MetarepError(f"labels_per_class must be at least 1, not {self.per_class}")

    @property
    def kind(self) -> str:
        return self.labels.partition(":")[0]

    @property
    def run(self) -> str:
        """The run whose features are divided, if any are."""
        return self.labels.partition(":")[2]

    @property
    def called(self) -> str:
        """What result rows say: ``true``, ``clusters``, ``instances``, or ``5-a-class``."""
        return self.kind if self.per_class is None else f"{self.per_class}-a-class"

    def as_dict(self) -> dict[str, Any]:
        """What a run folder keeps of it, beyond what rows say; nothing where all true labels are read."""
        if self.kind == "clusters":
            return {"clusters": self.clusters, "partitions": self.partitions, "clustered_by": Path(self.run).name}
        return {} if self.per_class is None else {"labels_per_class": self.per_class}

    def of(self, split: Split, seed: int, source: Checkpoint | None = None, kept: Path | None = None) -> Split:
        """The split with these labels. Of pseudo-labels nothing but the number of images is asked.

        Args:
            split: with its true labels.
            seed: of the choice, or of the division.
            source: the run whose features are divided, on the device to use.
            kept: where :meth:`keep` put an earlier division, which is then taken, whoever has trained ``source`` since.
        """
        if self.per_class is not None:
            return few(split, self.per_class, seed)
        if self.kind == "instances":
            return split._replace(labels=instances(len(split.bank)))
        if source is None:
            return split
        header = self._header(seed)
        if kept is not None and kept.exists():
            tensors, known = read_tensors(kept)
            if known == header and tensors["clusters"].shape[1] == len(split.bank):
                return split._replace(labels=pseudo_classes(list(tensors["clusters"].long())))
        features, generator = features_of(source.learner, split.bank), Generator().manual_seed(seed)
        count = self.clusters or max(2, len(split.bank) // IN_A_CLUSTER)
        found = [kmeans(features, count, generator) for _ in range(self.partitions)]
        return split._replace(labels=pseudo_classes(found))

    def keep(self, path: Path, labels: Labels, seed: int) -> None:
        """Write a division down, so that a training that is resumed goes on with it."""
        if self.kind == "clusters":
            found = torch.stack([part.classes for part in (labels, *labels.others)])
            write_tensors(path, {"clusters": found.int()}, self._header(seed))

    def _header(self, seed: int) -> dict[str, Any]:
        return {**self.as_dict(), "seed": seed}


def instances(n: int) -> Labels:
    """Every image a class of its own, whose samples are its views.

    Khodadadeh, Bölöni, Shah, Unsupervised Meta-learning for Few-shot Image Classification (UMTRA), 2019.
    """
    names = tuple(f"image {i}" for i in range(n))
    return Labels(torch.arange(n), names, names, kind="instances")


def pseudo_classes(clusters: list[Tensor]) -> Labels:
    """Clusters as classes; divisions after the first are ``others``.

    Hsu, Levine, Finn, Unsupervised Learning via Meta-learning (CACTUs), 2019.
    """
    made = []
    for each in clusters:
        names = tuple(f"cluster {i}" for i in range(int(each.max()) + 1))
        made.append(Labels(each, names, names, kind="clusters"))
    first, *others = made
    return Labels(first.classes, first.names, first.keys, kind="clusters", others=tuple(others))


def few(split: Split, count: int, seed: int) -> Split:
    """At most ``count`` images of each class, chosen by ``seed``; of the others not even the pixels are left.

    The choice grows with ``count``: five of a class are the first five of ten. Where labels have groups they are of as
    many as there are, for support and query must not share one.
    """
    labels, classes = split.labels, split.labels.classes.cpu()
    order = torch.rand(len(labels), generator=Generator().manual_seed(seed)).argsort()
    if labels.groups is not None:
        groups = labels.groups.cpu()
        order = order[_places(classes[order] * (int(groups.max()) + 1) + groups[order]).argsort(stable=True)]
    rows = order[_places(classes[order]) < count].sort().values
    kept = None if labels.groups is None else labels.groups.cpu()[rows]
    chosen = Labels(classes[rows], labels.names, labels.keys, kept)
    return Split(ImageBank(split.bank.pixels(rows)), chosen, split.name)


@torch.no_grad()
def features_of(learner: Learner, bank: ImageBank) -> Float[Tensor, "n dim"]:
    """Centred features of every image, on the unit sphere and on the processor.

    Features behind a ReLU share a direction, in which they differ least; without it their angles say more.
    """
    with evaluating(learner):
        rows = torch.cat([learner.embed(part.to(learner.device)).cpu() for part in bank.images.split(256)])
    refuse_lost_rows(rows, learner.encoder, "image {}".format)
    return functional.normalize(rows - rows.mean(0), dim=-1)


def labels_read(own: str, *runs: Checkpoint | None) -> str:
    """What is most of ``own`` and of what was read by the runs that a training started from or was labelled by."""
    return max([own, *(run.labels for run in runs if run is not None)], key=_amount)


def usable(labels: Labels, support: int, query: int) -> int:
    """How many classes can give so many images: in the division where they are fewest."""
    return min(int(part.can_give(support, query).sum()) for part in (labels, *labels.others))


def _places(values: Tensor) -> Tensor:
    """For each element how many equal ones stand before it."""
    order = values.argsort(stable=True)
    counts = torch.unique_consecutive(values[order], return_counts=True)[1]
    first = (counts.cumsum(0) - counts).repeat_interleave(counts)
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order)) - first)


def _amount(labels: str) -> tuple[int, int]:
    if labels in ORDER:
        return ORDER.index(labels), 0
    number = labels.partition("-")[0]
    return (len(ORDER), int(number)) if number.isdigit() else (len(ORDER) + 1, 0)
