"""Runs of tasks on prepared rows: adapt, answer, and count what the figures of a measurement are made of."""

import time
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from metarep.data.tasks import TaskIndex
from metarep.errors import MetarepError, counted
from metarep.experiments.measurement.reliability import Tally
from metarep.experiments.measurement.shards import Shard
from metarep.learners import Learner, State
from metarep.machine.ranks import Part, gather_all, sum_over_ranks

AT_ONCE = 128  # tasks


def run_tasks(
    learner: Learner,
    rows: Shaped[Tensor, "n *row"],
    sets: Sequence[TaskIndex],
    on_progress: Callable[[float], object],
    shard: Shard | None,
    reliability: bool,
    unknown: Sequence[Int[Tensor, "_ _"]] | None,
) -> tuple[Float[Tensor, " task"], Tally | None]:
    """Adapt to each task of the shard and answer its queries.

    Tasks run in chunks, so that the gathered rows take at most about 64 MB and the adapted states at most 128 MB.

    Args:
        learner: the learner, in evaluation mode.
        rows: a prepared row for each image of the bank, on the learner's device.
        sets: the sets of tasks.
        on_progress: called with the finished share, from 0 to 1.
        shard: the part of the tasks to run; None for all.
        reliability: whether to count what reliability needs.
        unknown: the rows of the unknown queries of each set; None without an open set.

    Returns:
        The accuracy of each task in percent, on the CPU; and the counts, or None.

    Raises:
        MetarepError: the learner gives NaN or infinite logits on some tasks, or there are more shards than chunks.
    """
    total, width = sum(len(part) for part in sets), max(1, rows[0].numel())
    chunks, others, first = [], [], [0]
    for number, part in enumerate(sets):
        size = _chunk(learner, part, width)
        chunks += part.chunks(size)
        others += unknown[number].split(size) if unknown else [None] * -(-len(part) // size)
    for some in chunks:
        first.append(first[-1] + len(some))
    own = range(len(chunks))
    if shard:
        if shard.of > len(chunks):
            most = counted(len(chunks), "shard")
            raise MetarepError(
                f"{counted(total, 'task')} make {most} at most, not {shard.of}",
                advice="ask for more tasks or fewer shards",
            )
        own = own[Part(shard.number - 1, shard.of, len(chunks)).slice]
    own = own[Part.own(len(own)).slice]
    accuracies, lost = [rows.new_zeros(0, dtype=torch.float32)], [rows.new_zeros(0, dtype=torch.bool)]
    tallies: list[Tally] = []
    for done, number in enumerate(own, 1):
        support, support_y, query, query_y, ways = chunks[number].of(rows)
        began = _now(rows.device) if reliability else 0.0
        state = learner.adapt(support, support_y, ways)
        logits = learner.logits(state, query)
        accuracies.append((logits.argmax(-1) == query_y).float().mean(-1))
        lost.append(~logits.isfinite().flatten(1).all(1))  # read at the end: reading is a host synchronisation
        if reliability:
            seconds = _now(rows.device) - began
            scores = _scores(learner, state, query, logits, rows, others[number])
            tallies.append(Tally.of(logits.float(), query_y, first[number], seconds, *scores))
        on_progress(done / len(own))
    if missing := int(sum_over_ranks(torch.cat(lost).sum())):
        raise MetarepError(
            f"the logits of {missing} of {total} tasks are NaN or infinite, though all features are finite: "
            f"{learner.called} diverges on them. Try another learner, or fewer or smaller inner steps"
        )
    tally = Tally.join(tallies).to(rows.device).over_ranks().to("cpu") if reliability else None
    return 100 * gather_all(torch.cat(accuracies)).cpu(), tally


def _scores(
    learner: Learner,
    state: State,
    query: Tensor,
    logits: Tensor,
    rows: Tensor,
    unknown: Int[Tensor, "task other"] | None,
) -> tuple[Tensor, Tensor] | tuple[()]:
    """The scores by which queries of known and of unknown classes are told apart: how well they fit the task's classes.

    A transductive learner gets both kinds together, as it would in use. Accuracy is measured on the known queries.
    """
    if unknown is None:
        return ()
    flat = unknown.reshape(-1).to(rows.device)
    strange = rows.index_select(0, flat).view(*unknown.shape, *rows.shape[1:])
    if learner.protocol == "transductive":
        both = torch.cat([query, strange], dim=1)
        known, other = learner.familiarity(state, both, learner.logits(state, both)).split(
            [query.shape[1], strange.shape[1]], dim=1
        )
        return known, other
    return learner.familiarity(state, query, logits), learner.familiarity(
        state, strange, learner.logits(state, strange)
    )


def _now(device: torch.device) -> float:
    """The time in seconds, after all work on the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _chunk(learner: Learner, tasks: TaskIndex, width: int) -> int:
    """The number of tasks that run at a time; few enough that several processes share them evenly."""
    images = tasks.support.shape[1] + tasks.query.shape[1]
    most = 32_000_000 // max(1, learner.state_numbers)
    return max(1, min(AT_ONCE, most, 16_000_000 // (images * max(width, tasks.support.shape[1]))))
