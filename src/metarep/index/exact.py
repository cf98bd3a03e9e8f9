"""ExactIndex: every vector is looked at. The default up to about a million vectors, and the oracle of the others."""

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarep.device import pick_device
from metarep.index.id_map import IdMap, grown
from metarep.index.index import Index, Rows

BLOCK_BYTES = 1 << 24  # vectors are kept in blocks of this size: growth copies nothing
SCORES = 1 << 22  # numbers in a matrix of scores at a time: 16 MB
STRIP = 64  # columns of scores that share a maximum


class ExactIndex(Index):
    """Vectors in blocks on one device; a search is a matrix product a block, and the best of it.

    ``4 * dim + 20`` bytes a vector: a million of 64 numbers take about 263 MiB. What is removed is overwritten by
    what stands last, so nothing is ever rebuilt. A search with ``allowed`` looks at the allowed alone.

    Args:
        dim, space: see :class:`Index`.
        device: where the vectors lie, and where the products are taken.
    """

    name: ClassVar[str] = "exact"

    def __init__(self, dim: int, space: str = "", *, device: str = "cpu") -> None:
        super().__init__(dim, space)
        self.device = pick_device(device)
        self.size = max(STRIP, BLOCK_BYTES // (4 * dim) // STRIP * STRIP)  # rows a block
        self.blocks: list[Tensor] = []
        self.row_ids = np.empty(0, np.int64)  # of each row; longer than there are rows
        self.rows = IdMap()

    def __len__(self) -> int:
        return len(self.rows)

    def ids(self) -> Int[Tensor, " n"]:
        return torch.from_numpy(np.sort(self.row_ids[: len(self)]))

    def _add(self, ids: Int[Tensor, " n"], rows: Rows) -> None:
        first, last = len(self), len(self) + len(ids)
        while len(self.blocks) * self.size < last:  # memory that nothing was written to costs nothing yet
            self.blocks.append(torch.empty(self.size, self.dim, device=self.device))
        self.row_ids = grown(self.row_ids, last, first)
        done = 0
        while done < len(ids):
            block, at = divmod(first + done, self.size)
            part = torch.from_numpy(rows[done : done + self.size - at])
            self.blocks[block][at : at + len(part)] = part
            done += len(part)
        self.row_ids[first:last] = ids.numpy()
        self.rows.add(ids.numpy(), np.arange(first, last))

    def _remove(self, ids: Int[Tensor, " n"]) -> None:
        freed = self.rows.find(ids.numpy())
        before, after = len(self), len(self) - len(ids)
        kept = np.setdiff1d(np.arange(after, before), freed, assume_unique=True)  # rows at the end that must move
        holes = freed[freed < after]
        self.rows.drop(ids.numpy())
        if len(kept):
            movers = self.row_ids[kept]
            self._put(holes, self._take(kept))
            self.row_ids[holes] = movers
            self.rows.move(movers, holes)
        del self.blocks[-(-after // self.size) :]

    def _search(
        self, queries: Rows, k: int, allowed: Int[Tensor, " m"] | None
    ) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
        chosen = None
        if allowed is not None:
            chosen = self.rows.find_present(allowed.numpy())
        scores, rows = nearest(torch.from_numpy(queries).to(self.device), self._chunks(len(queries), chosen), k)
        scores, rows = scores.cpu(), rows.cpu().numpy()
        if chosen is not None and len(chosen):
            rows = np.where(rows >= 0, chosen[rows], -1)
        return scores, torch.from_numpy(np.where(rows >= 0, self.row_ids[rows], -1))

    def _chunks(self, queries: int, chosen: np.ndarray | None) -> Iterator[Tensor]:
        """The vectors to look at, a few thousand at a time."""
        step = chunk_size(queries)
        if chosen is not None:
            for start in range(0, len(chosen), step):
                yield self._take(chosen[start : start + step])
            return
        for number, block in enumerate(self.blocks):
            filled = min(self.size, len(self) - number * self.size)
            for start in range(0, filled, step):
                yield block[start : min(start + step, filled)]

    def _take(self, rows: np.ndarray) -> Tensor:
        taken = torch.empty(len(rows), self.dim, device=self.device)
        for block, at, here in self._by_block(rows):
            taken[here] = self.blocks[block][at]
        return taken

    def _put(self, rows: np.ndarray, values: Tensor) -> None:
        for block, at, here in self._by_block(rows):
            self.blocks[block][at] = values[here]

    def _by_block(self, rows: np.ndarray) -> Iterator[tuple[int, Tensor, Tensor]]:
        """For each block that is touched: rows within it, and which of the asked ones they are."""
        block = rows // self.size
        for number in np.unique(block).tolist():
            here = np.flatnonzero(block == number)
            at = rows[here] - number * self.size
            yield number, torch.from_numpy(at).to(self.device), torch.from_numpy(here).to(self.device)

    def _holds(self, ids: Int[Tensor, " n"]) -> Tensor:
        return torch.from_numpy(self.rows.find(ids.numpy()) >= 0)

    def _vectors(self, ids: Int[Tensor, " n"]) -> Float[Tensor, "n dim"]:
        return self._take(self.rows.find(ids.numpy())).cpu()

    def _saved(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        filled = [block[: len(self) - number * self.size] for number, block in enumerate(self.blocks)]
        tensors = {f"vectors.{number}": part for number, part in enumerate(filled)}
        return {"ids": torch.from_numpy(self.row_ids[: len(self)]), **tensors}, {}

    def _restore(self, tensors: dict[str, Tensor], more: dict[str, Any]) -> None:  # noqa: ARG002
        ids, start = tensors["ids"], 0
        for number in range(len(tensors) - 1):
            part = tensors.pop(f"vectors.{number}")  # so that no two copies of all stand in memory
            if part.ndim != 2 or part.shape[1] != self.dim or part.dtype != torch.float32:
                raise ValueError(f"vectors of shape {tuple(part.shape)}")
            # as they are: scaling them again would change a last digit
            self._add(ids[start : start + len(part)], part.numpy())
            start += len(part)

    def chosen_settings(self) -> dict[str, Any]:
        return {}


def chunk_size(queries: int) -> int:
    """Vectors at a time, so that scores fit the cache."""
    return max(1024, SCORES // max(1, queries) // STRIP * STRIP)


def nearest(
    queries: Float[Tensor, "n dim"], chunks: Iterator[Tensor], k: int
) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """The best ``k`` products of each query with the rows of all chunks, and the places of these rows in their order.

    The best ``k`` of many scores lie in the ``k`` strips with the greatest maxima. Maxima are read at the speed of
    memory, so that only ``k`` strips are sorted, instead of all that a chunk has.
    """
    best = torch.full((len(queries), k), -torch.inf, device=queries.device)
    places = torch.full((len(queries), k), -1, dtype=torch.int64, device=queries.device)
    start, room = 0, queries.new_empty(0)
    for rows in chunks:
        if len(room) < len(queries) * len(rows):
            room = queries.new_empty(len(queries) * len(rows))  # once: fresh memory costs as much as the product
        scores = room[: len(queries) * len(rows)].view(len(queries), len(rows))
        torch.mm(queries, rows.T, out=scores)
        found, at = _best(scores, min(k, len(rows)))
        both, index = torch.cat([best, found], 1), torch.cat([places, at + start], 1)
        best, pick = both.topk(k)
        places = index.gather(1, pick)
        start += len(rows)
    return best, places


def _best(scores: Float[Tensor, "n m"], k: int) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """``topk`` by way of the maxima of strips."""
    n, m = scores.shape
    strips = m // STRIP
    if strips < 4 * k:
        return scores.topk(k)
    even = scores[:, : strips * STRIP].view(n, strips, STRIP)
    which = even.amax(-1).topk(k).indices  # n k
    columns = which.unsqueeze(-1) * STRIP + torch.arange(STRIP, device=scores.device)
    columns = columns.flatten(1)
    if m > strips * STRIP:
        rest = torch.arange(strips * STRIP, m, device=scores.device).expand(n, -1)
        columns = torch.cat([columns, rest], 1)
    found, at = scores.gather(1, columns).topk(k)
    return found, columns.gather(1, at)
