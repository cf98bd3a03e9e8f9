"""Write your own method; the library trains and measures it like every other method.

The example is a prototypical network with cosine similarity and label smoothing. Change the name of the class, `eats`
(LabelledBatch, TaskBatch, ViewBatch or LabelledViewBatch), the learner and the loss in `step`. The rest can stay.
"""

from typing import ClassVar

import torch
from torch import Generator
from torch.nn.functional import cross_entropy

from metarep import (
    Batch,
    Encoder,
    Method,
    Preprocess,
    Prototypes,
    Step,
    TaskBatch,
    TrainSettings,
    build_encoder,
    draw_tasks,
    evaluate,
    load_dataset,
    train,
)


class SmoothProtoNet(Method[TaskBatch]):
    """Prototypical networks on cosine similarity, with smoothed labels."""

    eats: ClassVar[type[Batch]] = TaskBatch
    family: ClassVar[str] = "metric"
    paper: ClassVar[str] = "mine"

    def __init__(self, encoder: Encoder, *, smoothing: float = 0.1) -> None:
        super().__init__()
        self.smoothing = smoothing
        self.learner = Prototypes(encoder, "cosine", temperature=0.1)

    def step(self, batch: TaskBatch, *, progress: float, generator: Generator) -> Step:
        """The loss of one batch of tasks."""
        support, support_y, query, query_y, ways = batch.tasks.of(self.learner.prepare(batch.images))
        logits = self.learner.logits(self.learner.adapt(support, support_y, ways), query)
        loss = cross_entropy(logits.flatten(0, 1), query_y.flatten(), label_smoothing=self.smoothing)
        return Step(loss, {})


if __name__ == "__main__":
    torch.manual_seed(0)  # the weights that training starts from
    seen, new = load_dataset("glyphs", "train"), load_dataset("glyphs", "test")
    method = SmoothProtoNet(build_encoder("conv4", Preprocess.of(seen.bank), width=32))
    tasks = draw_tasks(new.labels, 300, ways=5, shots=1, queries=5, generator=Generator().manual_seed(0))
    print("before", evaluate(method.learner, new.bank, tasks, split=new.name))
    train(method, seen, TrainSettings(steps=60, ways=20, shots=1, queries=3))
    print("after ", evaluate(method.learner, new.bank, tasks, split=new.name))
