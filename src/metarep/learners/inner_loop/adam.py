"""Adam without a first moment: the inner optimiser of Reptile."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from metarep.machine.ranks import average

DECAY, EPS = 0.999, 1e-8


@dataclass
class Adam:
    """The state of the optimiser: second moments and the number of steps taken.

    Nichol, Achiam, Schulman, On First-Order Meta-Learning Algorithms, 2018: inner Adam with ``beta1 = 0``, whose state
    is carried from task to task.

    Args:
        lr: learning rate.
        second: running mean of the squared gradient of each adapted tensor, without bias correction. A head whose rows
            belong to the classes of one task has one row here.
        steps: number of steps taken so far.
    """

    lr: float
    second: list[Tensor]
    steps: float = 0

    def of_task(self, adapted: Sequence[int], weights: Sequence[Tensor]) -> "Adam":
        """Returns a copy of the state that one task (or many at once) may change.

        Args:
            adapted: positions in ``weights`` of the tensors that change.
            weights: all weights of the task; they give the shapes of the moments.
        """
        second = [moment.expand_as(weights[i]).clone() for i, moment in zip(adapted, self.second, strict=True)]
        return Adam(self.lr, second, self.steps)

    def task(self, t: int) -> "Adam":
        """Returns the state of task ``t``, where the moments have the task axis first."""
        return Adam(self.lr, [moment[t] for moment in self.second], self.steps)

    @torch.no_grad()
    def step(self, adapted: Sequence[int], weights: Sequence[Tensor], gradient: Sequence[Tensor]) -> list[Tensor]:
        """Takes one step and returns the new weights; the state is updated in place.

        ``EPS`` is added to the root of the uncorrected moment, as in the code of the paper. torch adds it to the root
        of the corrected one.

        Args:
            adapted: positions in ``weights`` of the tensors that change, in the order of ``second``.
            weights: all weights before the step; they are not changed.
            gradient: the gradient of each adapted tensor.
        """
        self.steps += 1
        correction = (1 - DECAY**self.steps) ** 0.5
        new = list(weights)
        for i, moment, part in zip(adapted, self.second, gradient, strict=True):
            moment.mul_(DECAY).addcmul_(part, part, value=1 - DECAY)
            new[i] = weights[i] - self.lr * correction * part / (moment.sqrt() + EPS)
        return new


def mean_moments(states: Sequence[Adam]) -> list[Tensor]:
    """Returns the second moments of each adapted tensor, averaged over these tasks and those of other processes."""
    means = [torch.stack(moments).mean(0) for moments in zip(*(state.second for state in states), strict=True)]
    average(means, len(states))
    return means
