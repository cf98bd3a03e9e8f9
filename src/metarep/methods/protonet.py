"""ProtoNet: train an encoder for classification by the nearest class mean."""

from typing import ClassVar

from torch import Generator

from metarep.data.batch import Batch, TaskBatch
from metarep.encoders import Encoder
from metarep.errors import MetarepError
from metarep.learners.learner import Metric
from metarep.learners.prototypes import Prototypes
from metarep.methods.method import Method, Step


class ProtoNet(Method[TaskBatch]):
    """Prototypical networks: classify each query by its distance to the class means of the support.

    Snell, Swersky, Zemel, Prototypical Networks for Few-shot Learning, 2017. Trap: training with more ways than at test
    time (60 instead of 5) adds about three percentage points. Many reimplementations use equal ways.

    Args:
        encoder: the representation to train.
        metric: distance to the class mean, euclidean (squared) or cosine.
        temperature: divides the logits; about 0.1 for cosine.
        turns: how often the images of a task are used, each time with other images as support; the paper has 1.

    >>> from metarep import Preprocess, build_encoder
    >>> ProtoNet(build_encoder("conv4", Preprocess((28, 28), 1, (0.0,), (1.0,)))).eats.called
    'tasks'
    """

    eats: ClassVar[type[Batch]] = TaskBatch
    family: ClassVar[str] = "metric"
    paper: ClassVar[str] = "Snell et al. 2017"
    spans_batch: ClassVar[bool] = True

    def __init__(
        self, encoder: Encoder, *, metric: Metric = "euclidean", temperature: float = 1.0, turns: int = 1
    ) -> None:
        super().__init__()
        if turns < 1:
            raise MetarepError(f"turns must be at least 1, not {turns}")
        self.turns = turns
        self.learner = Prototypes(encoder, metric, temperature)

    def step(self, batch: TaskBatch, *, progress: float, generator: Generator) -> Step:  # noqa: ARG002
        """The loss of a batch of tasks: cross-entropy of the queries under the prototypes of the support."""
        tasks = batch.tasks.turned(self.turns).of(batch.whole(self.learner.prepare(batch.images)))
        return Step(self.learner.task_loss(*tasks), {})
