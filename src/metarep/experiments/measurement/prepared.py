"""Prepared rows: what is computed once for each image, however many tasks use it."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from metarep.data.images import ImageBank
from metarep.data.tasks import TaskIndex
from metarep.encoders.finite import refuse_lost_rows
from metarep.learners import Learner
from metarep.machine.ranks import Part, gather_all

MOST = 2**26  # numbers that are kept for further measurements: 256 MiB


class Prepared:
    """The prepared rows of one learner on one bank, which several measurements share.

    Each image is prepared once, whatever the number of measurements. Very large rows are not kept.

    Attributes:
        rows: a settled row for each image, ``(n, *row)``; None before the first measurement.
        done: which of them are prepared, ``(n,)``; None too.
    """

    def __init__(self) -> None:
        self.rows: Tensor | None = None
        self.done: Tensor | None = None

    def missing(self, used: Int[Tensor, " m"]) -> Int[Tensor, " left"]:
        """Those rows of ``used`` that are not prepared yet."""
        return used if self.done is None else used[~self.done[used]]

    def keep(self, rows: Shaped[Tensor, "n *row"], used: Int[Tensor, " m"]) -> None:
        """Keep the rows, of which ``used`` are prepared now, unless they are too many."""
        if rows.numel() <= MOST:
            done = torch.zeros(len(rows), dtype=torch.bool) if self.done is None else self.done
            done[used] = True
            self.rows, self.done = rows, done


def prepare_all(
    learner: Learner,
    bank: ImageBank,
    sets: Sequence[TaskIndex],
    batch: int,
    on_progress: Callable[[float], object],
    split: str = "the data",
    before: Prepared | None = None,
) -> Shaped[Tensor, "n *row"]:
    """Prepare every image that the tasks use.

    Args:
        learner: prepares the images, on its device.
        bank: the images.
        sets: the sets of tasks.
        batch: number of images prepared at a time.
        on_progress: called with the finished share, from 0 to 1.
        split: name of the data, for the message.
        before: the rows that earlier measurements of this learner on this bank have prepared; None for none.

    Returns:
        A settled row for each image of the bank, on the learner's device; rows of images that no task uses are zero.

    Raises:
        DataError: an image has NaN or infinite features. The message names its row.
        MetarepError: the encoder gives NaN or infinite features for every image.
    """
    device = learner.device
    before = before or Prepared()
    used = _used(sets)
    missing = before.missing(used)
    parts, batches = [], missing.split(batch)
    own = Part.own(len(batches)) if not learner.state_numbers else Part(0, 1, len(batches))  # raw images are not sent
    for index in batches[own.slice]:
        parts.append(learner.prepare(bank.pixels(index).to(device)))
        refuse_lost_rows(parts[-1], learner.encoder, lambda row, index=index: f"image {int(index[row])} of {split}")
        parts[-1] = learner.settle(parts[-1])
        on_progress(len(parts) / own.length)
    prepared = torch.cat(parts) if parts else learner.settle(learner.prepare(bank.pixels(used[:1]).to(device)))[:0]
    if own.ranks > 1:
        prepared = gather_all(prepared)
    rows = _zeros(len(bank), prepared) if before.rows is None else before.rows
    rows[missing.to(device)] = prepared
    before.keep(rows, missing)
    return rows


def _used(sets: Sequence[TaskIndex]) -> Tensor:
    """The rows that the tasks use, each once and in rising order."""
    both = [rows for part in sets for rows in (part.support, part.query) if rows.numel()]
    used = torch.zeros(1 + max(int(rows.max()) for rows in both), dtype=torch.bool, device=both[0].device)
    for rows in both:
        used[rows.flatten()] = True
    return used.nonzero().squeeze(1)


def _zeros(n: int, like: Tensor) -> Tensor:
    """Rows of zeros. On the CPU only rows that are written take memory, because a bank may have millions of images."""
    if like.device.type != "cpu" or like.dtype != torch.float32:
        return like.new_zeros(n, *like.shape[1:])
    return torch.from_numpy(np.zeros((n, *like.shape[1:]), np.float32))


def prepare_more(
    learner: Learner,
    bank: ImageBank,
    rows: Shaped[Tensor, "n *row"],
    sets: Sequence[TaskIndex],
    unknown: Sequence[Int[Tensor, "_ _"]],
    batch: int,
    split: str,
) -> None:
    """Prepare the images that only unknown queries use, in place. They come last, so that all others stay the same.

    Args:
        learner, bank, sets, batch, split: see :func:`prepare_all`.
        rows: from :func:`prepare_all`.
        unknown: the unknown queries of each set of tasks.

    Raises:
        DataError: an image has NaN or infinite features.
    """
    wanted = torch.cat([part.flatten() for part in unknown]).unique()
    for index in wanted[~torch.isin(wanted, _used(sets))].split(batch):
        prepared = learner.prepare(bank.pixels(index).to(rows.device))
        refuse_lost_rows(prepared, learner.encoder, lambda row, index=index: f"image {int(index[row])} of {split}")
        rows[index.to(rows.device)] = learner.settle(prepared)
