"""Adam without first moment, as the inner optimiser of Reptile."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

DECAY, EPS = 0.999, 1e-8


@dataclass
class Adam:
    """The state: second moments and how many steps they hold.

    Nichol, Achiam, Schulman, On First-Order Meta-Learning Algorithms, 2018: inner Adam with ``beta1 = 0``, whose state
    is carried from task to task.

    Args:
        lr: learning rate.
        second: running mean of the squared gradient of each adapted tensor, not corrected for its start at zero; one
            row for a head whose rows belong to the ways of one task.
        steps: taken so far.
    """

    lr: float
    second: list[Tensor]
    steps: float = 0

    def of_task(self, adapted: Sequence[int], weights: Sequence[Tensor]) -> "Adam":
        """Another state of the same values, for a task (or many at once) with these weights to go on from."""
        second = [moment.expand_as(weights[i]).clone() for i, moment in zip(adapted, self.second, strict=True)]
        return Adam(self.lr, second, self.steps)

    def task(self, t: int) -> "Adam":
        """That of one task, of a state with a task axis first."""
        return Adam(self.lr, [moment[t] for moment in self.second], self.steps)

    @torch.no_grad()
    def step(self, adapted: Sequence[int], weights: Sequence[Tensor], gradient: Sequence[Tensor]) -> list[Tensor]:
        """The weights after one step; the state moves on.

        The small number is added to the root of the uncorrected moment, as in the code of the paper; torch adds it to
        the corrected one.

        Args:
            adapted: places in ``weights`` of the tensors that change, in the order of ``second``.
            weights: all of them, where the step starts; left as they are.
            gradient: of each adapted tensor.
        """
        self.steps += 1
        correction = (1 - DECAY**self.steps) ** 0.5
        new = list(weights)
        for i, moment, slope in zip(adapted, self.second, gradient, strict=True):
            moment.mul_(DECAY).addcmul_(slope, slope, value=1 - DECAY)
            new[i] = weights[i] - self.lr * correction * slope / (moment.sqrt() + EPS)
        return new
