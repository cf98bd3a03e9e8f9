"""FaissIndex: faiss-cpu behind the contract. For more vectors than can all be looked at (extra ``ann``)."""

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
from metarep.index.id_map import IdMap, grown
from metarep.index.index import Index, Rows
from metarep.machine import faster

Kind = Literal["flat", "hnsw", "ivf", "sq8", "pq"]
TRAINED_AT = 10_000  # lists are learned when there are so many vectors; until then all are looked at
DEAD = 0.2  # share of tombstones that is swept
FEW = 20_000  # allowed vectors that are searched exactly, whatever share of all they are
KEEP = 0.2  # ... and the share below which a graph or lists lose what is allowed


class FaissIndex(Index):
    """Approximate neighbours by a graph or by lists.

    What faiss lacks is done here. Ids are the caller's; what is removed is a tombstone until a fifth are, then the rest
    is built anew; lists learn where the vectors are when there are 10,000, and ``ivf`` and ``sq8`` again whenever there
    are four times as many as when they last did (``pq`` would lose by it: give it most of its vectors in one ``add``).
    A filter that keeps few (20,000 or a fifth) is answered exactly from the vectors it keeps: a graph walked with a
    filter that keeps 2 % finds half of what there is.

    Args:
        dim, space: see :class:`Index`.
        kind: ``hnsw``, a graph: fast, slow to build; ``ivf``, lists of vectors about centres: quick to build; ``sq8``
            and ``pq``, such lists with a byte for each number, or for each four; ``flat``, all vectors.
        links: of the graph, a vector; more find more and take 8 bytes each.
        build_width: candidates when a vector joins the graph.
        search_width: candidates when the graph is searched; more find more and take longer.
        probes: lists that are searched; 0 for a sixteenth of them, and 16 at least.
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
        above("probes", probes, -1)
        self.kind: Kind = kind
        self.links, self.build_width, self.search_width, self.probes = links, build_width, search_width, probes
        self.faiss = _faiss()
        self.learned_at = 0  # how many vectors there were when lists were learned
        self.inner = self._fresh()
        self.row_ids, self.living = np.empty(0, np.int64), np.empty(0, bool)  # by row; longer than there are rows
        self.rows = IdMap()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def alive(self) -> np.ndarray:
        """Which rows of faiss, counted up as they came, are no tombstones."""
        return self.living[: self.inner.ntotal]

    def ids(self) -> Int[Tensor, " n"]:
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
                return self._look_at(torch.from_numpy(queries), k, chosen)
        scores, rows = self.inner.search(queries, k, params=self._parameters(k, chosen))
        return self._found(torch.from_numpy(scores), torch.from_numpy(rows))

    def _found(self, scores: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """With ids for rows; where faiss found fewer it says -1, and the score is -inf from here on."""
        if faster.rows_to_ids(self.row_ids, rows, scores):
            return scores, rows
        missing = rows < 0
        ids = torch.from_numpy(self.row_ids)[rows.clamp(min=0)]
        return scores.masked_fill(missing, -torch.inf), ids.masked_fill(missing, -1)

    def _look_at(self, queries: Tensor, k: int, chosen: np.ndarray) -> tuple[Tensor, Tensor]:
        """The best of these rows, all of them looked at."""

        def chunks() -> Iterator[Tensor]:
            step = chunk_size(len(queries))
            for start in range(0, len(chosen), step):
                yield torch.from_numpy(self.inner.reconstruct_batch(chosen[start : start + step]))

        scores, at = nearest(queries, chunks(), k)
        places = at.numpy()
        return scores, torch.from_numpy(np.where(places < 0, -1, self.row_ids[chosen[places]] if len(chosen) else -1))

    def _parameters(self, k: int, chosen: np.ndarray | None) -> Any:  # noqa: ANN401 - faiss's own
        """None, or what differs from how :meth:`_tune` left it: wider for many neighbours, and never a tombstone."""
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
        """Tell faiss how hard to look: once, for making parameters anew for each search takes longer than it seems."""
        if self.kind == "hnsw":
            self.inner.hnsw.efSearch = self.search_width
        elif self.learned_at:
            self.inner.nprobe = min(self.inner.nlist, self.probes or max(16, self.inner.nlist // 16))

    def _fresh(self) -> Any:  # noqa: ANN401 - faiss has no types
        """An empty index of faiss; lists that have not learned yet are a flat one."""
        product = self.faiss.METRIC_INNER_PRODUCT
        if self.kind == "hnsw":
            made = self.faiss.IndexHNSWFlat(self.dim, self.links, product)
            made.hnsw.efConstruction, made.hnsw.efSearch = self.build_width, self.search_width
            return made
        return self.faiss.IndexFlatIP(self.dim)

    def _lists(self, n: int) -> Any:  # noqa: ANN401
        """Untrained lists that suit ``n`` vectors."""
        number = 2 ** min(
            round(math.log2(4 * math.sqrt(n))), int(math.log2(max(2, n / 39)))
        )  # 39 points each to learn from
        # "np": without a training for Hamming distances, which takes most of the time and is never used here
        stored = {"ivf": "Flat", "sq8": "SQ8", "pq": f"PQ{_parts(self.dim)}x8np"}[self.kind]
        made = self.faiss.index_factory(self.dim, f"IVF{number},{stored}", self.faiss.METRIC_INNER_PRODUCT)
        made.cp.max_points_per_centroid = 64  # more make training longer, and lists no better
        return made

    def _rebuild(self, ids: np.ndarray, rows: np.ndarray) -> None:
        """Anew without tombstones, with ``ids`` more; lists that are due are learned from all of them."""
        kept = np.flatnonzero(self.alive)
        old = self.inner.reconstruct_batch(kept) if len(kept) else np.empty((0, self.dim), np.float32)
        rows = np.concatenate([old, rows])
        due = self.kind in ("ivf", "sq8", "pq") and len(rows) >= max(TRAINED_AT, 4 * self.learned_at)
        if due and (self.kind != "pq" or not self.learned_at):
            self.inner = self._lists(len(rows))
            self.inner.train(rows)
            self.learned_at = len(rows)
        elif self.learned_at:
            self.inner.reset()  # what was learned stays
        else:
            self.inner = self._fresh()
        self.inner.add(rows)
        if self.learned_at:
            self.inner.make_direct_map()  # lists know no row numbers otherwise
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
        if _digest(tensors["faiss"]) != more["digest"]:  # faiss trusts what it reads; we do not
            raise ValueError("its bytes are not those that were written")
        self.inner = self.faiss.deserialize_index(tensors["faiss"].numpy())
        self.learned_at = more["learned_at"]
        self._tune()
        self.row_ids, self.living = tensors["ids"].numpy(), tensors["alive"].numpy()
        live = np.flatnonzero(self.alive)
        self.rows.add(self.row_ids[live], live)

    def chosen_settings(self) -> dict[str, Any]:
        names = ("kind", "links", "build_width", "search_width", "probes")
        return {name: getattr(self, name) for name in names}


def _parts(dim: int) -> int:
    """Bytes a vector of ``pq``: one for each four numbers, as near as ``dim`` can be divided."""
    return next(parts for parts in range(max(1, dim // 4), 0, -1) if dim % parts == 0)


def _digest(content: Tensor) -> str:
    return hashlib.sha256(content.numpy().tobytes()).hexdigest()[:16]


def _faiss() -> Any:  # noqa: ANN401 - it has no types
    try:
        import faiss
    except ImportError as error:
        raise MetarepError("the faiss index needs faiss-cpu: pip install 'metarep[ann]'") from error
    return faiss
