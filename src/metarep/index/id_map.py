"""IdMap: in which row an id's vector is."""

import numpy as np

Ids = np.ndarray


class IdMap:
    """From ids to rows, in 12 bytes an id (a dictionary takes about 100).

    Ids stand in sorted runs, each at least twice as long as the next: what is added becomes a run, and runs that are
    too much alike are merged. So a million ids that come in small lots are sorted a few dozen times in all, and looked
    up in some twenty runs at most. A forgotten id's row becomes -1 until its run is merged.
    """

    def __init__(self) -> None:
        self.runs: list[tuple[Ids, np.ndarray]] = []
        self.gone = 0
        self.live = 0

    def __len__(self) -> int:
        return self.live

    def find(self, ids: Ids) -> np.ndarray:
        """The row of each id, -1 where there is none."""
        rows = np.full(len(ids), -1, np.int64)
        for known, places in self.runs:
            at = np.searchsorted(known, ids)
            at[at == len(known)] = 0
            hit = (known[at] == ids) & (places[at] >= 0)
            rows[hit] = places[at[hit]]
        return rows

    def find_present(self, ids: Ids) -> np.ndarray:
        """Sorted rows of those of the ids that are here."""
        rows = np.sort(self.find(ids))
        return rows[rows >= 0]

    def add(self, ids: Ids, rows: np.ndarray) -> None:
        """Ids that are not there yet."""
        if not len(ids):
            return
        order = np.argsort(ids, kind="stable")
        self.runs.append((ids[order], rows[order].astype(np.int32)))
        self.live += len(ids)
        while len(self.runs) > 1 and len(self.runs[-2][0]) < 2 * len(self.runs[-1][0]):
            self._merge(2)

    def move(self, ids: Ids, rows: np.ndarray) -> None:
        """Other rows for ids that are there; -1 forgets one."""
        for known, places in self.runs:
            at = np.searchsorted(known, ids)
            at[at == len(known)] = 0
            hit = (known[at] == ids) & (places[at] >= 0)
            places[at[hit]] = rows[hit]

    def drop(self, ids: Ids) -> None:
        """Forget ids that are there."""
        self.move(ids, np.full(len(ids), -1))
        self.live -= len(ids)
        self.gone += len(ids)
        if self.gone > self.live:
            self._merge(len(self.runs))

    def _merge(self, last: int) -> None:
        """Make one run of the last ones, without what is gone."""
        ids = np.concatenate([run[0] for run in self.runs[-last:]])
        rows = np.concatenate([run[1] for run in self.runs[-last:]])
        kept = rows >= 0
        self.gone -= len(rows) - int(kept.sum())
        ids, rows = ids[kept], rows[kept]
        order = np.argsort(ids, kind="stable")  # two sorted runs: a merge, not a sort
        self.runs[-last:] = [(ids[order], rows[order])] if len(ids) else []


def grown(values: np.ndarray, needed: int, filled: int) -> np.ndarray:
    """The array, or a longer copy of what is filled: an eighth is added at a time, so that growth costs little."""
    if needed <= len(values):
        return values
    more = np.empty(max(needed, len(values) * 9 // 8), values.dtype)
    more[:filled] = values[:filled]
    return more
