"""Prototypical networks: train the nearest class mean that is deployed."""

from typing import ClassVar

from torch import Generator

from metarep.batches import Batch, TaskBatch
from metarep.encoders import Encoder
from metarep.errors import MetarepError
from metarep.learners.learner import Metric
from metarep.learners.prototypes import Prototypes
from metarep.methods.method import Method, Step


class ProtoNet(Method[TaskBatch]):
    """Prototypical networks.

    Snell, Swersky, Zemel, Prototypical Networks for Few-shot Learning, 2017. Trap: more ways in training than at test
    (60 against 5) is worth about three points; ways are drawn equal in both by many ports.

    Args:
        encoder: the representation to train.
        metric: distance to the class mean, euclidean (squared) or cosine.
        temperature: divides the logits; about 0.1 for cosine.
        turns: how often the same images are used, each time with other ones as support; 1 is the paper's.

    >>> from metarep.encoders import Preprocess, build_encoder
    >>> ProtoNet(build_encoder("conv4", Preprocess((28, 28), 1, (0.0,), (1.0,)))).eats.called
    'tasks'
    """

    eats: ClassVar[type[Batch]] = TaskBatch
    family: ClassVar[str] = "metric"
    paper: ClassVar[str] = "Snell et al. 2017"

    def __init__(
        self, encoder: Encoder, *, metric: Metric = "euclidean", temperature: float = 1.0, turns: int = 1
    ) -> None:
        super().__init__()
        if turns < 1:
            raise MetarepError(f"turns must be at least 1, not {turns}")
        self.turns = turns
        self.learner = Prototypes(encoder, metric, temperature)

    def step(self, batch: TaskBatch, *, progress: float, generator: Generator) -> Step:  # noqa: ARG002
        tasks = batch.tasks.turned(self.turns).of(self.learner.prepare(batch.images))
        return Step(self.learner.task_loss(*tasks, progress=progress), {})
