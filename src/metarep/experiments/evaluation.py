"""evaluate: a learner measured on tasks, and the Report that says how."""

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from metarep.data.images import ImageBank
from metarep.data.tasks import TaskIndex
from metarep.encoders.finite import refuse_lost_rows, refuse_lost_weights
from metarep.errors import MetarepError, counted
from metarep.learners import Learner
from metarep.machine.device import keep_freed_memory


@dataclass(frozen=True)
class Report:
    """An accuracy with everything that makes it comparable. Accuracies are in percent.

    Args:
        accuracy: mean over tasks.
        ci95: half the width of its 95 % interval over tasks, ``1.96 * s / sqrt(tasks)``.
        tasks: how many.
        ways, shots: as text, a number or a range (``5``, ``5-20``).
        queries: query images a class.
        protocol: ``inductive``: no query sees another; or ``transductive``.
        normalisation: whose statistics the norm layers used.
        learner: what was adapted to each task.
        split: what the tasks were drawn from.
        digest: names the set of tasks.
        seconds: for all of it.
        per_task: accuracy of every task.
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

    def __str__(self) -> str:
        return (
            f"{self.ways}-way {self.shots}-shot: {self.accuracy:.2f} ± {self.ci95:.2f} % "
            f"({self.tasks:,} tasks of {counted(self.queries, 'query', 'queries')} a class, {self.protocol}, "
            f"{self.normalisation} statistics, {self.learner}, {self.split} {self.digest}, {self.seconds:.1f} s)"
        )

    def as_dict(self) -> dict[str, str | int | float]:
        """Every field but the single tasks."""
        return {name: value for name, value in self.__dict__.items() if name != "per_task"}


def evaluate(
    learner: Learner,
    bank: ImageBank,
    tasks: TaskIndex | Sequence[TaskIndex],
    *,
    split: str = "",
    batch: int = 256,
    on_progress: Callable[[float], None] | None = None,
) -> Report:
    """Measure a learner: every image of the tasks is prepared once, then the tasks run on cached rows.

    The learner is put into evaluation mode for the time, so that norm layers use their running statistics and a
    query's logits never depend on other queries.

    Args:
        learner: what is deployed, on the device to use.
        bank: the images, of classes that the encoder has not seen.
        tasks: from ``draw_tasks``, or several sets of different shapes, which are pooled.
        split: goes into the report.
        batch: images prepared at a time.
        on_progress: called with the share that is done.

    Raises:
        DataError: an image whose features are no finite numbers; an accuracy with it would be one of guesses.
        MetarepError: there are no tasks; or the encoder, or the learner on some tasks, gives no finite numbers.

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
        raise MetarepError("there are no tasks to evaluate on")
    before = 0.0 if learner.state_numbers else 0.8  # of the time; where the body is adapted, nothing is prepared
    refuse_lost_weights(learner.encoder)
    with torch.no_grad(), evaluating(learner):
        name = split or "the data"
        rows = prepare_all(learner, bank, sets, batch, lambda done: on_progress and on_progress(done * before), name)
        per_task = _run(learner, rows, sets, lambda done: on_progress and on_progress(before + done * (1 - before)))
    per_task = per_task.cpu() * 100
    spread = per_task.std().item() if len(per_task) > 1 else float("nan")
    return Report(
        accuracy=per_task.mean().item(),
        ci95=1.96 * spread / math.sqrt(len(per_task)),
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
    """Evaluation mode for a while; afterwards every module is in the mode that it was in before."""
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
    """Prepared rows of every image that the tasks use, at its place in the bank; other rows are zero.

    Raises:
        DataError: an image whose features are no finite numbers; it is named by its row.
        MetarepError: the encoder gives no finite numbers, whatever the image.
    """
    device = learner.device
    used = torch.unique(torch.cat([torch.cat([part.support.flatten(), part.query.flatten()]) for part in sets]))
    parts = []
    for index in used.split(batch):
        parts.append(learner.prepare(bank.pixels(index).to(device)))
        refuse_lost_rows(parts[-1], learner.encoder, lambda row, index=index: f"image {int(index[row])} of {split}")
        on_progress(sum(len(part) for part in parts) / len(used))
    prepared = torch.cat(parts)
    rows = prepared.new_zeros(len(bank), *prepared.shape[1:])
    rows[used.to(device)] = prepared
    return rows


def _run(learner: Learner, rows: Tensor, sets: Sequence[TaskIndex], on_progress: Callable[[float], object]) -> Tensor:
    """Accuracy of each task, in chunks that keep gathered rows within about 64 MB, and states within 128."""
    accuracies, lost, total = [], [], sum(len(part) for part in sets)
    width = max(1, rows[0].numel())
    for part in sets:
        images = part.support.shape[1] + part.query.shape[1]
        most = 32_000_000 // max(1, learner.state_numbers)
        chunk = max(1, min(1024, most, 16_000_000 // (images * max(width, part.support.shape[1]))))
        for some in part.chunks(chunk):
            support, support_y, query, query_y, ways = some.of(rows)
            logits = learner.logits(learner.adapt(support, support_y, ways), query)
            accuracies.append((logits.argmax(-1) == query_y).float().mean(-1))
            lost.append(~logits.isfinite().flatten(1).all(1))  # looked at when all is done: a look waits for the device
            on_progress(sum(len(done) for done in accuracies) / total)
    if missing := int(torch.cat(lost).sum()):
        raise MetarepError(
            f"the logits of {missing} of {total} tasks are no finite numbers, though all features are: "
            f"{learner.called} diverges on them. Try another learner, or fewer or smaller inner steps"
        )
    return torch.cat(accuracies)


def _digest(sets: Sequence[TaskIndex]) -> str:
    """One set keeps its own name; several get one made of all of theirs."""
    if len(sets) == 1:
        return sets[0].digest
    return hashlib.sha256("".join(part.digest for part in sets).encode()).hexdigest()[:12]


def _span(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low}-{high}"
