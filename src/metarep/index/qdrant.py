"""QdrantIndex: a collection of a Qdrant server (extra ``qdrant``)."""

import os
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarep.errors import MetarepError
from metarep.index.index import Index, Rows, SpaceError

LOT = 1000  # points a request


class QdrantIndex(Index):
    """For vectors that outgrow one machine: replicas, shards, and filters that its graph knows of.

    A point's id is the index's; the collection's metadata say which encoder's vectors these are, and another's are
    refused. What is saved is where the collection is; a key is read from ``QDRANT_API_KEY`` and never written.

    Args:
        dim, space: see :class:`Index`.
        url: of the server, such as ``http://localhost:6333``; ``:memory:`` or a folder for the client's own stand-in,
            which looks at all vectors, in Python: to try things out with.
        collection: its name; it is made if need be.
        exact: look at all vectors instead of the graph.
        search_width: candidates when the graph is searched.
    """

    name: ClassVar[str] = "qdrant"
    lives_elsewhere: ClassVar[bool] = True

    def __init__(
        self,
        dim: int,
        space: str = "",
        *,
        url: str = "",
        collection: str = "metarep",
        exact: bool = False,
        search_width: int = 128,
    ) -> None:
        super().__init__(dim, space)
        if not url:
            raise MetarepError("the qdrant index needs the url of a server: http://HOST:6333")
        self.url, self.collection, self.exact, self.search_width = url, collection, exact, search_width
        self.module = _module()
        self.client = self._connect()
        try:
            self._ask(self._prepare)
        except MetarepError:
            self.client.close()
            raise

    def close(self) -> None:
        self.client.close()

    def __len__(self) -> int:
        return self._ask(lambda: self.client.count(self.collection, exact=True).count)

    def ids(self) -> Int[Tensor, " n"]:
        return torch.tensor(sorted(point.id for point in self._all()), dtype=torch.int64)

    def _add(self, ids: Int[Tensor, " n"], rows: Rows) -> None:
        models = self.module.models
        for part in torch.arange(len(ids)).split(LOT):
            batch = models.Batch(ids=ids[part].tolist(), vectors=rows[part.numpy()].tolist())
            self._ask(lambda batch=batch: self.client.upsert(self.collection, batch, wait=True))

    def _remove(self, ids: Int[Tensor, " n"]) -> None:
        models = self.module.models
        for part in ids.split(LOT):
            chosen = models.PointIdsList(points=part.tolist())
            self._ask(lambda chosen=chosen: self.client.delete(self.collection, chosen, wait=True))

    def _search(
        self, queries: Rows, k: int, allowed: Int[Tensor, " m"] | None
    ) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
        models = self.module.models
        chosen = None if allowed is None else models.Filter(must=[models.HasIdCondition(has_id=allowed.tolist())])
        served = self.url.startswith("http")  # the stand-in has no graph to search
        width = models.SearchParams(exact=self.exact, hnsw_ef=max(k, self.search_width)) if served else None
        asked = [models.QueryRequest(query=row, limit=k, filter=chosen, params=width) for row in queries.tolist()]
        scores, ids = torch.full((len(queries), k), -torch.inf), torch.full((len(queries), k), -1)
        for row, answer in enumerate(self._ask(lambda: self.client.query_batch_points(self.collection, asked))):
            for place, point in enumerate(answer.points):
                scores[row, place], ids[row, place] = point.score, point.id
        return scores, ids

    def _holds(self, ids: Int[Tensor, " n"]) -> Tensor:
        found = [point.id for point in self._points(ids, vectors=False)]
        return torch.isin(ids, torch.tensor(found, dtype=torch.int64))

    def _vectors(self, ids: Int[Tensor, " n"]) -> Float[Tensor, "n dim"]:
        by_id = {point.id: point.vector for point in self._points(ids, vectors=True)}
        return torch.tensor([by_id[each] for each in ids.tolist()], dtype=torch.float32)

    def _points(self, ids: Int[Tensor, " n"], *, vectors: bool) -> Iterator[Any]:
        for part in ids.split(LOT) if len(ids) else ():
            some = part.tolist()
            yield from self._ask(
                lambda some=some: self.client.retrieve(self.collection, some, with_payload=False, with_vectors=vectors)
            )

    def _all(self) -> Iterator[Any]:
        more, offset = True, None
        while more:
            points, offset = self._ask(
                lambda offset=offset: self.client.scroll(self.collection, limit=LOT, offset=offset, with_payload=False)
            )
            yield from points
            more = offset is not None

    def _saved(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        if self.url == ":memory:":
            raise MetarepError("an index in :memory: ends with its process; give the url of a server, or a folder")
        return {}, {}

    def _restore(self, tensors: dict[str, Tensor], more: dict[str, Any]) -> None:
        """Everything is in the collection."""

    def chosen_settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("url", "collection", "exact", "search_width")}

    def _connect(self) -> Any:  # noqa: ANN401 - an extra
        if self.url.startswith(("http://", "https://")):
            key = os.environ.get("QDRANT_API_KEY")
            return self.module.QdrantClient(url=self.url, api_key=key, check_compatibility=False)  # in a thread, late
        if self.url == ":memory:":
            return self.module.QdrantClient(":memory:")
        return self.module.QdrantClient(path=self.url)

    def _prepare(self) -> None:
        """The collection, and whose vectors it holds."""
        models = self.module.models
        about = {"metarep": 1, "dim": self.dim, "space": self.space}
        if not self.client.collection_exists(self.collection):
            self.client.create_collection(
                self.collection,
                vectors_config=models.VectorParams(size=self.dim, distance=models.Distance.DOT),
                metadata=about,
            )
        known = self.client.get_collection(self.collection).config.metadata or {}
        if known.get("metarep") != 1:
            raise MetarepError(f"the collection {self.collection} is not of metarep; choose another name")
        if known["dim"] != self.dim:
            raise MetarepError(
                f"the collection {self.collection} holds vectors of {known['dim']} numbers, not {self.dim}"
            )
        if known["space"] != self.space:
            raise SpaceError(
                f"the collection {self.collection} holds vectors of the encoder {known['space']}, not {self.space}; "
                "choose another collection"
            )

    def _ask(self, question: Any) -> Any:  # noqa: ANN401 - whatever the client answers
        """An answer of the server, or an error of ours."""
        try:
            return question()
        except MetarepError:
            raise
        except Exception as error:  # the client raises those of httpx, of pydantic, and its own
            reason = str(error).strip().partition("\n")[0]
            raise MetarepError(f"Qdrant at {self.url} did not answer: {type(error).__name__}: {reason}") from error


def _module() -> Any:  # noqa: ANN401 - an extra
    try:
        import qdrant_client
    except ImportError as error:
        raise MetarepError("the qdrant index needs qdrant-client: pip install 'metarep[qdrant]'") from error
    return qdrant_client
