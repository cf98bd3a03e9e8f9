"""Third-party indexes with the settings of metarep's, for benchmarks/index.py."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

LINKS, BUILD_WIDTH, SEARCH_WIDTH = 16, 128, 64  # what metarep's graph has by default
K = 10

Search = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # queries -> scores, ids


class Built(NamedTuple):
    search: Search
    bytes: int  # that the library says it holds


def faiss_flat(rows: np.ndarray, threads: int) -> Built:
    import faiss

    faiss.omp_set_num_threads(threads)
    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    return Built(lambda queries: index.search(queries, K), rows.nbytes)


def faiss_hnsw(rows: np.ndarray, threads: int) -> Built:
    import faiss

    faiss.omp_set_num_threads(threads)
    index = faiss.IndexHNSWFlat(rows.shape[1], LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction, index.hnsw.efSearch = BUILD_WIDTH, SEARCH_WIDTH
    index.add(rows)
    return Built(lambda queries: index.search(queries, K), len(faiss.serialize_index(index)))


def faiss_lists(stored: str) -> Callable[[np.ndarray, int], Built]:
    def build(rows: np.ndarray, threads: int) -> Built:
        import faiss

        faiss.omp_set_num_threads(threads)
        number = 2 ** min(round(np.log2(4 * np.sqrt(len(rows)))), int(np.log2(len(rows) / 39)))
        index = faiss.index_factory(rows.shape[1], f"IVF{number},{stored}", faiss.METRIC_INNER_PRODUCT)
        index.cp.max_points_per_centroid = 64
        index.train(rows)
        index.add(rows)
        index.nprobe = min(number, max(16, number // 16))
        return Built(lambda queries: index.search(queries, K), len(faiss.serialize_index(index)))

    return build


def usearch(rows: np.ndarray, threads: int) -> Built:
    from usearch.index import Index

    index = Index(
        ndim=rows.shape[1],
        metric="ip",
        dtype="f32",
        connectivity=LINKS,
        expansion_add=BUILD_WIDTH,
        expansion_search=SEARCH_WIDTH,
    )
    index.add(np.arange(len(rows)), rows, threads=threads)

    def search(queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = index.search(queries, K, threads=threads)
        return 1 - found.distances, found.keys.astype(np.int64)

    return Built(search, index.serialized_length)


def hnswlib(rows: np.ndarray, threads: int) -> Built:
    import hnswlib

    index = hnswlib.Index("ip", rows.shape[1])
    index.init_index(len(rows), M=LINKS, ef_construction=BUILD_WIDTH)
    index.set_num_threads(threads)
    index.add_items(rows, np.arange(len(rows)))
    index.set_ef(SEARCH_WIDTH)

    def search(queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ids, distances = index.knn_query(queries, K)
        return 1 - distances, ids.astype(np.int64)

    return Built(search, index.index_file_size())


RIVALS: dict[str, Callable[[np.ndarray, int], Built]] = {
    "faiss flat": faiss_flat,
    "faiss hnsw": faiss_hnsw,
    "faiss ivf": faiss_lists("Flat"),
    "faiss sq8": faiss_lists("SQ8"),
    "faiss pq": faiss_lists("PQ16x8np"),
    "usearch": usearch,
    "hnswlib": hnswlib,
}
OWN: dict[str, tuple[str, dict[str, Any]]] = {
    "metarep exact": ("exact", {}),
    **{f"metarep {kind}": ("faiss", {"kind": kind}) for kind in ("flat", "hnsw", "ivf", "sq8", "pq")},
}
