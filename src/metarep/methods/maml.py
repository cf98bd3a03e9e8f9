"""MAML: learn a start from which a few gradient steps solve a task."""

from typing import Any, ClassVar, Literal

from torch import Generator

from metarep.batches import Batch, TaskBatch
from metarep.encoders import Encoder
from metarep.errors import MetarepError
from metarep.inner_loop import HeadKind, RateKind
from metarep.learners.descent import GradientDescent
from metarep.methods.method import Method, Step
from metarep.normalisation import Normalisation, running_statistics


class MAML(Method[TaskBatch]):
    """Model-agnostic meta-learning.

    Finn, Abbeel, Levine, Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks, 2017; Antoniou, Edwards,
    Storkey, How to Train Your MAML, 2019 (``rates layer``, ``multi_step``, ``anneal_order``); Li et al., Meta-SGD, 2017
    (``rates parameter``). Trap: most printed MAML numbers are transductive; the default here is not.

    Args:
        encoder: the start to learn.
        ways: classes of a task, each with its own row of the head; training's ways.
        inner_steps: inner steps in training.
        test_steps: inner steps at test time.
        inner_lr: inner learning rate, or where learned ones start.
        order: 2 differentiates through the inner steps; 1 is first-order MAML.
        rates: inner learning rates: fixed, parameter (Meta-SGD), or layer (one a tensor and step).
        head: rows (one row a way), prototype (any number of ways) or shared (needs two steps or more).
        scope: what the steps change: all, or all-but-norms.
        normalisation: whose statistics: support, transductive, or running (those of the encoder that training starts
            from, which stay as they are).
        multi_step: share of training at whose end only the last step's query loss counts; until then every step's does,
            less and less; 0 for the last alone throughout.
        anneal_order: share of training that is first order before the second order sets in.

    >>> from metarep import Preprocess, build_encoder
    >>> MAML(build_encoder("conv4", Preprocess((28, 28), 1, (0.0,), (1.0,)))).learner.protocol
    'inductive'
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
        scope: Literal["all", "all-but-norms"] = "all",
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
        if self.learner.normalisation == "running":
            self._refuse_empty_statistics()
        tasks = batch.tasks.of(self.learner.prepare(batch.images))
        order = 1 if progress < self.anneal_order else self.order
        weights = step_weights(self.learner.steps, progress / self.multi_step if self.multi_step else 1.0)
        return Step(self.learner.task_loss(*tasks, progress=progress, order=order, weights=weights), {})

    def _refuse_empty_statistics(self) -> None:
        means = [mean for mean, _ in running_statistics(self.learner.encoder.body)]
        if means and not any(bool(mean.any()) for mean in means):
            raise MetarepError(
                "normalisation=running keeps the statistics that the encoder comes with, and this one has none yet: "
                "start from a trained one (--init RUN), or take normalisation=support"
            )


def step_weights(steps: int, progress: float) -> tuple[float, ...] | None:
    """Weights of the query loss after each inner step: equal at first, the last alone from ``progress`` 1 on.

    Antoniou et al., 2019. They sum to 1; None stands for the last alone.

    >>> step_weights(2, 0.5), step_weights(2, 1.0)
    ((0.25, 0.75), None)
    """
    if progress >= 1 or steps < 2:
        return None
    early = (1 - progress) / steps
    return (*[early] * (steps - 1), 1 - early * (steps - 1))
