"""Method: how a representation is trained."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from metarep.batches import Batch
from metarep.errors import MetarepError
from metarep.learners import Learner


class Step(NamedTuple):
    """What one step gives: the loss to descend, figures for the log, and whatever ``after_step`` wants handed on."""

    loss: Float[Tensor, ""]
    logs: dict[str, Tensor]
    carry: Any = None


B = TypeVar("B", bound=Batch)


class Method(nn.Module, ABC, Generic[B]):
    """A way of training an encoder. The loop in ``train`` never asks which one it is.

    A method of your own is one file: say what it ``eats``, build its learner, write ``step``. Its settings are the
    keyword arguments of its constructor; the command line reads them from the signature and the docstring.
    ``defaults`` are training settings that suit it better than those of ``TrainSettings``.
    """

    eats: ClassVar[type[Batch]]
    family: ClassVar[str]
    paper: ClassVar[str]
    defaults: ClassVar[dict[str, Any]] = {}
    learner: Learner

    @abstractmethod
    def step(self, batch: B, *, progress: float, generator: Generator) -> Step:
        """The loss of one batch. Writes nothing but the running statistics of normalisation layers.

        Args:
            batch: what this method eats.
            progress: share of the training that is done, 0 to 1.
            generator: for whatever the method draws itself.
        """

    def after_step(self, carry: Any, progress: float) -> None:  # noqa: ANN401 - what step handed on; nothing to do by default
        """Called after the optimiser's step: the place for queues and moving averages."""

    def optimizer(self, lr: float, weight_decay: float) -> torch.optim.Optimizer:
        """AdamW by default."""
        return torch.optim.AdamW(self.groups(weight_decay), lr=lr)

    def groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Parameters for an optimiser; norm scales, biases and what the learner names are not decayed.

        Raises:
            MetarepError: there is nothing to train.
        """
        spared = {id(p) for p in self.learner.undecayed()}
        trained = [p for p in self.parameters() if p.requires_grad]
        if not trained:
            what = "is frozen (requires_grad=False everywhere)" if [*self.parameters()] else "has no weights"
            raise MetarepError(
                f"{type(self).__name__.lower()} has nothing to train: its encoder {what}, and it adds none of its own. "
                "Unfreeze a layer (layer.requires_grad_()), take a method with a head (baseline, anil), or use the "
                "encoder as it is (FewShotClassifier, metarep fit)"
            )
        matrices = [p for p in trained if p.ndim > 1 and id(p) not in spared]
        rest = [p for p in trained if p.ndim <= 1 or id(p) in spared]
        return [{"params": matrices, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
