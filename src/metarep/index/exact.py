"""ExactIndex: an index that compares a query with every vector; the default up to about a million vectors."""

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarep.index.id_map import IdMap, grown
from metarep.index.index import Index, Rows
from metarep.machine.device import pick_device

BLOCK_BYTES = 1 << 24  # size of a block of vectors; an index grows by blocks, so that nothing is copied
SCORES = 1 << 22  # values in a matrix of scores at a time: 16 MB
STRIP = 64  # columns of scores whose maximum is taken first


class ExactIndex(Index):
    """An exact index: it keeps vectors in blocks on one device, and a search multiplies the query with every block.

    A vector takes ``4 * dim + 20`` bytes; a million vectors of 64 dimensions take about 263 MiB. A removed vector is
    overwritten by the last one, so nothing is ever rebuilt. A search with ``allowed`` reads only the allowed vectors.

    Args:
        dim, space: see :class:`Index`.
        device: device that holds the vectors and computes the products.

    >>> index = ExactIndex(2)
    >>> index.add([10, 11], torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    >>> scores, ids = index.search(torch.tensor([[0.0, 2.0]]), k=1)
    >>> scores.tolist(), ids.tolist()
    ([[1.0]], [[11]])
    """

    name: ClassVar[str] = "exact"

    def __init__(self, dim: int, space: str = "", *, device: str = "cpu") -> None:
        super().__init__(dim, space)
        self.device = pick_device(device)
        self.size = max(STRIP, BLOCK_BYTES // (4 * dim) // STRIP * STRIP)  # rows a block
        self.blocks: list[Tensor] = []
        self.row_ids = np.empty(0, np.int64)  # the id of each row; the array may be longer than there are rows
        self.rows = IdMap()

    def __len__(self) -> int:
        """The number of vectors."""
        return len(self.rows)

    def ids(self) -> Int[Tensor, " n"]:
        """All ids, sorted."""
        return torch.from_numpy(np.sort(self.row_ids[: len(self)]))

    def _add(self, ids: Int[Tensor, " n"], rows: Rows) -> None:
        first, last = len(self), len(self) + len(ids)
        while len(self.blocks) * self.size < last:  # unwritten memory takes no room yet
            self.blocks.append(torch.empty(self.size, self.dim, device=self.device))
        self.row_ids = grown(self.row_ids, last, first)
        done = 0
        while done < len(ids):
            block, start = divmod(first + done, self.size)
            part = torch.from_numpy(rows[done : done + self.size - start])
            self.blocks[block][start : start + len(part)] = part
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
        """The vectors to compare with, a few thousand at a time."""
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
        """The vectors of these rows."""
        taken = torch.empty(len(rows), self.dim, device=self.device)
        for block, inside, positions in self._by_block(rows):
            taken[positions] = self.blocks[block][inside]
        return taken

    def _put(self, rows: np.ndarray, values: Tensor) -> None:
        """Overwrite the vectors of these rows."""
        for block, inside, positions in self._by_block(rows):
            self.blocks[block][inside] = values[positions]

    def _by_block(self, rows: np.ndarray) -> Iterator[tuple[int, Tensor, Tensor]]:
        """For each block with some of the rows: its number, the rows inside it, and their positions in ``rows``."""
        block = rows // self.size
        for number in np.unique(block).tolist():
            positions = np.flatnonzero(block == number)
            inside = rows[positions] - number * self.size
            yield number, torch.from_numpy(inside).to(self.device), torch.from_numpy(positions).to(self.device)

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
        if ids.dtype != torch.int64 or ids.ndim != 1 or len(ids.unique()) < len(ids) or (ids < 0).any():
            raise ValueError("its ids are not different whole numbers")
        for number in range(len(tensors) - 1):
            part = tensors.pop(f"vectors.{number}")  # so that memory never holds two copies of all vectors
            if part.ndim != 2 or part.shape[1] != self.dim or part.dtype != torch.float32:
                raise ValueError(f"vectors of shape {tuple(part.shape)}")
            if not part.sum().isfinite():  # rows have length 1, so their sum is finite if they are
                raise ValueError("a vector is not finite")
            # They are added unchanged: normalising them again could change the last digit.
            self._add(ids[start : start + len(part)], part.numpy())
            start += len(part)

    def chosen_settings(self) -> dict[str, Any]:
        return {}


def chunk_size(queries: int) -> int:
    """The number of vectors to compare with at a time, so that the scores fit into the cache.

    >>> chunk_size(queries=64)
    65536
    """
    return max(1024, SCORES // max(1, queries) // STRIP * STRIP)


def nearest(
    queries: Float[Tensor, "n dim"], chunks: Iterator[Tensor], k: int
) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """The ``k`` largest products of each query with the rows of all chunks.

    The largest ``k`` of many scores are in the ``k`` strips with the largest maxima. Taking maxima is as fast as
    reading memory, and then only ``k`` strips are sorted instead of all scores of a chunk.

    Args:
        queries: one row a query.
        chunks: matrices of vectors, one row a vector.
        k: number of rows to find for each query.

    Returns:
        Scores, largest first, and row numbers, counted over all chunks. With fewer than ``k`` rows, the rest are -inf
        and -1.

    >>> scores, rows = nearest(torch.eye(2), iter([torch.tensor([[1.0, 3.0], [2.0, 0.0]])]), 1)
    >>> scores.tolist(), rows.tolist()
    ([[2.0], [3.0]], [[1], [0]])
    """
    best = torch.full((len(queries), k), -torch.inf, device=queries.device)
    best_rows = torch.full((len(queries), k), -1, dtype=torch.int64, device=queries.device)
    start, buffer = 0, queries.new_empty(0)
    for rows in chunks:
        if len(buffer) < len(queries) * len(rows):
            buffer = queries.new_empty(len(queries) * len(rows))  # once: new memory costs as much as the product
        scores = buffer[: len(queries) * len(rows)].view(len(queries), len(rows))
        torch.mm(queries, rows.T, out=scores)
        chunk_best, columns = _best(scores, min(k, len(rows)))
        best, kept = torch.cat([best, chunk_best], 1).topk(k)
        best_rows = torch.cat([best_rows, columns + start], 1).gather(1, kept)
        start += len(rows)
    return best, best_rows


def _best(scores: Float[Tensor, "n m"], k: int) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """The same as ``scores.topk(k)``, by way of the maxima of strips of columns."""
    n, m = scores.shape
    strips = m // STRIP
    if strips < 4 * k:
        return scores.topk(k)
    even = scores[:, : strips * STRIP].view(n, strips, STRIP)
    best_strips = even.amax(-1).topk(k).indices  # n k
    columns = best_strips.unsqueeze(-1) * STRIP + torch.arange(STRIP, device=scores.device)
    columns = columns.flatten(1)
    if m > strips * STRIP:
        rest = torch.arange(strips * STRIP, m, device=scores.device).expand(n, -1)
        columns = torch.cat([columns, rest], 1)
    best, positions = scores.gather(1, columns).topk(k)
    return best, columns.gather(1, positions)
