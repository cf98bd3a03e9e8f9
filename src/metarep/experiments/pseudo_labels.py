"""Labels to train on: all true labels, a few of each class, clusters of features, or every image as a class."""

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
from metarep.encoders.modes import evaluating
from metarep.errors import MetarepError, unknown
from metarep.experiments.kmeans import kmeans
from metarep.learners import Learner
from metarep.machine.files import read_tensors, write_tensors
from metarep.machine.ranks import agreed
from metarep.weights.checkpoint import Checkpoint
from metarep.weights.hub.names import short_name

KINDS = ("true", "clusters:RUN", "instances")
IN_A_CLUSTER = 40  # images in a cluster on average, if the number of clusters is not given
ORDER = ("none", "instances", "clusters")  # from little to much; more than these are some true labels, then all


@dataclass(frozen=True)
class Labelling:
    """The choice of labels for a training.

    Args:
        labels: ``true``; ``clusters:RUN`` for pseudo-classes, which are clusters of the features of a run; or
            ``instances``, where every image is a class and its samples are its views.
        clusters: number of clusters; None for one for every 40 images.
        partitions: number of different divisions into clusters; every batch is from one of them.
        per_class: number of labelled images of each class; other images are not used at all. None for all images.

    Raises:
        MetarepError: settings that contradict each other.

    >>> Labelling("clusters:runs/simclr").kind, Labelling(per_class=5).called
    ('clusters', '5-a-class')
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
        """The kind of the labels: ``true``, ``clusters`` or ``instances``."""
        return self.labels.partition(":")[0]

    @property
    def run(self) -> str:
        """The run whose features are clustered; empty for other labels."""
        return self.labels.partition(":")[2]

    @property
    def called(self) -> str:
        """The name in result rows: ``true``, ``clusters``, ``instances``, or ``5-a-class``."""
        return self.kind if self.per_class is None else f"{self.per_class}-a-class"

    def as_dict(self) -> dict[str, Any]:
        """The settings that a run folder keeps; empty if all true labels are read."""
        if self.kind == "clusters":
            return {"clusters": self.clusters, "partitions": self.partitions, "clustered_by": short_name(self.run)}
        return {} if self.per_class is None else {"labels_per_class": self.per_class}

    def of(self, split: Split, seed: int, source: Checkpoint | None = None, kept: Path | None = None) -> Split:
        """The split with these labels instead of the true ones. Pseudo-labels never read the true labels.

        Args:
            split: images with their true labels.
            seed: seed of the choice of images, or of the clustering.
            source: the run whose features are clustered, on the device to use.
            kept: the file where :meth:`keep` wrote earlier clusters. If it exists, these are used, even if ``source``
                was trained again since.
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
        clusters = [agreed(kmeans(features, count, generator)) for _ in range(self.partitions)]
        return split._replace(labels=pseudo_classes(clusters))

    def keep(self, path: Path, labels: Labels, seed: int) -> None:
        """Write clusters to a file, so that a resumed training uses the same ones. Other labels are not written.

        Args:
            path: the file.
            labels: the pseudo-labels, from :meth:`of`.
            seed: the seed that they were made with.
        """
        if self.kind == "clusters":
            clusters = torch.stack([part.classes for part in (labels, *labels.others)])
            write_tensors(path, {"clusters": clusters.int()}, self._header(seed))

    def _header(self, seed: int) -> dict[str, Any]:
        return {**self.as_dict(), "seed": seed}


def instances(n: int) -> Labels:
    """Labels in which every image is a class of its own, whose samples are its views.

    Khodadadeh, Bölöni, Shah, Unsupervised Meta-learning for Few-shot Image Classification (UMTRA), 2019.

    Args:
        n: number of images.

    >>> instances(3).names
    ('image 0', 'image 1', 'image 2')
    """
    names = tuple(f"image {i}" for i in range(n))
    return Labels(torch.arange(n), names, names, kind="instances")


def pseudo_classes(clusters: list[Tensor]) -> Labels:
    """Labels in which every cluster is a class.

    Hsu, Levine, Finn, Unsupervised Learning via Meta-learning (CACTUs), 2019.

    Args:
        clusters: the cluster of each image, once for every partition. Partitions after the first become ``others``.

    >>> pseudo_classes([torch.tensor([0, 1, 0])]).names
    ('cluster 0', 'cluster 1')
    """
    made = []
    for each in clusters:
        names = tuple(f"cluster {i}" for i in range(int(each.max()) + 1))
        made.append(Labels(each, names, names, kind="clusters"))
    first, *others = made
    return Labels(first.classes, first.names, first.keys, kind="clusters", others=tuple(others))


def few(split: Split, count: int, seed: int) -> Split:
    """The split with at most ``count`` images of each class; all other images are removed.

    A larger ``count`` adds images: five images of a class are the first five of ten. If the labels have groups, the
    images come from as many groups as possible, because support and query images must not share a group.

    Args:
        split: images and labels.
        count: largest number of images of a class.
        seed: seed of the choice.
    """
    labels, classes = split.labels, split.labels.classes.cpu()
    order = torch.rand(len(labels), generator=Generator().manual_seed(seed)).argsort()
    if labels.groups is not None:
        groups = labels.groups.cpu()
        order = order[_occurrence(classes[order] * (int(groups.max()) + 1) + groups[order]).argsort(stable=True)]
    rows = order[_occurrence(classes[order]) < count].sort().values
    kept = None if labels.groups is None else labels.groups.cpu()[rows]
    chosen = Labels(classes[rows], labels.names, labels.keys, kept)
    return Split(ImageBank(split.bank.pixels(rows)), chosen, split.name)


@torch.no_grad()
def features_of(learner: Learner, bank: ImageBank) -> Float[Tensor, "n dim"]:
    """The features of every image, centred and scaled to length 1, on the CPU.

    Features after a ReLU share a large common direction, in which they differ least. Without it their angles tell
    images apart better.

    Args:
        learner: embeds the images, on its device.
        bank: the images.

    Raises:
        DataError: an image has NaN or infinite features.
    """
    with evaluating(learner):
        rows = torch.cat([learner.embed(part.to(learner.device)).cpu() for part in bank.chunks(256)])
    refuse_lost_rows(rows, learner.encoder, "image {}".format)
    return functional.normalize(rows - rows.mean(0), dim=-1)


def labels_read(own: str, *runs: Checkpoint | None) -> str:
    """The most labels that a training has read, itself or through the runs that it is based on.

    Args:
        own: what the training itself reads: ``none``, ``instances``, ``clusters``, ``5-a-class`` or ``true``.
        runs: the runs that it starts from or whose features are clustered; None is skipped.

    >>> labels_read("clusters", None)
    'clusters'
    """
    return max([own, *(run.labels for run in runs if run is not None)], key=_amount)


def usable(labels: Labels, support: int, query: int) -> int:
    """The number of classes with enough images for a task, in the partition with the fewest.

    Args:
        labels: the labels.
        support, query: images of each class in a task.

    >>> usable(Labels.of([0, 0, 0, 1]), 1, 1)
    1
    """
    return min(int(part.can_give(support, query).sum()) for part in (labels, *labels.others))


def _occurrence(values: Tensor) -> Tensor:
    """For each element, the number of equal elements before it."""
    order = values.argsort(stable=True)
    counts = torch.unique_consecutive(values[order], return_counts=True)[1]
    first = (counts.cumsum(0) - counts).repeat_interleave(counts)
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order)) - first)


def _amount(labels: str) -> tuple[int, int]:
    """A key that sorts names of labels from few to many."""
    if labels in ORDER:
        return ORDER.index(labels), 0
    number = labels.partition("-")[0]
    return (len(ORDER), int(number)) if number.isdigit() else (len(ORDER) + 1, 0)
