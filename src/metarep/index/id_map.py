"""IdMap: the row number of each id in an index."""

from collections.abc import Iterator

import numpy as np

Ids = np.ndarray


class IdMap:
    """A map from ids to row numbers that takes 12 bytes an id (a dictionary takes about 100).

    Ids are kept in sorted runs, each at least twice as long as the next one. Added ids become a new run, and runs of
    similar length are merged. So a million ids that are added in small batches are sorted a few dozen times in all, and
    a lookup searches about twenty runs at most. The row of a removed id is -1 until its run is merged.

    >>> ids = IdMap()
    >>> ids.add(np.array([7, 3]), np.array([0, 1]))
    >>> ids.drop(np.array([7]))
    >>> ids.find(np.array([3, 7])).tolist(), len(ids)
    ([1, -1], 1)
    """

    def __init__(self) -> None:
        self.runs: list[tuple[Ids, np.ndarray]] = []
        self.gone = 0
        self.live = 0

    def __len__(self) -> int:
        """The number of ids."""
        return self.live

    def find(self, ids: Ids) -> np.ndarray:
        """The row of each id; -1 for an unknown id."""
        rows = np.full(len(ids), -1, np.int64)
        for position, hit, run_rows in self._lookups(ids):
            rows[hit] = run_rows[position[hit]]
        return rows

    def find_present(self, ids: Ids) -> np.ndarray:
        """The rows of those ids that are known, sorted."""
        rows = np.sort(self.find(ids))
        return rows[rows >= 0]

    def add(self, ids: Ids, rows: np.ndarray) -> None:
        """Add ids that are not known yet, with their rows."""
        if not len(ids):
            return
        order = np.argsort(ids, kind="stable")
        self.runs.append((ids[order], rows[order].astype(np.int32)))
        self.live += len(ids)
        while len(self.runs) > 1 and len(self.runs[-2][0]) < 2 * len(self.runs[-1][0]):
            self._merge(2)

    def move(self, ids: Ids, rows: np.ndarray) -> None:
        """Change the rows of known ids; the row -1 marks an id as removed."""
        for position, hit, run_rows in self._lookups(ids):
            run_rows[position[hit]] = rows[hit]

    def drop(self, ids: Ids) -> None:
        """Remove known ids."""
        self.move(ids, np.full(len(ids), -1))
        self.live -= len(ids)
        self.gone += len(ids)
        if self.gone > self.live:
            self._merge(len(self.runs))

    def _lookups(self, ids: Ids) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """For each run: the position of each id in it, the mask of the ids that it holds, and its rows."""
        for run_ids, run_rows in self.runs:
            position = np.searchsorted(run_ids, ids)
            position[position == len(run_ids)] = 0
            yield position, (run_ids[position] == ids) & (run_rows[position] >= 0), run_rows

    def _merge(self, last: int) -> None:
        """Merge the last runs into one, without removed ids."""
        ids = np.concatenate([run[0] for run in self.runs[-last:]])
        rows = np.concatenate([run[1] for run in self.runs[-last:]])
        kept = rows >= 0
        self.gone -= len(rows) - int(kept.sum())
        ids, rows = ids[kept], rows[kept]
        order = np.argsort(ids, kind="stable")  # two sorted runs: a merge, not a sort
        self.runs[-last:] = [(ids[order], rows[order])] if len(ids) else []


def grown(values: np.ndarray, needed: int, filled: int) -> np.ndarray:
    """An array of at least ``needed`` items: ``values`` itself, or a longer copy of its first ``filled`` items.

    A copy is at least an eighth longer than ``values``, so that an array that grows is seldom copied.

    >>> grown(np.array([4, 5, 6]), needed=5, filled=2)[:2]
    array([4, 5])
    """
    if needed <= len(values):
        return values
    longer = np.empty(max(needed, len(values) * 9 // 8), values.dtype)
    longer[:filled] = values[:filled]
    return longer
