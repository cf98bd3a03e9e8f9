"""evaluate: the accuracy of a learner on tasks, as a Report with everything that makes it comparable."""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from metarep.data.images import ImageBank
from metarep.data.tasks import TaskIndex
from metarep.encoders.finite import refuse_lost_rows, refuse_lost_weights
from metarep.errors import MetarepError, counted
from metarep.experiments.interval import interval
from metarep.experiments.shards import Shard
from metarep.learners import Learner
from metarep.machine.device import keep_freed_memory
from metarep.machine.ranks import Part, gather_all, sum_over_ranks

AT_ONCE = 128  # tasks
Balance = Literal["balanced", "dirichlet"]


@dataclass(frozen=True)
class Report:
    """An accuracy with everything that makes it comparable. Accuracies are in percent.

    Args:
        accuracy: mean over the tasks.
        ci95: half the width of the 95 % interval of the mean, ``1.96 * s / sqrt(tasks)``. NaN for a single task.
        tasks: number of tasks.
        ways, shots: a number or a range as text (``5``, ``5-20``).
        queries: query images of each class.
        protocol: ``inductive``, where no answer depends on another query; or ``transductive``.
        normalisation: the batch statistics that the norm layers used.
        learner: the learner that was adapted to each task.
        split: the data that the tasks were drawn from.
        digest: identifies the set of tasks.
        seconds: duration of the measurement in seconds.
        per_task: accuracy on each task.
        balance: ``balanced``, equally many queries of each class; or ``dirichlet``, shares drawn at random.

    >>> how = ("inductive", "running", "prototypes", "glyphs/test", "0123456789ab")
    >>> report = Report(81.25, 2.45, 2, "5", "1", 15, *how, seconds=1.0, per_task=torch.tensor([80.0, 82.5]))
    >>> str(report)[:46], report.as_dict()["tasks"]
    ('5-way 1-shot: 81.25 ± 2.45 % (2 tasks of 15 qu', 2)
    """

    accuracy: float
    ci95: float
    tasks: int
    ways: str
    shots: str
    queries: int
    protocol: str
    normalisation: str
    learner: str
    split: str
    digest: str
    seconds: float
    per_task: Float[Tensor, " task"] = field(repr=False)
    balance: Balance = "balanced"

    @property
    def answers(self) -> str:
        """The protocol, with the balance of the queries if it is not the usual one, or if the learner depends on it.

        >>> Report(81.25, 2.45, 2, "5", "1", 15, "transductive", *"abcd", 1.0, torch.zeros(2)).answers
        'transductive, balanced'
        """
        usual = self.balance == "balanced" and self.protocol in ("inductive", self.normalisation)
        return self.protocol if usual else f"{self.protocol}, {self.balance}"

    def __str__(self) -> str:
        return (
            f"{self.ways}-way {self.shots}-shot: {self.accuracy:.2f} ± {self.ci95:.2f} % "
            f"({self.tasks:,} tasks of {counted(self.queries, 'query', 'queries')} a class, {self.answers}, "
            f"{self.normalisation} statistics, {self.learner}, {self.split} {self.digest}, {self.seconds:.1f} s)"
        )

    def as_dict(self) -> dict[str, str | int | float]:
        """The fields by name, without ``per_task``."""
        return {name: value for name, value in self.__dict__.items() if name != "per_task"}


def evaluate(
    learner: Learner,
    bank: ImageBank,
    tasks: TaskIndex | Sequence[TaskIndex],
    *,
    split: str = "",
    batch: int = 256,
    on_progress: Callable[[float], None] | None = None,
    shard: Shard | None = None,
) -> Report:
    """Measure the accuracy of a learner on tasks.

    Every image of the tasks is prepared once; then the tasks run on the cached rows. Inside
    :func:`metarep.machine.ranks.joined` each process prepares its part of the images and runs its part of the tasks, in
    the same chunks as a single process, so the report has the same digits. Meanwhile the learner is in
    evaluation mode, so that norm layers use their running statistics and the logits of a query never depend on other
    queries.

    Args:
        learner: the learner, on the device to use.
        bank: the images, of classes that the encoder has not seen.
        tasks: from ``draw_tasks``; or several sets of different shapes, which are pooled.
        split: name of the data, for the report.
        batch: number of images prepared at a time.
        on_progress: called with the finished share, from 0 to 1.
        shard: measure only this part of the tasks. The parts are merged by
            :func:`metarep.experiments.shards.merge_shards`.

    Returns:
        The report, with accuracies in percent.

    Raises:
        DataError: an image has NaN or infinite features, so its answer would be a guess.
        MetarepError: there are no tasks; or the encoder, or the learner on some tasks, gives NaN or infinite values.

    >>> from metarep import Encoder, ImageBank, Labels, Preprocess, Prototypes, draw_tasks
    >>> bank = ImageBank.from_arrays(torch.arange(40, dtype=torch.uint8).view(40, 1, 1, 1).expand(40, 1, 4, 4) * 6)
    >>> labels = Labels.of([i // 10 for i in range(40)])
    >>> pixels = Prototypes(Encoder(torch.nn.Flatten(), Preprocess((4, 4), 1, (0.0,), (1.0,))))
    >>> tasks = draw_tasks(labels, 50, ways=4, shots=3, queries=5, generator=torch.Generator().manual_seed(0))
    >>> evaluate(pixels, bank, tasks).accuracy > 60
    True
    """
    started = time.perf_counter()
    keep_freed_memory()
    sets = [tasks] if isinstance(tasks, TaskIndex) else list(tasks)
    if not sum(len(part) for part in sets):
        raise MetarepError("there are no tasks to evaluate on; draw at least one")
    before = (
        0.0 if learner.state_numbers else 0.8
    )  # share of the time for preparing, which takes none if the body is adapted
    refuse_lost_weights(learner.encoder)
    with torch.no_grad(), evaluating(learner):
        name = split or "the data"
        rows = prepare_all(learner, bank, sets, batch, lambda done: on_progress and on_progress(done * before), name)
        per_task = 100 * _run(
            learner, rows, sets, lambda done: on_progress and on_progress(before + done * (1 - before)), shard
        )
    accuracy, ci95 = interval(per_task)
    return Report(
        accuracy=accuracy,
        ci95=ci95,
        tasks=len(per_task),
        ways=_span([part.ways for part in sets]),
        shots=_span([part.shots for part in sets]),
        queries=sets[0].queries,
        protocol=learner.protocol,
        normalisation=learner.normalisation,
        learner=learner.called,
        split=split,
        digest=_digest(sets),
        seconds=time.perf_counter() - started,
        per_task=per_task,
    )


@contextmanager
def evaluating(learner: Learner) -> Iterator[None]:
    """A context in which the learner is in evaluation mode; at its end every module has its former mode again.

    Args:
        learner: changed in place.

    >>> from metarep import Encoder, Preprocess, Prototypes
    >>> learner = Prototypes(Encoder(torch.nn.Flatten(), Preprocess((4, 4), 1, (0.0,), (1.0,)))).train()
    >>> with evaluating(learner):
    ...     mode = learner.training
    >>> mode, learner.training
    (False, True)
    """
    modes = [(module, module.training) for module in learner.modules()]
    learner.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def prepare_all(
    learner: Learner,
    bank: ImageBank,
    sets: Sequence[TaskIndex],
    batch: int,
    on_progress: Callable[[float], object],
    split: str = "the data",
) -> Shaped[Tensor, "n *row"]:
    """Prepare every image that the tasks use.

    Args:
        learner: prepares the images, on its device.
        bank: the images.
        sets: the sets of tasks.
        batch: number of images prepared at a time.
        on_progress: called with the finished share, from 0 to 1.
        split: name of the data, for the message.

    Returns:
        A row for each image of the bank, on the learner's device; rows of images that no task uses are zero.

    Raises:
        DataError: an image has NaN or infinite features. The message names its row.
        MetarepError: the encoder gives NaN or infinite features for every image.
    """
    device = learner.device
    used = torch.unique(torch.cat([torch.cat([part.support.flatten(), part.query.flatten()]) for part in sets]))
    parts, batches = [], used.split(batch)
    own = Part.own(len(batches)) if not learner.state_numbers else Part(0, 1, len(batches))  # raw images are not sent
    for index in batches[own.slice]:
        parts.append(learner.prepare(bank.pixels(index).to(device)))
        refuse_lost_rows(parts[-1], learner.encoder, lambda row, index=index: f"image {int(index[row])} of {split}")
        on_progress(len(parts) / own.length)
    prepared = torch.cat(parts) if parts else learner.prepare(bank.pixels(used[:1]).to(device))[:0]
    if own.ranks > 1:
        prepared = gather_all(prepared)
    rows = _zeros(len(bank), prepared)
    rows[used.to(device)] = prepared
    return rows


def _zeros(n: int, like: Tensor) -> Tensor:
    """Rows of zeros. On the CPU their memory is taken by those that are written: a bank may have millions of images."""
    if like.device.type != "cpu" or like.dtype != torch.float32:
        return like.new_zeros(n, *like.shape[1:])
    return torch.from_numpy(np.zeros((n, *like.shape[1:]), np.float32))


def _run(
    learner: Learner,
    rows: Tensor,
    sets: Sequence[TaskIndex],
    on_progress: Callable[[float], object],
    shard: Shard | None,
) -> Tensor:
    """The accuracy of each task of the shard, from 0 to 1, on the CPU.

    Tasks run in chunks, so that the gathered rows take at most about 64 MB and the adapted states at most 128 MB.
    """
    total, width = sum(len(part) for part in sets), max(1, rows[0].numel())
    chunks = [some for part in sets for some in part.chunks(_chunk(learner, part, width))]
    if shard:
        if shard.of > len(chunks):
            raise MetarepError(f"{total} tasks make {len(chunks)} shards at most, not {shard.of}")
        chunks = chunks[Part(shard.number - 1, shard.of, len(chunks)).slice]
    own = Part.own(len(chunks))
    accuracies, lost = [rows.new_zeros(0, dtype=torch.float32)], [rows.new_zeros(0, dtype=torch.bool)]
    for done, some in enumerate(chunks[own.slice], 1):
        support, support_y, query, query_y, ways = some.of(rows)
        logits = learner.logits(learner.adapt(support, support_y, ways), query)
        accuracies.append((logits.argmax(-1) == query_y).float().mean(-1))
        lost.append(~logits.isfinite().flatten(1).all(1))  # read at the end: reading is a host synchronisation
        on_progress(done / own.length)
    if missing := int(sum_over_ranks(torch.cat(lost).sum())):
        raise MetarepError(
            f"the logits of {missing} of {total} tasks are NaN or infinite, though all features are finite: "
            f"{learner.called} diverges on them. Try another learner, or fewer or smaller inner steps"
        )
    return gather_all(torch.cat(accuracies)).cpu()


def _chunk(learner: Learner, tasks: TaskIndex, width: int) -> int:
    """The number of tasks that run at a time; few enough that several processes share them evenly."""
    images = tasks.support.shape[1] + tasks.query.shape[1]
    most = 32_000_000 // max(1, learner.state_numbers)
    return max(1, min(AT_ONCE, most, 16_000_000 // (images * max(width, tasks.support.shape[1]))))


def _digest(sets: Sequence[TaskIndex]) -> str:
    """The digest of one set of tasks, or one digest made from those of several sets."""
    if len(sets) == 1:
        return sets[0].digest
    return hashlib.sha256("".join(part.digest for part in sets).encode()).hexdigest()[:12]


def _span(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low}-{high}"
