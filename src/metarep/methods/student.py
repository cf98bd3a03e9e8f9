"""Student: the base class of methods that can also learn from a teacher, which is a frozen run (distillation)."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from metarep.data.batch import Batch
from metarep.errors import MetarepError, above
from metarep.methods.losses import distillation_loss
from metarep.methods.method import Method

B = TypeVar("B", bound=Batch)
SETTINGS = ("label_weight", "teacher_weight", "teacher_temperature")


@dataclass(frozen=True)
class Teacher:
    """A frozen method in evaluation mode. It is not a module, so its weights are not parameters of the student.

    Args:
        method: changed in place.
    """

    method: Method[Any]

    def __post_init__(self) -> None:
        self.method.eval().requires_grad_(False)


class Student(Method[B], Generic[B]):
    """A method that learns from labels, and from the logits that a teacher gives for the same images.

    Hinton, Vinyals, Dean, Distilling the Knowledge in a Neural Network, 2015; with a teacher of the same architecture,
    Furlanello et al., Born-Again Neural Networks, 2018, and Tian et al., Rethinking Few-Shot Image Classification,
    2020 (RFS), whose weights are 0.5 and 0.5 at a temperature of 4. The loss is
    ``label_weight * cross-entropy + teacher_weight * distillation`` (:func:`metarep.methods.losses.distillation_loss`);
    without a teacher it is the cross-entropy alone.

    Args:
        label_weight, teacher_weight: the weights of the two losses.
        teacher_temperature: divides the logits of both before they are compared.

    Raises:
        MetarepError: a weight is below 0, both are 0, or the temperature is not above 0.
    """

    def __init__(self, label_weight: float, teacher_weight: float, teacher_temperature: float) -> None:
        super().__init__()
        for name, weight in (("label_weight", label_weight), ("teacher_weight", teacher_weight)):
            if not 0 <= weight < float("inf"):
                raise MetarepError(f"{name} must be a number of at least 0, not {weight:g}")
        if not label_weight + teacher_weight:
            raise MetarepError("label_weight and teacher_weight are both 0, so nothing would be learned")
        above("teacher_temperature", teacher_temperature)
        self.label_weight, self.teacher_weight = label_weight, teacher_weight
        self.teacher_temperature = teacher_temperature
        self.teacher: Teacher | None = None

    @abstractmethod
    def logits_of(self, teacher: Method[Any], batch: B) -> Float[Tensor, "*row classes"]:
        """The logits of a teacher for a batch, in the order and the shape of this method's own.

        Args:
            teacher: a method that :meth:`learn_from` has accepted.
            batch: the batch of a step.
        """

    @abstractmethod
    def refuse_teacher(self, teacher: Method[Any]) -> None:
        """Raise if a method cannot teach this one.

        Raises:
            MetarepError: its logits are not of the same classes or tasks.
        """

    def learn_from(self, teacher: Method[Any]) -> None:
        """Learn from a teacher from the next step on.

        Args:
            teacher: frozen and put into evaluation mode, in place; on the device of this method.

        Raises:
            MetarepError: see :meth:`refuse_teacher`.
        """
        self.refuse_teacher(teacher)
        self.teacher = Teacher(teacher)

    def weighed(self, loss: Float[Tensor, ""], logits: Float[Tensor, "*row classes"], batch: B) -> Float[Tensor, ""]:
        """The loss of a step: that of the labels, and that of the teacher if there is one, each with its weight.

        Args:
            loss: the cross-entropy with the labels.
            logits: those that it was computed from.
            batch: the batch of the step.
        """
        if self.teacher is None:
            return loss
        with torch.no_grad():
            wanted = self.logits_of(self.teacher.method, batch)
        return self.label_weight * loss + self.teacher_weight * distillation_loss(
            logits, wanted, self.teacher_temperature
        )
