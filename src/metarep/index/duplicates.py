"""Near-duplicates: groups of vectors that lie closer together than a threshold."""

from collections.abc import Callable

import torch

from metarep.index.index import Index

FIRST = 8  # neighbours asked for at first; twice as many where all of them are near enough


def near_duplicates(
    index: Index, threshold: float, *, batch: int = 256, watch: Callable[[int], None] | None = None
) -> list[list[int]]:
    """Groups of two ids or more, the largest first, each in ascending order.

    Two vectors are near if their cosine is the threshold or more, and a group is whatever hangs together so: its ends
    may be farther apart. Every vector is searched once; an index that is not exact may miss a pair.

    Args:
        index: of any kind.
        threshold: cosine, -1 to 1.
        batch: vectors searched at a time.
        watch: called with the number of vectors that are done.
    """
    head: dict[int, int] = {}

    def find(each: int) -> int:
        head.setdefault(each, each)
        while head[each] != each:
            head[each] = each = head[head[each]]
        return each

    done = 0
    for part in index.ids().split(batch):
        asked, k = part, min(FIRST, len(index))
        rows = index.vectors(part)
        while len(asked):
            scores, ids = index.search(rows, k)
            near = (scores >= threshold - 1e-6) & (ids != asked.unsqueeze(1)) & (ids >= 0)
            for row, column in near.nonzero().tolist():
                head[find(int(asked[row]))] = find(int(ids[row, column]))
            more = (scores[:, -1] >= threshold - 1e-6) & torch.tensor(k < len(index))
            asked, rows, k = asked[more], rows[more], min(2 * k, len(index))
        done += len(part)
        if watch:
            watch(done)
    groups: dict[int, list[int]] = {}
    for each in sorted(head):
        groups.setdefault(find(each), []).append(each)
    return sorted(groups.values(), key=lambda group: (-len(group), group))
