"""Vector indexes for nearest-neighbour search. A new backend is one file in this package and three lines below."""

from typing import Any

from metarep.errors import refuse_unknown_settings, unknown
from metarep.index.exact import ExactIndex
from metarep.index.faiss import FaissIndex
from metarep.index.index import Index, SpaceError
from metarep.index.pgvector import PgvectorIndex
from metarep.index.qdrant import QdrantIndex

__all__ = [
    "INDEXES",
    "ExactIndex",
    "FaissIndex",
    "Index",
    "PgvectorIndex",
    "QdrantIndex",
    "SpaceError",
    "build_index",
]

INDEXES: dict[str, type[Index]] = {
    "exact": ExactIndex,
    "faiss": FaissIndex,
    "pgvector": PgvectorIndex,
    "qdrant": QdrantIndex,
}
"""The classes of index, by the name that ``build_index`` takes."""


def build_index(name: str, dim: int, space: str = "", **settings: Any) -> Index:  # noqa: ANN401 - the backend's own
    """Creates an empty index.

    Args:
        name: the kind of index, a name of ``INDEXES``.
        dim: the number of dimensions of a vector.
        space: the digest of the encoder; see :class:`metarep.index.index.Index`.
        settings: keyword arguments of the class of index.

    Raises:
        MetarepError: the name or a setting is unknown. The message suggests the closest one.

    >>> index = build_index("exact", 2)
    >>> index.add([7, 8, 9], [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> scores, ids = index.search([[0.0, 2.0]], k=2)
    >>> ids.tolist(), [round(score, 2) for score in scores[0].tolist()]
    ([[8, 9]], [1.0, 0.71])
    """
    if name not in INDEXES:
        raise unknown("index", name, INDEXES)
    refuse_unknown_settings(name, INDEXES[name].__init__, settings)
    return INDEXES[name](dim, space, **settings)
