"""Reptile: move the initial weights towards the weights that training on each task ends with."""

from typing import Any, ClassVar, Literal

import torch
from torch import Generator, Tensor

from metarep.data.batch import Batch, TaskBatch
from metarep.encoders import Encoder
from metarep.encoders.normalisation import update_running
from metarep.errors import one_of
from metarep.learners.descent import GradientDescent
from metarep.learners.inner_loop import Adapted, InnerLoop, adapt_tasks
from metarep.methods.method import Method, Step


class Reptile(Method[TaskBatch]):
    """Reptile: train on each task for a few steps, then move the initial weights towards the mean of the results.

    Nichol, Achiam, Schulman, On First-Order Meta-Learning Algorithms, 2018. The loss is ``|start - mean end|**2 / 2``
    with the end weights held fixed. Its gradient is ``start - mean end``, so plain gradient descent with rate ``lr``
    *is* the update of the paper, and ``lr`` falls from 1 to 0. There is no query set: training uses the support and the
    query images of a task together. These are ``shots + queries`` images a class, more than a test task has. The inner
    optimiser is Adam without first moment. All tasks of a batch start from one Adam state, and the mean of their states
    is kept for the next step.

    Args:
        encoder: the encoder, whose weights are the initial weights to learn.
        ways: classes of a task, for a head with one row a way.
        head: ``rows`` as in the paper, learned like the body; or ``prototype``, which starts from the class means of a
            task, so that tasks may have any number of ways.
        inner_steps: inner steps in training.
        test_steps: inner steps at test time.
        inner_lr: learning rate of the inner Adam.
        minibatch: images in an inner step.
        scope: which weights the inner steps change besides the head: all, all-but-norms, norms, last-block, or lora:8
            for low-rank updates, here of rank 8.
        normalisation: which statistics batch norms use: support or transductive.

    >>> import torch
    >>> from metarep import Preprocess, TaskBatch, TaskIndex
    >>> images = 255 * torch.tensor([[1, 0], [0, 1], [1, 0], [0, 1]], dtype=torch.uint8).view(4, 1, 1, 2)
    >>> both = torch.tensor([[0, 1]])  # the support holds one image of each of two classes, and so do the queries
    >>> batch = TaskBatch(images, torch.arange(4), tasks=TaskIndex(both, both + 2, both, both, both, ways=2))
    >>> pixels = Encoder(torch.nn.Flatten(), Preprocess((1, 2), 1, (0.0,), (1.0,)))
    >>> method = Reptile(pixels, ways=2, inner_steps=1, inner_lr=0.1)
    >>> step = method.step(batch, progress=0.0, generator=torch.Generator())
    >>> round(step.loss.item(), 4)  # Adam's first step moves each of the 6 numbers of the head by 0.1: 6 * 0.01 / 2
    0.03
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
        scope: str = "all",
        normalisation: Literal["support", "transductive"] = "support",
    ) -> None:
        super().__init__()
        one_of("head", head, ("rows", "prototype"))
        self.learner = GradientDescent(
            encoder,
            ways=ways,
            head=head,
            scope=scope,
            steps=inner_steps,
            inner_lr=inner_lr,
            test_steps=test_steps,
            normalisation=normalisation,
            adaptation="adam",
            minibatch=minibatch,
        )

    def step(self, batch: TaskBatch, *, progress: float, generator: Generator) -> Step:  # noqa: ARG002
        """Reptile's loss of a batch of tasks; ``carry`` holds the result of each task."""
        learner, (support, support_y, query, query_y, ways) = self.learner, batch.tasks.of(batch.images)
        images, labels = learner.images(torch.cat([support, query], 1)), torch.cat([support_y, query_y], 1)
        inner = InnerLoop(learner.steps, learner.adapted, order=1)
        ends = adapt_tasks(
            learner.start,
            inner,
            images,
            labels,
            ways,
            adam=learner.adam,
            minibatch=learner.minibatch,
            refresh_statistics=False,
        )
        start = [*learner.start.body, *learner.head.parameters()]
        return Step(reptile_loss(start, [end.weights[: len(start)] for end in ends]), {}, ends)

    def after_step(self, carry: list[Adapted], progress: float) -> None:  # noqa: ARG002
        """Update the running statistics and the inner Adam state by those of the tasks."""
        update_running(self.learner.encoder.body, [end.statistics for end in carry])
        self.learner.carry_adam([end.adam for end in carry if end.adam is not None])

    def optimizer(self, lr: float, weight_decay: float) -> torch.optim.Optimizer:
        """Plain gradient descent (SGD without momentum); its step on this loss is the update of the paper."""
        return torch.optim.SGD(self.groups(weight_decay), lr=lr)


def reptile_loss(start: list[Tensor], ends: list[list[Tensor]]) -> Tensor:
    """Reptile's loss ``|start - mean end|**2 / 2``, whose gradient is the update of the paper.

    Args:
        start: the initial weights, one tensor a parameter.
        ends: for each task, the weights after training on it.

    >>> reptile_loss([torch.tensor([3.0])], [[torch.tensor([0.0])], [torch.tensor([2.0])]])
    tensor(2.)
    """
    total = start[0].new_zeros(())
    for i, tensor in enumerate(start):
        end = torch.stack([weights[i] for weights in ends]).mean(0)
        total = total + (tensor - end).square().sum() / 2
    return total
