"""The mean of a figure over tasks, with its 95 % interval."""

import math

from torch import Tensor


def interval(per_task: Tensor) -> tuple[float, float]:
    """The mean over tasks and half the width of its 95 % interval, ``1.96 * s / sqrt(tasks)``.

    The interval of a single task is NaN.

    >>> import torch
    >>> [round(value, 2) for value in interval(torch.tensor([40.0, 60.0]))]
    [50.0, 19.6]
    """
    spread = per_task.std().item() if len(per_task) > 1 else float("nan")
    return per_task.mean().item(), 1.96 * spread / math.sqrt(len(per_task))
