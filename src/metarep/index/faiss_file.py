"""Read a faiss index from bytes that may be damaged or hostile: faiss trusts the row numbers in them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch import Tensor

FLAT = {"IndexFlatIP", "IndexFlat"}
LISTS = {"ivf": "IndexIVFFlat", "sq8": "IndexIVFScalarQuantizer", "pq": "IndexIVFPQ"}


def read_faiss(faiss: Any, content: Tensor, kind: str, dim: int, rows: int, *, learned: bool) -> Any:  # noqa: ANN401
    """The faiss index in some bytes, if it is one that :class:`metarep.index.faiss.FaissIndex` makes.

    Args:
        faiss: the module.
        content: the bytes, as ``faiss.serialize_index`` returns them.
        kind, dim: those of the index.
        rows: the number of vectors that it should hold.
        learned: whether its lists are trained.

    Raises:
        ValueError: it is another index, or has a number that points outside of it.
        RuntimeError: faiss cannot read it.
    """
    with _bounded(faiss, content.numel() + 1024):
        # The precomputed table is only used for L2 distances, and it may be larger than the limit.
        inner = faiss.deserialize_index(content.numpy(), getattr(faiss, "IO_FLAG_SKIP_PRECOMPUTE_TABLE", 0))
    names = {"IndexHNSWFlat"} if kind == "hnsw" else {LISTS[kind]} if learned else FLAT
    _check(type(inner).__name__ in names, f"it holds a {type(inner).__name__}")
    _check(inner.metric_type == faiss.METRIC_INNER_PRODUCT and inner.is_trained, "it is another kind of index")
    _check((inner.d, inner.ntotal) == (dim, rows), f"it holds {inner.ntotal} vectors of {inner.d} numbers")
    if kind == "hnsw":
        _check_flat(faiss, inner.storage, dim, rows)
        _check_graph(faiss, inner.hnsw, rows)
    elif learned:
        _check_flat(faiss, inner.quantizer, dim, inner.nlist)
        _check_lists(faiss, inner, rows)
    else:
        _check_flat(faiss, inner, dim, rows)
    return inner


@contextmanager
def _bounded(faiss: Any, most: int) -> Iterator[None]:  # noqa: ANN401 - it has no types
    """A context in which faiss reads no vector of more than ``most`` bytes. Versions before 1.14 have no such limit."""
    if not hasattr(faiss, "set_deserialization_vector_byte_limit"):
        yield
        return
    before = faiss.get_deserialization_vector_byte_limit()
    faiss.set_deserialization_vector_byte_limit(most)
    try:
        yield
    finally:
        faiss.set_deserialization_vector_byte_limit(before)


def _check(right: bool, wrong: str) -> None:
    if not right:
        raise ValueError(f"its faiss index is damaged: {wrong}")


def _check_flat(faiss: Any, index: Any, dim: int, rows: int) -> None:  # noqa: ANN401
    flat = faiss.downcast_index(index)
    _check(type(flat).__name__ in FLAT, f"it holds a {type(flat).__name__}")
    _check((flat.d, flat.ntotal, flat.codes.size()) == (dim, rows, 4 * dim * rows), "its vectors are too few")
    values = faiss.rev_swig_ptr(flat.get_xb(), dim * rows)
    with np.errstate(all="ignore"):
        _check(bool(np.isfinite(values.sum(dtype=np.float64))), "a vector is not finite")


def _check_graph(faiss: Any, graph: Any, rows: int) -> None:  # noqa: ANN401
    """Check that every link of a graph leads to a row, and that each row has the links of its levels."""
    links, levels, starts, widths = (
        faiss.vector_to_array(part)
        for part in (graph.neighbors, graph.levels, graph.offsets, graph.cum_nneighbor_per_level)
    )
    _check(len(levels) == rows and len(starts) == rows + 1 and len(widths) > 0, "its graph has other rows")
    _check(not rows or bool(levels.min() >= 1 and levels.max() < len(widths)), "a row has no such level")
    _check(bool((np.diff(widths) >= 0).all()) and int(widths[0]) == 0, "its levels overlap")
    _check(int(starts[0]) == 0 and int(starts[-1]) == len(links), "its links end elsewhere")
    _check(bool((np.diff(starts.astype(np.int64)) == widths[levels]).all()), "a row has other links than its levels")
    _check(not len(links) or bool(links.min() >= -1 and links.max() < rows), "a link leads nowhere")
    _check(-1 <= graph.entry_point < rows and graph.max_level < len(widths), "it begins nowhere")
    if graph.entry_point >= 0:
        _check(int(levels[graph.entry_point]) == graph.max_level + 1, "it begins at another level")


def _check_lists(faiss: Any, inner: Any, rows: int) -> None:  # noqa: ANN401
    """Check that every row is in one list, and rebuild the map from rows to lists."""
    lists = inner.invlists
    _check(lists.nlist == inner.nlist and lists.code_size == inner.code_size, "its lists are of another kind")
    sizes = [lists.list_size(number) for number in range(inner.nlist)]
    _check(sum(sizes) == rows, f"its lists hold {sum(sizes)} vectors")
    parts = [faiss.rev_swig_ptr(lists.get_ids(number), size) for number, size in enumerate(sizes) if size]
    held = np.sort(np.concatenate([*parts, np.empty(0, np.int64)]))
    _check(bool((held == np.arange(rows)).all()), "a list holds a row that is not there")
    inner.set_direct_map_type(faiss.DirectMap.NoMap)
    inner.make_direct_map()
