"""ProtoNet: train an encoder for classification by the nearest class mean."""

from typing import Any, ClassVar

from jaxtyping import Float
from torch import Generator, Tensor

from metarep.data.batch import Batch, TaskBatch
from metarep.encoders import Encoder
from metarep.errors import MetarepError
from metarep.learners.distances import task_cross_entropy
from metarep.learners.learner import Learner, Metric
from metarep.learners.prototypes import Prototypes
from metarep.methods.method import Method, Step
from metarep.methods.student import Student


class ProtoNet(Student[TaskBatch]):
    """Prototypical networks: classify each query by its distance to the class means of the support.

    Snell, Swersky, Zemel, Prototypical Networks for Few-shot Learning, 2017. Trap: training with more ways than at test
    time (60 instead of 5) adds about three percentage points. Many reimplementations use equal ways.

    Args:
        encoder: the representation to train.
        metric: distance to the class mean, euclidean (squared) or cosine.
        temperature: divides the logits; about 0.1 for cosine.
        learn_temperature: train the temperature too, from this value on (Chen et al., Meta-Baseline, 2021).
        turns: how often the images of a task are used, each time with other images as support; the paper has 1.
        label_weight: with a teacher, the weight of the loss from labels.
        teacher_weight: with a teacher, the weight of the loss from its softened logits.
        teacher_temperature: with a teacher, divides its logits and our own.

    >>> import torch
    >>> from metarep import Preprocess, TaskBatch, TaskIndex
    >>> images = 255 * torch.tensor([[1, 0], [0, 1], [1, 0], [0, 1]], dtype=torch.uint8).view(4, 1, 1, 2)
    >>> both = torch.tensor([[0, 1]])  # the support holds one image of each of two classes, and so do the queries
    >>> batch = TaskBatch(images, torch.arange(4), tasks=TaskIndex(both, both + 2, both, both, both, ways=2))
    >>> pixels = Encoder(torch.nn.Flatten(), Preprocess((1, 2), 1, (0.0,), (1.0,)))
    >>> step = ProtoNet(pixels).step(batch, progress=0.0, generator=torch.Generator())
    >>> round(step.loss.item(), 4)  # squared distances 0 and 2: log(1 + exp(-2))
    0.1269
    """

    eats: ClassVar[type[Batch]] = TaskBatch
    family: ClassVar[str] = "metric"
    paper: ClassVar[str] = "Snell et al. 2017"
    spans_batch: ClassVar[bool] = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        metric: Metric = "euclidean",
        temperature: float = 1.0,
        learn_temperature: bool = False,
        turns: int = 1,
        label_weight: float = 0.5,
        teacher_weight: float = 0.5,
        teacher_temperature: float = 4.0,
    ) -> None:
        super().__init__(label_weight, teacher_weight, teacher_temperature)
        if turns < 1:
            raise MetarepError(f"turns must be at least 1, not {turns}")
        self.turns = turns
        self.learner = Prototypes(encoder, metric, temperature, learn_temperature=learn_temperature)

    def step(self, batch: TaskBatch, *, progress: float, generator: Generator) -> Step:  # noqa: ARG002
        """The loss of a batch of tasks: cross-entropy of the queries under the prototypes of the support."""
        logits, query_y = self._solve(self.learner, batch)
        return Step(self.weighed(task_cross_entropy(logits, query_y), logits, batch), {})

    def logits_of(self, teacher: Method[Any], batch: TaskBatch) -> Float[Tensor, "task query ways"]:
        return self._solve(teacher.learner, batch)[0]

    def refuse_teacher(self, teacher: Method[Any]) -> None:
        """Raise unless a teacher solves tasks of any number of ways."""
        if teacher.learner.ways is not None:
            raise MetarepError(
                f"this teacher solves {teacher.learner.ways}-way tasks only; take one that solves any, such as a "
                "protonet or a baseline"
            )

    def _solve(self, learner: Learner, batch: TaskBatch) -> tuple[Tensor, Tensor]:
        """The logits of a learner for the queries of all turns, and the classes of the queries."""
        rows = batch.whole(learner.prepare(batch.images))
        support, support_y, query, query_y, ways = batch.tasks.turned(self.turns).of(rows)
        return learner.logits(learner.adapt(support, support_y, ways), query), query_y
