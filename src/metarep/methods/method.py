"""Method: the base class of all training methods."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from metarep.data.batch import Batch
from metarep.errors import Advice, MetarepError
from metarep.learners import Learner


class Step(NamedTuple):
    """The result of one training step.

    Attributes:
        loss: the scalar to minimise.
        logs: scalars for the training log, by name.
        carry: anything that :meth:`Method.after_step` needs.

    >>> step = Step(torch.tensor(0.5), {"active": torch.tensor(1.0)})
    >>> step.loss.item(), step.carry
    (0.5, None)
    """

    loss: Float[Tensor, ""]
    logs: dict[str, Tensor]
    carry: Any = None


def joined_carry(steps: Sequence[Step]) -> Any:  # noqa: ANN401 - it depends on the method
    """The ``carry`` of several steps as one: tensors are concatenated by rows, and lists one after another.

    >>> joined_carry([Step(torch.zeros(()), {}, torch.tensor([value])) for value in (1.0, 2.0)])
    tensor([1., 2.])
    """
    carries = [step.carry for step in steps]
    if len(carries) == 1 or carries[0] is None:
        return carries[0]
    return torch.cat(carries) if isinstance(carries[0], Tensor) else [item for carry in carries for item in carry]


B = TypeVar("B", bound=Batch)


class Method(nn.Module, ABC, Generic[B]):
    """A way of training an encoder; the training loop is the same for all methods.

    Your own method is one file: set ``eats``, build the learner, and write ``step``. Its settings are the keyword
    arguments of its constructor; the command line reads them from the signature and the docstring.

    Attributes:
        eats: the type of batch that ``step`` takes.
        family: ``metric``, ``meta-optimisation`` or ``contrastive``.
        paper: authors and year.
        defaults: training settings that suit the method better than those of ``TrainSettings``.
        spans_batch: whether the loss compares images of the whole batch, or one task may be split. On several
            processes ``step`` then gets a part of the images, and the labels or tasks of all of them. It gathers the
            features by ``batch.whole`` and computes the loss of the whole batch. Otherwise it gets whole tasks, or the
            labels of its own images, and the mean over processes is taken of the losses.
        learner: what is deployed; it holds the encoder.

    >>> from metarep import Preprocess, ProtoNet, build_encoder
    >>> method = ProtoNet(build_encoder("conv4", Preprocess((16, 16), 1, (0.0,), (1.0,)), width=4))
    >>> method.eats.called, method.family, [group["weight_decay"] for group in method.groups(0.1)]
    ('tasks', 'metric', [0.1, 0.0])
    """

    eats: ClassVar[type[Batch]]
    family: ClassVar[str]
    paper: ClassVar[str]
    defaults: ClassVar[dict[str, Any]] = {}
    spans_batch: ClassVar[bool] = False
    learner: Learner

    @abstractmethod
    def step(self, batch: B, *, progress: float, generator: Generator) -> Step:
        """Compute the loss of one batch. It changes nothing but the running statistics of normalisation layers.

        Args:
            batch: a batch of the type ``eats``.
            progress: share of the training that is done, 0 to 1.
            generator: for random numbers that the method draws itself.
        """

    def after_step(self, carry: Any, progress: float) -> None:  # noqa: ANN401 - it depends on the method
        """Update queues and moving averages after the optimiser's step; by default there is nothing to do.

        Args:
            carry: what ``step`` returned as ``carry``.
            progress: share of the training that is done, 0 to 1.
        """

    def optimizer(self, lr: float, weight_decay: float) -> torch.optim.Optimizer:
        """The optimiser of this method's parameters, which is AdamW by default.

        Args:
            lr: learning rate.
            weight_decay: for the parameters that are decayed (:meth:`groups`).

        Raises:
            MetarepError: there is nothing to train.
        """
        return torch.optim.AdamW(self.groups(weight_decay), lr=lr)

    def groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """The parameter groups of an optimiser: those with weight decay, and those without.

        Norm scales, biases and the learner's ``undecayed`` parameters have no weight decay.

        Raises:
            MetarepError: there is nothing to train.
        """
        spared = {id(p) for p in self.learner.undecayed()}
        trained = [p for p in self.parameters() if p.requires_grad]
        if not trained:
            what = "is frozen" if [*self.parameters()] else "has no weights"
            raise MetarepError(
                f"{type(self).__name__.lower()} has nothing to train: its encoder {what}, and it adds none of its own",
                advice=(
                    Advice(
                        "leave a part to be trained, as {freeze} or layer.requires_grad_() does", freeze="all-but-last"
                    ),
                    "take a method with a head (baseline, anil)",
                    "use the encoder as it is (FewShotClassifier, metarep fit)",
                ),
            )
        matrices = [p for p in trained if p.ndim > 1 and id(p) not in spared]
        rest = [p for p in trained if p.ndim <= 1 or id(p) in spared]
        return [{"params": matrices, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
