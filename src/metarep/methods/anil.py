"""ANIL: MAML whose inner loop adapts only the head."""

from typing import Any, ClassVar

from torch import Generator

from metarep.data.batch import Batch, TaskBatch
from metarep.encoders import Encoder
from metarep.learners.descent import GradientDescent
from metarep.learners.inner_loop import TaskHead
from metarep.methods.method import Method, Step


class ANIL(Method[TaskBatch]):
    """ANIL (almost no inner loop): all tasks share the body, and a few gradient steps adapt the head to a task.

    Raghu, Raghu, Bengio, Vinyals, Rapid Learning or Feature Reuse? Towards Understanding the Effectiveness of MAML,
    2020. The outer step trains body and head together, with second-order gradients through the steps of the head, which
    cost only a few matrix products. The body uses running statistics, so features are computed once an image.

    Args:
        encoder: the body.
        ways: classes of a training task; with ``head rows``, each class has its own row of the head.
        inner_steps: inner steps in training.
        test_steps: inner steps at test time.
        inner_lr: inner learning rate of the head, or the first value of learned rates.
        learned_rates: learn one rate for each step, for weight and for bias.
        head: rows (one row a way); or prototype, cosine or shared (any number of ways).
        turns: how often the images of a task are used, each time with other images as support.

    >>> from metarep import Preprocess, build_encoder
    >>> ANIL(build_encoder("conv4", Preprocess((28, 28), 1, (0.0,), (1.0,)))).learner.scope
    'head'
    """

    eats: ClassVar[type[Batch]] = TaskBatch
    family: ClassVar[str] = "meta-optimisation"
    paper: ClassVar[str] = "Raghu et al. 2020"
    spans_batch: ClassVar[bool] = True
    defaults: ClassVar[dict[str, Any]] = {"steps": 400, "ways": 5, "queries": 5, "tasks": 10}
    learner: GradientDescent

    def __init__(
        self,
        encoder: Encoder,
        *,
        ways: int = 5,
        inner_steps: int = 5,
        test_steps: int = 10,
        inner_lr: float = 0.1,
        learned_rates: bool = False,
        head: TaskHead = "rows",
        turns: int = 1,
    ) -> None:
        super().__init__()
        self.turns = turns
        self.learner = GradientDescent(
            encoder,
            ways=ways,
            head=head,
            scope="head",
            steps=inner_steps,
            inner_lr=inner_lr,
            test_steps=test_steps,
            rates="layer" if learned_rates else "fixed",
        )

    def step(self, batch: TaskBatch, *, progress: float, generator: Generator) -> Step:  # noqa: ARG002
        """The loss of a batch of tasks: cross-entropy of the queries after the inner steps on the head."""
        tasks = batch.tasks.turned(self.turns).of(batch.whole(self.learner.prepare(batch.images)))
        return Step(self.learner.task_loss(*tasks), {})
