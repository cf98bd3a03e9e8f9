"""FaissIndex: approximate search by faiss-cpu, for too many vectors to compare all of them (extra ``ann``)."""

import hashlib
import math
from collections.abc import Iterator
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarep.errors import MetarepError, above, one_of
from metarep.index.exact import chunk_size, nearest
from metarep.index.faiss_file import read_faiss
from metarep.index.id_map import IdMap, grown
from metarep.index.index import Index, Rows
from metarep.machine import faster

Kind = Literal["flat", "hnsw", "ivf", "sq8", "pq"]
TRAINED_AT = 10_000  # lists are trained at so many vectors; until then the search is exact
DEAD = 0.2  # share of tombstones at which the index is rebuilt
FEW = 20_000  # a filter that allows at most so many vectors is searched exactly
WIDEST = 4096  # links of a vector, and vectors that are looked at in a graph
KEEP = 0.2  # ... and so is one that allows at most this share of all: an approximate search would miss many of them


class FaissIndex(Index):
    """Searches approximate nearest neighbours with faiss, by a graph (HNSW) or by inverted lists (IVF).

    This class adds what faiss lacks:

    - Ids are those of the caller.
    - A removed vector is a tombstone. When a fifth of all are tombstones, the index is rebuilt without them.
    - Lists are trained when there are 10,000 vectors. ``ivf`` and ``sq8`` train again when there are four times as many
      as at the last training. ``pq`` would lose accuracy by it, so give it most of its vectors in one ``add``.
    - A filter that allows few vectors (20,000 or a fifth of all) is searched exactly. A graph that is searched with a
      filter of 2 % finds only half of the neighbours.

    Args:
        dim, space: see :class:`Index`.
        kind: ``hnsw`` is a graph: fast to search, slow to build. ``ivf`` is inverted lists: quick to build. ``sq8`` and
            ``pq`` are such lists that store a byte for each number, or for each four numbers. ``flat`` compares all
            vectors.
        links: the links of each vector in the graph. More links give a higher recall, and take 8 bytes each.
        build_width: the number of candidates when a vector is added to the graph.
        search_width: the number of candidates when the graph is searched. More give a higher recall and take longer.
        probes: the number of lists that are searched; 0 for a sixteenth of them, but at least 16.

    Raises:
        MetarepError: faiss is not installed, or a setting is out of its range.

    >>> FaissIndex(2, links=0)
    Traceback (most recent call last):
    metarep.errors.MetarepError: links must be a number above 1, not 0
    """

    name: ClassVar[str] = "faiss"

    def __init__(
        self,
        dim: int,
        space: str = "",
        *,
        kind: Kind = "hnsw",
        links: int = 16,
        build_width: int = 128,
        search_width: int = 64,
        probes: int = 0,
    ) -> None:
        super().__init__(dim, space)
        one_of("kind", kind, get_args(Kind))
        for name, given in (("links", links), ("build_width", build_width), ("search_width", search_width)):
            above(name, given, 1)
            if given > WIDEST:
                raise MetarepError(f"{name} must be at most {WIDEST:,}, not {given}")
        above("probes", probes, -1)
        self.kind: Kind = kind
        self.links, self.build_width, self.search_width, self.probes = links, build_width, search_width, probes
        self.faiss = _faiss()
        self.learned_at = 0  # the number of vectors at the last training of the lists
        self.inner = self._fresh()
        self.row_ids, self.living = (
            np.empty(0, np.int64),
            np.empty(0, bool),
        )  # by row; the arrays have spare room at their end
        self.rows = IdMap()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def alive(self) -> np.ndarray:
        """Which rows of the faiss index are not tombstones, as booleans."""
        return self.living[: self.inner.ntotal]

    def ids(self) -> Int[Tensor, " n"]:
        """Returns all ids, ascending, shape ``(n,)``."""
        return torch.from_numpy(np.sort(self.row_ids[np.flatnonzero(self.alive)]))

    def _add(self, ids: Int[Tensor, " n"], rows: Rows) -> None:
        total = len(self) + len(ids)
        limit = max(TRAINED_AT, 4 * self.learned_at) if self.kind != "pq" or not self.learned_at else math.inf
        if self.kind in ("ivf", "sq8", "pq") and total >= limit:
            self._rebuild(ids.numpy(), rows)
            return
        first, last = self.inner.ntotal, self.inner.ntotal + len(ids)
        self.row_ids, self.living = grown(self.row_ids, last, first), grown(self.living, last, first)
        self.row_ids[first:last], self.living[first:last] = ids.numpy(), True
        self.rows.add(ids.numpy(), np.arange(first, last))
        self.inner.add(rows)

    def _remove(self, ids: Int[Tensor, " n"]) -> None:
        self.alive[self.rows.find(ids.numpy())] = False
        self.rows.drop(ids.numpy())
        if len(self.alive) - len(self) > DEAD * len(self.alive):
            self._rebuild(np.empty(0, np.int64), np.empty((0, self.dim), np.float32))

    def _search(
        self, queries: Rows, k: int, allowed: Int[Tensor, " m"] | None
    ) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
        chosen = None
        if allowed is not None:
            chosen = self.rows.find_present(allowed.numpy())
            if len(chosen) <= max(FEW, KEEP * len(self)):
                return self._search_exactly(torch.from_numpy(queries), k, chosen)
        scores, rows = self.inner.search(queries, k, params=self._parameters(k, chosen))
        return self._with_ids(torch.from_numpy(scores), torch.from_numpy(rows))

    def _with_ids(self, scores: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Replaces rows by ids. Where faiss returns the row -1 for a missing neighbour, the score becomes -inf."""
        if faster.rows_to_ids(self.row_ids, rows, scores):
            return scores, rows
        missing = rows < 0
        ids = torch.from_numpy(self.row_ids)[rows.clamp(min=0)]
        return scores.masked_fill(missing, -torch.inf), ids.masked_fill(missing, -1)

    def _search_exactly(self, queries: Tensor, k: int, chosen: np.ndarray) -> tuple[Tensor, Tensor]:
        """Returns scores and ids of the ``k`` nearest among the chosen rows, all of which are compared."""

        def chunks() -> Iterator[Tensor]:
            step = chunk_size(len(queries))
            for start in range(0, len(chosen), step):
                yield torch.from_numpy(self.inner.reconstruct_batch(chosen[start : start + step]))

        scores, nearest_chosen = nearest(queries, chunks(), k)
        positions = nearest_chosen.numpy()
        ids = self.row_ids[chosen[positions]] if len(chosen) else -1
        return scores, torch.from_numpy(np.where(positions < 0, -1, ids))

    def _parameters(self, k: int, chosen: np.ndarray | None) -> Any:  # noqa: ANN401 - faiss's own
        """Returns the search parameters that differ from :meth:`_tune`: a larger width, or a filter; None for none."""
        own: dict[str, Any] = {}
        if chosen is not None or len(self) < self.inner.ntotal:
            mask = self.alive
            if chosen is not None:
                mask = np.zeros(len(self.alive), bool)
                mask[chosen] = True
            own["sel"] = self.faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
        if self.kind == "hnsw" and (own or k > self.search_width):
            return self.faiss.SearchParametersHNSW(efSearch=max(self.search_width, k), **own)
        if self.learned_at and own:
            return self.faiss.SearchParametersIVF(nprobe=self.inner.nprobe, **own)
        return self.faiss.SearchParameters(**own) if own else None

    def _tune(self) -> None:
        """Sets the search width of the faiss index once, because new parameters for each search take long to make."""
        if self.kind == "hnsw":
            self.inner.hnsw.efSearch = self.search_width
        elif self.learned_at:
            self.inner.nprobe = min(self.inner.nlist, self.probes or max(16, self.inner.nlist // 16))

    def _fresh(self) -> Any:  # noqa: ANN401 - faiss has no types
        """Returns an empty faiss index. A kind with inverted lists starts flat, until its lists are trained."""
        product = self.faiss.METRIC_INNER_PRODUCT
        if self.kind == "hnsw":
            made = self.faiss.IndexHNSWFlat(self.dim, self.links, product)
            made.hnsw.efConstruction, made.hnsw.efSearch = self.build_width, self.search_width
            return made
        return self.faiss.IndexFlatIP(self.dim)

    def _lists(self, n: int) -> Any:  # noqa: ANN401
        """Returns an untrained faiss index with a number of lists that suits ``n`` vectors."""
        number = 2 ** min(
            round(math.log2(4 * math.sqrt(n))), int(math.log2(max(2, n / 39)))
        )  # each list is trained with at least 39 points
        # "np": no training for Hamming distances, which would take most of the time and is not used here
        stored = {"ivf": "Flat", "sq8": "SQ8", "pq": f"PQ{_parts(self.dim)}x8np"}[self.kind]
        made = self.faiss.index_factory(self.dim, f"IVF{number},{stored}", self.faiss.METRIC_INNER_PRODUCT)
        made.cp.max_points_per_centroid = 64  # more points make the training longer, but not better
        return made

    def _rebuild(self, ids: np.ndarray, rows: np.ndarray) -> None:
        """Rebuilds the index without tombstones and with new vectors, and trains lists if they are due."""
        kept = np.flatnonzero(self.alive)
        old = self.inner.reconstruct_batch(kept) if len(kept) else np.empty((0, self.dim), np.float32)
        rows = np.concatenate([old, rows])
        due = self.kind in ("ivf", "sq8", "pq") and len(rows) >= max(TRAINED_AT, 4 * self.learned_at)
        if due and (self.kind != "pq" or not self.learned_at):
            self.inner = self._lists(len(rows))
            self.inner.train(rows)
            self.learned_at = len(rows)
        elif self.learned_at:
            self.inner.reset()  # this keeps the trained lists
        else:
            self.inner = self._fresh()
        self.inner.add(rows)
        if self.learned_at:
            self.inner.make_direct_map()  # needed to read vectors by row
            self._tune()
        self.row_ids = np.concatenate([self.row_ids[kept], ids])
        self.living = np.ones(len(rows), bool)
        self.rows = IdMap()
        self.rows.add(self.row_ids, np.arange(len(rows)))

    def _holds(self, ids: Int[Tensor, " n"]) -> Tensor:
        return torch.from_numpy(self.rows.find(ids.numpy()) >= 0)

    def _vectors(self, ids: Int[Tensor, " n"]) -> Float[Tensor, "n dim"]:
        return torch.from_numpy(self.inner.reconstruct_batch(self.rows.find(ids.numpy())))

    def _saved(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        content = torch.from_numpy(self.faiss.serialize_index(self.inner))
        ids, alive = self.row_ids[: self.inner.ntotal], self.alive
        tensors = {"ids": torch.from_numpy(ids), "alive": torch.from_numpy(alive), "faiss": content}
        return tensors, {"learned_at": self.learned_at, "digest": _digest(content)}

    def _restore(self, tensors: dict[str, Tensor], more: dict[str, Any]) -> None:
        if _digest(tensors["faiss"]) != more["digest"]:  # faiss does not check what it reads
            raise ValueError("the bytes of the faiss index have changed since they were written")
        ids, alive, learned_at = tensors["ids"], tensors["alive"], more["learned_at"]
        if (ids.dtype, alive.dtype) != (torch.int64, torch.bool) or not ids.shape == alive.shape == (ids.numel(),):
            raise ValueError("its ids are not whole numbers in a row")
        if len(ids[alive].unique()) < int(alive.sum()) or (ids < 0).any() or type(learned_at) is not int:
            raise ValueError("two of its vectors have the same id, or an id is below 0")
        learned = learned_at > 0
        self.inner = read_faiss(self.faiss, tensors["faiss"], self.kind, self.dim, len(ids), learned=learned)
        self.learned_at = learned_at
        self._tune()
        self.row_ids, self.living = ids.numpy(), alive.numpy()
        live = np.flatnonzero(self.alive)
        self.rows.add(self.row_ids[live], live)

    def chosen_settings(self) -> dict[str, Any]:
        """Returns the keyword arguments of the constructor that make an index like this one."""
        names = ("kind", "links", "build_width", "search_width", "probes")
        return {name: getattr(self, name) for name in names}


def _parts(dim: int) -> int:
    """Returns the bytes of a vector of ``pq``: one for each four numbers, or the next smaller divisor of ``dim``."""
    return next(parts for parts in range(max(1, dim // 4), 0, -1) if dim % parts == 0)


def _digest(content: Tensor) -> str:
    return hashlib.sha256(content.numpy().tobytes()).hexdigest()[:16]


def _faiss() -> Any:  # noqa: ANN401 - it has no types
    try:
        import faiss
    except ImportError as error:
        raise MetarepError(
            "the faiss index needs faiss-cpu, which is not installed: pip install 'metarep[ann]'"
        ) from error
    return faiss
