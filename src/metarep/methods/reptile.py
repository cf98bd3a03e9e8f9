"""Reptile: move the start towards the weights that tasks end up with."""

from typing import Any, ClassVar, Literal

import torch
from torch import Generator, Tensor

from metarep.batches import Batch, TaskBatch
from metarep.encoders import Encoder
from metarep.errors import one_of
from metarep.inner_loop import Adapted, InnerLoop, adapt_tasks
from metarep.learners.descent import GradientDescent
from metarep.methods.method import Method, Step
from metarep.normalisation import update_running


class Reptile(Method[TaskBatch]):
    """Train on each task for a few steps, then move the start towards where the tasks ended.

    Nichol, Achiam, Schulman, On First-Order Meta-Learning Algorithms, 2018. The loss is ``|start - mean end|**2 / 2``
    with the ends held fixed; its gradient is ``start - mean end``, so plain gradient descent with rate ``lr`` *is* the
    update of the paper, and ``lr`` falls from 1 to 0. There is no query set: support and query images of a task are
    trained on together, ``shots + queries`` a class, more than a test task has. The inner optimiser is Adam without
    first moment, whose state is carried from step to step (every task of a batch starts from it, the mean is kept).

    Args:
        encoder: the start to learn.
        ways: classes of a task, for a head of one row a way.
        head: ``rows`` as in the paper, learned like the body; or ``prototype``, which starts anew from every task's
            class means, so that tasks of any number of ways can be learned from and solved.
        inner_steps: inner steps in training.
        test_steps: inner steps at test time.
        inner_lr: learning rate of the inner Adam.
        minibatch: images an inner step.
        normalisation: whose statistics: support or transductive.

    >>> from metarep import Preprocess, build_encoder
    >>> Reptile(build_encoder("conv4", Preprocess((28, 28), 1, (0.0,), (1.0,)))).learner.adaptation
    'adam'
    """

    eats: ClassVar[type[Batch]] = TaskBatch
    family: ClassVar[str] = "meta-optimisation"
    paper: ClassVar[str] = "Nichol et al. 2018"
    defaults: ClassVar[dict[str, Any]] = {
        "ways": 5,
        "shots": 5,
        "queries": 5,
        "tasks": 4,
        "steps": 250,
        "lr": 1.0,
        "schedule": "linear",
        "weight_decay": 0.0,
        "validation_tasks": 100,
    }
    learner: GradientDescent

    def __init__(
        self,
        encoder: Encoder,
        *,
        ways: int = 5,
        head: Literal["rows", "prototype"] = "rows",
        inner_steps: int = 5,
        test_steps: int = 20,
        inner_lr: float = 1e-3,
        minibatch: int = 10,
        normalisation: Literal["support", "transductive"] = "support",
    ) -> None:
        super().__init__()
        one_of("head", head, ("rows", "prototype"))
        self.learner = GradientDescent(
            encoder,
            ways=ways,
            head=head,
            scope="all",
            steps=inner_steps,
            inner_lr=inner_lr,
            test_steps=test_steps,
            normalisation=normalisation,
            adaptation="adam",
            minibatch=minibatch,
        )

    def step(self, batch: TaskBatch, *, progress: float, generator: Generator) -> Step:  # noqa: ARG002
        learner, (support, support_y, query, query_y, ways) = self.learner, batch.tasks.of(batch.images)
        images, labels = learner.images(torch.cat([support, query], 1)), torch.cat([support_y, query_y], 1)
        inner = InnerLoop(learner.steps, learner.adapted, order=1)
        ends = adapt_tasks(
            learner.start, inner, images, labels, ways, adam=learner.adam, minibatch=learner.minibatch, settle=False
        )
        start = [*learner.start.body, *learner.head.parameters()]
        return Step(reptile_loss(start, [end.weights[: len(start)] for end in ends]), {}, ends)

    def after_step(self, carry: list[Adapted], progress: float) -> None:  # noqa: ARG002
        update_running(self.learner.encoder.body, [end.statistics for end in carry])
        self.learner.carry_adam([end.adam for end in carry if end.adam is not None])

    def optimizer(self, lr: float, weight_decay: float) -> torch.optim.Optimizer:
        """Plain gradient descent, whose step on this loss is the paper's."""
        return torch.optim.SGD(self.groups(weight_decay), lr=lr)


def reptile_loss(start: list[Tensor], ends: list[list[Tensor]]) -> Tensor:
    """``|start - mean end|**2 / 2``; its gradient is Reptile's step."""
    total = start[0].new_zeros(())
    for i, tensor in enumerate(start):
        end = torch.stack([weights[i] for weights in ends]).mean(0)
        total = total + (tensor - end).square().sum() / 2
    return total
