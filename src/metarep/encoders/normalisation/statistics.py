"""Running statistics of batch norms, and how they move towards new batch statistics."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from metarep.encoders.normalisation.pass_statistics import Moments
from metarep.errors import MetarepError
from metarep.machine.ranks import average

Statistics = list[Moments]  # mean and (biased) variance of each layer, in the order of the layers


def batch_norms(body: nn.Module) -> list[_BatchNorm]:
    """The batch norm layers of a network and those of subclasses, each once, in the order of ``body.modules()``.

    >>> batch_norms(nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.LayerNorm(4)))[0].num_features
    4
    """
    return [layer for layer in body.modules() if isinstance(layer, _BatchNorm)]


def running_statistics(body: nn.Module) -> Statistics:
    """The running mean and variance of each batch norm layer.

    Raises:
        MetarepError: a layer does not keep running statistics.

    >>> running_statistics(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    [(tensor([0., 0.]), tensor([1., 1.]))]
    """
    statistics = []
    for layer in batch_norms(body):
        if layer.running_mean is None or layer.running_var is None:
            raise MetarepError(
                "a norm layer does not keep running statistics (track_running_stats=False); take normalisation=support"
            )
        statistics.append((layer.running_mean, layer.running_var))
    return statistics


@torch.no_grad()
def follow(layer: _BatchNorm, mean: Float[Tensor, " c"], variance: Float[Tensor, " c"], count: int) -> None:
    """Move a layer's running statistics towards those of a batch, as torch does in training.

    Args:
        layer: its buffers change.
        mean, variance: mean and (biased) variance of each channel of the batch.
        count: number of values of one channel in the batch (images times pixels). The running variance is the unbiased
            one, so ``variance`` is multiplied by ``count / (count - 1)``.

    >>> layer = nn.BatchNorm1d(1)
    >>> follow(layer, torch.tensor([1.0]), torch.tensor([1.0]), count=2)
    >>> layer.running_mean, layer.running_var
    (tensor([0.1000]), tensor([1.1000]))
    """
    assert layer.running_mean is not None
    assert layer.running_var is not None
    assert layer.num_batches_tracked is not None
    layer.num_batches_tracked.add_(1)
    momentum = 1 / int(layer.num_batches_tracked) if layer.momentum is None else layer.momentum
    layer.running_mean.lerp_(mean.to(layer.running_mean), momentum)
    layer.running_var.lerp_(variance.to(layer.running_var) * (count / (count - 1)), momentum)


@torch.no_grad()
def update_running(body: nn.Module, seen: Sequence[Statistics], tasks: int | None = None) -> None:
    """Move running statistics towards the mean of the batch statistics of several tasks.

    Afterwards the body can be used with running statistics. On several processes the mean is over the tasks of all of
    them. A layer that ran several times in a pass is moved several
    times, as in torch. A layer that did not run, or that is in evaluation mode, is not moved.

    Args:
        body: the buffers of its norm layers change, by each layer's momentum.
        seen: for each task, mean and (biased) variance of every layer; at least one task.
        tasks: number of tasks of this process, if an item of ``seen`` is already a mean over tasks.

    >>> body = nn.BatchNorm1d(1)
    >>> update_running(body, [[(torch.tensor([mean]), torch.tensor([2.0]))] for mean in (1.0, 3.0)])
    >>> body.running_mean, body.running_var
    (tensor([0.2000]), tensor([1.1000]))
    """
    by_momentum: dict[tuple[float, int], list[tuple[Tensor, Tensor]]] = {}
    for i, layer in enumerate(batch_norms(body)):
        if layer.running_mean is None or layer.running_var is None or not layer.training:
            continue
        momentum = 0.1 if layer.momentum is None else layer.momentum
        for kept, part in ((layer.running_mean, 0), (layer.running_var, 1)):
            for call, new in enumerate(_calls([task[i][part] for task in seen])):
                by_momentum.setdefault((momentum, call), []).append((kept, new.to(kept)))
    if by_momentum:
        average((new for pairs in by_momentum.values() for _, new in pairs), tasks or len(seen))
    for (momentum, _), pairs in by_momentum.items():  # one kernel launch for all layers
        torch._foreach_lerp_([kept for kept, _ in pairs], [new for _, new in pairs], momentum)


@torch.no_grad()
def average_running(network: nn.Module) -> None:
    """Replace the running statistics of batch norms by their means over processes; in a single process they stay."""
    average(running_tensors(network))


def running_tensors(network: nn.Module) -> list[Tensor]:
    """The running means and variances of all batch norms of a network, in the order of its layers."""
    pairs = [(layer.running_mean, layer.running_var) for layer in batch_norms(network)]
    return [statistic for pair in pairs for statistic in pair if statistic is not None]


def _calls(seen: list[Tensor]) -> list[Tensor]:
    """For each call of a layer, the mean over the tasks that made this call; the number of calls may differ."""
    if all(task.ndim == 1 for task in seen):
        return [torch.stack(seen).mean(0) if len(seen) > 1 else seen[0]]
    rows = [task.unsqueeze(0) if task.ndim == 1 else task for task in seen]
    return [
        torch.stack([task[call] for task in rows if call < len(task)]).mean(0) for call in range(max(map(len, rows)))
    ]
