"""HardClasses: batches of classes that look alike, found in an index of all of them."""

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from metarep.data.batches import Batch, BatchShape, LabelledBatch, check_shape
from metarep.data.images import ImageBank
from metarep.data.labels import Labels
from metarep.data.tasks import TaskIndex, tasks_of, usable_classes
from metarep.errors import MetarepError
from metarep.experiments.evaluation import evaluating
from metarep.index import build_index
from metarep.learners import Learner

IMAGES = 8  # of a class, that its mean is taken over at a refresh
BATCH = 512


class HardClasses:
    """Hard negatives from the whole data set, not only from what a batch happens to hold.

    In a batch of 64 of 1,000 classes, a class meets its nearest rival one time in sixteen; all other negatives are
    easy, and a loss over pairs or triplets learns nothing from them. Here an index of class means says which classes
    are taken for each other; each class that is drawn brings its nearest, and the rest is as without.

    Harwood et al., Smart Mining for Deep Metric Learning, 2017, search images of the whole set so; class means cost
    one row a class. Trap: negatives that are hard from the first step collapse a triplet loss, and those of a fresh
    network are hard for no good reason, so the first refresh is not at the first step.

    Args:
        eats: what the method eats; methods that eat views draw no classes.
        labels: of the training images.
        shape: of a batch.
        near: classes that each drawn class brings.

    Raises:
        DataError: the labels cannot give such batches.
        MetarepError: the method is label-free, or the labels are no one division into classes of several images.
    """

    def __init__(self, eats: type[Batch], labels: Labels, shape: BatchShape, near: int) -> None:
        if eats.label_free:
            raise MetarepError(
                "mine=index draws classes, and this method eats views, whose classes are never looked at"
            )
        if labels.kind == "instances" or labels.others:
            what = "labels=instances" if labels.kind == "instances" else "partitions above 1"
            raise MetarepError(
                f"mine=index compares the classes of one division of the images; it does not go with {what}"
            )
        check_shape(eats, shape)
        self.tasks, self.queries = (1, 0) if eats is LabelledBatch else (shape.tasks, shape.queries)
        self.labels, self.ways, self.shots = labels, shape.ways, shape.shots
        self.usable = usable_classes(labels, self.ways, self.shots, self.queries)
        self.most = min(near, len(self.usable) - 1)
        self.near: Int[Tensor, "c near"] = torch.empty(0, self.most, dtype=torch.long)  # by place in `usable`

    @property
    def ready(self) -> bool:
        """Whether there has been a refresh."""
        return len(self.near) > 0

    def refresh(self, learner: Learner, bank: ImageBank, *, turn: int) -> None:
        """Embed some images of every class, and find the nearest classes of each.

        Args:
            learner: embeds, in evaluation mode; its weights and statistics stay as they are.
            bank: on the learner's device.
            turn: which refresh this is; each takes the next images of a class.
        """
        counts = self.labels.counts[self.usable].unsqueeze(1)
        each = min(IMAGES, int(counts.min()))
        place = (torch.arange(each) + turn * each) % counts
        rows = self.labels.rows[self.labels.starts[self.usable].unsqueeze(1) + place]
        with torch.no_grad(), evaluating(learner):
            parts = [learner.embed(bank.pixels(part)).float().cpu() for part in rows.flatten().split(BATCH)]
        features = torch.nn.functional.normalize(torch.cat(parts), dim=-1)
        means = features.view(len(self.usable), each, -1).mean(1)
        index = build_index("exact", means.shape[1])
        index.add(torch.arange(len(means)), means)
        _, found = index.search(means, self.most + 1)
        own = found == torch.arange(len(means)).unsqueeze(1)
        own[:, -1] |= ~own.any(1)  # twins: a class may come behind its copies, and then the last makes room
        self.near = found[~own].view(len(means), self.most)

    def draw(self, generator: Generator) -> TaskIndex:
        """Tasks of the batch: drawn classes, all alike, each followed by its nearest, until there are enough."""
        classes = []
        for _ in range(self.tasks):
            drawn = torch.randperm(len(self.usable), generator=generator)[: self.ways]
            wanted = torch.cat([drawn.unsqueeze(1), self.near[drawn]], 1).flatten()
            kinds, place = torch.unique(wanted, return_inverse=True)
            first = torch.full((len(kinds),), len(wanted)).scatter_reduce_(
                0, place, torch.arange(len(wanted)), "amin", include_self=True
            )
            classes.append(self.usable[wanted[first.sort().values[: self.ways]]])
        chosen = torch.stack(classes)
        return tasks_of(self.labels, chosen, shots=self.shots, queries=self.queries, generator=generator)
