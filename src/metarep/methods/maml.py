"""MAML: learn initial weights from which a few gradient steps solve a task."""

from typing import Any, ClassVar, Literal

from torch import Generator

from metarep.data.batch import Batch, TaskBatch
from metarep.encoders import Encoder
from metarep.encoders.normalisation import Normalisation, running_statistics
from metarep.errors import Advice, MetarepError, Slot
from metarep.learners.descent import GradientDescent
from metarep.learners.inner_loop import HeadKind, RateKind
from metarep.methods.method import Method, Step


class MAML(Method[TaskBatch]):
    """MAML (model-agnostic meta-learning): learn initial weights from which a few gradient steps solve a task.

    Finn, Abbeel, Levine, Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks, 2017; Antoniou, Edwards,
    Storkey, How to Train Your MAML, 2019 (``rates layer``, ``multi_step``, ``anneal_order``); Li et al., Meta-SGD, 2017
    (``rates parameter``). Trap: most published MAML results are transductive; the default here is not.

    Args:
        encoder: the encoder, whose weights are the initial weights to learn.
        ways: classes of a training task; with ``head rows``, each class has its own row of the head.
        inner_steps: inner steps in training.
        test_steps: inner steps at test time.
        inner_lr: inner learning rate, or the first value of learned rates.
        order: 2 differentiates through the inner steps; 1 is first-order MAML.
        rates: inner learning rates: fixed, parameter (one a weight, Meta-SGD), or layer (one a tensor and step).
        head: rows (one row a way), prototype (any number of ways) or shared (needs two steps or more).
        scope: which weights the inner steps change besides the head: all, all-but-norms, norms, last-block, or lora:8
            for low-rank updates, here of rank 8.
        normalisation: which statistics batch norms use: support, transductive, or running (those of the encoder that
            training starts from, which do not change).
        multi_step: share of training in which the query loss after every inner step counts, the earlier ones less and
            less; after it, only the loss after the last step counts. 0 counts only the last step from the beginning.
        anneal_order: share of training that is first order, before it becomes second order.

    >>> import torch
    >>> from metarep import Preprocess, TaskBatch, TaskIndex
    >>> images = 255 * torch.tensor([[1, 0], [0, 1], [1, 0], [0, 1]], dtype=torch.uint8).view(4, 1, 1, 2)
    >>> both = torch.tensor([[0, 1]])  # the support holds one image of each of two classes, and so do the queries
    >>> batch = TaskBatch(images, torch.arange(4), tasks=TaskIndex(both, both + 2, both, both, both, ways=2))
    >>> pixels = Encoder(torch.nn.Flatten(), Preprocess((1, 2), 1, (0.0,), (1.0,)))
    >>> method = MAML(pixels, ways=2, inner_lr=1.0)
    >>> for weight in method.learner.head.parameters():
    ...     _ = torch.nn.init.zeros_(weight)
    >>> step = method.step(batch, progress=0.0, generator=torch.Generator())
    >>> round(step.loss.item(), 4)  # one inner step makes the logits 0.25 and -0.25: log(1 + exp(-0.5))
    0.4741
    """

    eats: ClassVar[type[Batch]] = TaskBatch
    family: ClassVar[str] = "meta-optimisation"
    paper: ClassVar[str] = "Finn et al. 2017"
    defaults: ClassVar[dict[str, Any]] = {
        "ways": 5,
        "queries": 5,
        "tasks": 4,
        "steps": 400,
        "clip": 10.0,
        "validation_tasks": 100,
    }
    learner: GradientDescent

    def __init__(
        self,
        encoder: Encoder,
        *,
        ways: int = 5,
        inner_steps: int = 1,
        test_steps: int = 3,
        inner_lr: float = 0.4,
        order: Literal[1, 2] = 2,
        rates: RateKind = "fixed",
        head: HeadKind = "rows",
        scope: str = "all",
        normalisation: Normalisation = "support",
        multi_step: float = 0.0,
        anneal_order: float = 0.0,
    ) -> None:
        super().__init__()
        if order not in (1, 2):
            raise MetarepError(f"order must be 1 or 2, not {order}")
        for name, share in (("multi_step", multi_step), ("anneal_order", anneal_order)):
            if not 0 <= share <= 1:
                raise MetarepError(f"{name} is a share of training, 0 to 1, not {share}")
        self.order, self.multi_step, self.anneal_order = order, multi_step, anneal_order
        self.learner = GradientDescent(
            encoder,
            ways=ways,
            head=head,
            scope=scope,
            steps=inner_steps,
            inner_lr=inner_lr,
            test_steps=test_steps,
            rates=rates,
            normalisation=normalisation,
        )

    def step(self, batch: TaskBatch, *, progress: float, generator: Generator) -> Step:  # noqa: ARG002
        """The loss of a batch of tasks: cross-entropy of the queries under the adapted weights."""
        if self.learner.normalisation == "running":
            self._refuse_empty_statistics()
        tasks = batch.tasks.of(self.learner.prepare(batch.images))
        order = 1 if progress < self.anneal_order else self.order
        weights = step_weights(self.learner.steps, progress / self.multi_step if self.multi_step else 1.0)
        return Step(self.learner.task_loss(*tasks, order=order, weights=weights), {})

    def _refuse_empty_statistics(self) -> None:
        means = [mean for mean, _ in running_statistics(self.learner.encoder.body)]
        if means and not any(bool(mean.any()) for mean in means):
            raise MetarepError(
                "normalisation=running keeps the statistics that the encoder comes with, and this one has none yet",
                advice=(
                    Advice("start from a trained one with {init}", init=Slot("RUN")),
                    Advice("take {normalisation}", normalisation="support"),
                ),
            )


def step_weights(steps: int, progress: float) -> tuple[float, ...] | None:
    """The weight of the query loss after each inner step: equal at first, and only the last step's from progress 1 on.

    Antoniou et al., 2019.

    Returns:
        Weights that sum to 1; or None, if only the loss after the last step counts.

    >>> step_weights(2, 0.5), step_weights(2, 1.0)
    ((0.25, 0.75), None)
    """
    if progress >= 1 or steps < 2:
        return None
    early = (1 - progress) / steps
    return (*[early] * (steps - 1), 1 - early * (steps - 1))
