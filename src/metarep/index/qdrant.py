"""QdrantIndex: an index in a collection of a Qdrant server (extra ``qdrant``)."""

import os
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarep.errors import MetarepError
from metarep.index.index import Index, Rows
from metarep.index.remote import refuse_other_vectors

BATCH = 1000  # points a request


class QdrantIndex(Index):
    """An index in a Qdrant collection, for vectors that do not fit on one machine.

    Qdrant has replicas, shards, and a graph search that respects filters. The id of a point is the id of the vector.
    The metadata of the collection say which encoder made the vectors, and vectors of another one are refused. Saving
    the index saves the address of the collection. An API key is read from ``QDRANT_API_KEY`` and never written.

    Args:
        dim, space: see :class:`Index`.
        url: address of the server, such as ``http://localhost:6333``. ``:memory:`` or a folder uses the client's local
            mode, which compares all vectors in Python and is meant for trials.
        collection: name of the collection, which is created if it does not exist.
        exact: compare all vectors instead of searching the graph.
        search_width: number of candidates of a graph search.

    Raises:
        SpaceError: the collection holds vectors of another encoder.
        MetarepError: qdrant-client is not installed, there is no address, the server does not answer, or the collection
            is not one of metarep or has another dimension.

    >>> QdrantIndex(2)
    Traceback (most recent call last):
    metarep.errors.MetarepError: the qdrant index needs the url of a server: http://HOST:6333
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
            self._request(self._prepare)
        except MetarepError:
            self.client.close()
            raise

    def close(self) -> None:
        """Close the connection to the server."""
        self.client.close()

    def __len__(self) -> int:
        """The number of vectors."""
        return self._request(lambda: self.client.count(self.collection, exact=True).count)

    def ids(self) -> Int[Tensor, " n"]:
        """All ids, sorted."""
        return torch.tensor(sorted(point.id for point in self._all()), dtype=torch.int64)

    def _add(self, ids: Int[Tensor, " n"], rows: Rows) -> None:
        models = self.module.models
        for part in torch.arange(len(ids)).split(BATCH):
            batch = models.Batch(ids=ids[part].tolist(), vectors=rows[part.numpy()].tolist())
            self._request(lambda batch=batch: self.client.upsert(self.collection, batch, wait=True))

    def _remove(self, ids: Int[Tensor, " n"]) -> None:
        models = self.module.models
        for part in ids.split(BATCH):
            chosen = models.PointIdsList(points=part.tolist())
            self._request(lambda chosen=chosen: self.client.delete(self.collection, chosen, wait=True))

    def _search(
        self, queries: Rows, k: int, allowed: Int[Tensor, " m"] | None
    ) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
        models = self.module.models
        chosen = None if allowed is None else models.Filter(must=[models.HasIdCondition(has_id=allowed.tolist())])
        served = self.url.startswith("http")  # the client's local mode has no graph to search
        width = models.SearchParams(exact=self.exact, hnsw_ef=max(k, self.search_width)) if served else None
        requests = [models.QueryRequest(query=row, limit=k, filter=chosen, params=width) for row in queries.tolist()]
        scores, ids = torch.full((len(queries), k), -torch.inf), torch.full((len(queries), k), -1)
        responses = self._request(lambda: self.client.query_batch_points(self.collection, requests))
        for row, response in enumerate(responses):
            for rank, point in enumerate(response.points):
                scores[row, rank], ids[row, rank] = point.score, point.id
        return scores, ids

    def _holds(self, ids: Int[Tensor, " n"]) -> Tensor:
        present = [point.id for point in self._points(ids, vectors=False)]
        return torch.isin(ids, torch.tensor(present, dtype=torch.int64))

    def _vectors(self, ids: Int[Tensor, " n"]) -> Float[Tensor, "n dim"]:
        by_id = {point.id: point.vector for point in self._points(ids, vectors=True)}
        return torch.tensor([by_id[each] for each in ids.tolist()], dtype=torch.float32)

    def _points(self, ids: Int[Tensor, " n"], *, vectors: bool) -> Iterator[Any]:
        """The points with these ids, as far as the collection holds them."""
        for part in ids.split(BATCH) if len(ids) else ():
            batch = part.tolist()
            yield from self._request(
                lambda batch=batch: self.client.retrieve(
                    self.collection, batch, with_payload=False, with_vectors=vectors
                )
            )

    def _all(self) -> Iterator[Any]:
        """All points of the collection, without their vectors."""
        more, offset = True, None
        while more:
            points, offset = self._request(
                lambda offset=offset: self.client.scroll(
                    self.collection, limit=BATCH, offset=offset, with_payload=False
                )
            )
            yield from points
            more = offset is not None

    def _saved(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        if self.url == ":memory:":
            raise MetarepError("an index in :memory: cannot be saved; give the url of a server, or a folder")
        return {}, {}

    def _restore(self, tensors: dict[str, Tensor], more: dict[str, Any]) -> None:
        """Do nothing: everything is in the collection."""

    def chosen_settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("url", "collection", "exact", "search_width")}

    def _connect(self) -> Any:  # noqa: ANN401 - an extra
        if self.url.startswith(("http://", "https://")):
            key = os.environ.get("QDRANT_API_KEY")
            return self.module.QdrantClient(
                url=self.url, api_key=key, check_compatibility=False
            )  # the check would run in a thread, and report too late
        if self.url == ":memory:":
            return self.module.QdrantClient(":memory:")
        return self.module.QdrantClient(path=self.url)

    def _prepare(self) -> None:
        """Create the collection if it does not exist; otherwise check that it holds such vectors."""
        models = self.module.models
        about = {"metarep": 1, "dim": self.dim, "space": self.space}
        if not self.client.collection_exists(self.collection):
            self.client.create_collection(
                self.collection,
                vectors_config=models.VectorParams(size=self.dim, distance=models.Distance.DOT),
                metadata=about,
            )
        known = self.client.get_collection(self.collection).config.metadata or {}
        refuse_other_vectors("collection", self.collection, known, self.dim, self.space)

    def _request(self, call: Any) -> Any:  # noqa: ANN401 - whatever the client returns
        """The result of a call of the client; its errors become a MetarepError."""
        try:
            return call()
        except MetarepError:
            raise
        except Exception as error:  # the client raises errors of httpx, of pydantic, and its own
            reason = str(error).strip().partition("\n")[0]
            raise MetarepError(
                f"Qdrant at {self.url} did not answer: {type(error).__name__}: {reason}; check the url and the server"
            ) from error


def _module() -> Any:  # noqa: ANN401 - an extra
    try:
        import qdrant_client
    except ImportError as error:
        raise MetarepError("the qdrant index needs qdrant-client: pip install 'metarep[qdrant]'") from error
    return qdrant_client
