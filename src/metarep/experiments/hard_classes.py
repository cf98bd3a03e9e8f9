"""HardClasses: batches in which each class comes with its nearest classes, from an index of all classes."""

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from metarep.data.batch import Batch, BatchShape, LabelledBatch
from metarep.data.batches import check_shape
from metarep.data.images import ImageBank
from metarep.data.labels import Labels
from metarep.data.tasks import TaskIndex, tasks_of, usable_classes
from metarep.encoders.modes import evaluating
from metarep.errors import MetarepError
from metarep.index import build_index
from metarep.learners import Learner
from metarep.machine.ranks import agreed

IMAGES = 8  # images of a class in its mean, at each refresh
BATCH = 512  # images embedded at a time


class HardClasses:
    """Hard negative mining over the whole data set: batches in which each class comes with its nearest classes.

    A batch of 64 of 1,000 classes contains the nearest rival of a class one time in sixteen. All other negatives are
    easy, and a loss over pairs or triplets learns nothing from them. Here an index of class means gives the nearest
    classes. Each class that is drawn brings its nearest ones; everything else is as without mining.

    Harwood et al., Smart Mining for Deep Metric Learning, 2017, search all images in this way; class means need only
    one row for each class. Trap: negatives that are hard from the first step collapse a triplet loss, and those of an
    untrained network are hard for no good reason. So the first refresh is not at the first step.

    Args:
        eats: the type of batch that the method trains on; methods that train on views draw no classes.
        labels: labels of the training images.
        shape: the shape of a batch.
        near: number of nearest classes that each drawn class brings.

    Raises:
        DataError: the labels cannot give such batches.
        MetarepError: the method is label-free, or the labels are instances or several partitions.
    """

    def __init__(self, eats: type[Batch], labels: Labels, shape: BatchShape, near: int) -> None:
        if eats.label_free:
            raise MetarepError(
                "mine=index draws classes, and this method eats views, whose classes are never read; take mine=batch"
            )
        if labels.kind == "instances" or labels.others:
            what = "labels=instances" if labels.kind == "instances" else "partitions above 1"
            raise MetarepError(
                f"mine=index compares the classes of one division of the images; it does not go with {what}; take "
                "mine=batch"
            )
        check_shape(eats, shape)
        self.tasks, self.queries = (1, 0) if issubclass(eats, LabelledBatch) else (shape.tasks, shape.queries)
        self.labels, self.ways, self.shots = labels, shape.ways, shape.shots
        self.usable = usable_classes(labels, self.ways, self.shots, self.queries)
        self.most = min(near, len(self.usable) - 1)
        self.near: Int[Tensor, "c near"] = torch.empty(0, self.most, dtype=torch.long)  # positions in `usable`

    @property
    def ready(self) -> bool:
        """Whether there has been a refresh."""
        return len(self.near) > 0

    def refresh(self, learner: Learner, bank: ImageBank, *, turn: int) -> None:
        """Embed some images of every class, and search the nearest classes of each class.

        Args:
            learner: embeds the images in evaluation mode; its weights and batch statistics do not change.
            bank: the training images, on the learner's device.
            turn: the number of this refresh; each refresh takes the next images of a class.
        """
        counts = self.labels.counts[self.usable].unsqueeze(1)
        images = min(IMAGES, int(counts.min()))
        positions = (torch.arange(images) + turn * images) % counts
        rows = self.labels.rows[self.labels.starts[self.usable].unsqueeze(1) + positions]
        with torch.no_grad(), evaluating(learner):
            parts = [learner.embed(bank.pixels(part)).float().cpu() for part in rows.flatten().split(BATCH)]
        features = torch.nn.functional.normalize(torch.cat(parts), dim=-1)
        means = features.view(len(self.usable), images, -1).mean(1)
        index = build_index("exact", means.shape[1])
        index.add(torch.arange(len(means)), means)
        _, nearest = index.search(means, self.most + 1)
        own = nearest == torch.arange(len(means)).unsqueeze(1)
        own[:, -1] |= ~own.any(1)  # copies of a class may push it off its own list; then the last one is left out
        self.near = agreed(nearest[~own].view(len(means), self.most))

    def draw(self, generator: Generator) -> TaskIndex:
        """Draw the tasks of a batch: random classes, each followed by its nearest classes, until there are enough.

        Args:
            generator: a CPU generator.

        Returns:
            Tasks as rows of the training images.
        """
        classes = []
        for _ in range(self.tasks):
            drawn = torch.randperm(len(self.usable), generator=generator)[: self.ways]
            wanted = torch.cat([drawn.unsqueeze(1), self.near[drawn]], 1).flatten()
            classes.append(self.usable[_first_of_each(wanted)[: self.ways]])
        chosen = torch.stack(classes)
        return tasks_of(self.labels, chosen, shots=self.shots, queries=self.queries, generator=generator)


def _first_of_each(values: Int[Tensor, " n"]) -> Int[Tensor, " m"]:
    """The values without repetitions, in the order in which they first occur."""
    distinct, group = torch.unique(values, return_inverse=True)
    position = torch.arange(len(values))
    first = torch.full((len(distinct),), len(values)).scatter_reduce_(0, group, position, "amin", include_self=True)
    return values[first.sort().values]
