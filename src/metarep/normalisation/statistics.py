"""Statistics of batch norms: those that layers keep, and how they follow what was seen."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from metarep.errors import MetarepError
from metarep.normalisation.told import Moments

Statistics = list[Moments]  # mean and (biased) variance of each layer, in the order of the layers


def batch_norms(body: nn.Module) -> list[_BatchNorm]:
    """The batch norms of an encoder, subclasses too, each once."""
    return [layer for layer in body.modules() if isinstance(layer, _BatchNorm)]


def running_statistics(body: nn.Module) -> Statistics:
    """The running mean and variance of each layer.

    Raises:
        MetarepError: a layer keeps none.
    """
    found = []
    for layer in batch_norms(body):
        if layer.running_mean is None or layer.running_var is None:
            raise MetarepError("a norm layer keeps no running statistics (track_running_stats=False); use support ones")
        found.append((layer.running_mean, layer.running_var))
    return found


@torch.no_grad()
def follow(layer: _BatchNorm, mean: Float[Tensor, " c"], variance: Float[Tensor, " c"], places: int) -> None:
    """Move a layer's running statistics towards those of a batch, as torch does in training.

    Args:
        layer: its buffers change.
        mean, variance: (biased) of the batch.
        places: numbers a channel that they were taken of; the variance that is kept is the unbiased one.
    """
    assert layer.running_mean is not None
    assert layer.running_var is not None
    assert layer.num_batches_tracked is not None
    layer.num_batches_tracked.add_(1)
    momentum = 1 / int(layer.num_batches_tracked) if layer.momentum is None else layer.momentum
    layer.running_mean.lerp_(mean.to(layer.running_mean), momentum)
    layer.running_var.lerp_(variance.to(layer.running_var) * (places / (places - 1)), momentum)


@torch.no_grad()
def update_running(body: nn.Module, seen: Sequence[Statistics]) -> None:
    """Move running statistics towards the mean of what several tasks saw, so that the body can be used without them.

    A layer that ran several times moves as often, as in torch; one that did not run, or is held in evaluation mode,
    stays.

    Args:
        body: its norm layers' buffers change, by each layer's momentum.
        seen: of each task, mean and (biased) variance of every layer; at least one task.
    """
    by_momentum: dict[tuple[float, int], list[tuple[Tensor, Tensor]]] = {}
    for i, layer in enumerate(batch_norms(body)):
        if layer.running_mean is None or layer.running_var is None or not layer.training:
            continue
        momentum = 0.1 if layer.momentum is None else layer.momentum
        for kept, part in ((layer.running_mean, 0), (layer.running_var, 1)):
            for call, new in enumerate(_calls([task[i][part] for task in seen])):
                by_momentum.setdefault((momentum, call), []).append((kept, new.to(kept)))
    for (momentum, _), pairs in by_momentum.items():  # together: on a GPU each is a launch
        torch._foreach_lerp_([kept for kept, _ in pairs], [new for _, new in pairs], momentum)


def _calls(seen: list[Tensor]) -> list[Tensor]:
    """The mean over tasks of what was seen in each call; not every task has as many."""
    if all(task.ndim == 1 for task in seen):
        return [torch.stack(seen).mean(0) if len(seen) > 1 else seen[0]]
    rows = [task.unsqueeze(0) if task.ndim == 1 else task for task in seen]
    return [
        torch.stack([task[call] for task in rows if call < len(task)]).mean(0) for call in range(max(map(len, rows)))
    ]
