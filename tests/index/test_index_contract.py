"""Indexes: one contract for all backends, each against the slow and obvious one."""

import itertools
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor
from torch.nn import functional

from metarep.errors import MetarepError
from metarep.index import INDEXES, ExactIndex, Index, SpaceError, build_index
from metarep.index import index as contract
from metarep.index.exact import nearest
from metarep.index.faiss import FaissIndex
from metarep.machine import faster

DIM = 8
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "exact": ("exact", {}),
    **{f"faiss, {kind}": ("faiss", {"kind": kind}) for kind in ("flat", "hnsw", "ivf", "sq8", "pq")},
    "pgvector": ("pgvector", {}),
    "pgvector, graph": ("pgvector", {"graph": True}),
    "qdrant": ("qdrant", {}),
}
Make = Callable[..., Index]


SERVERS = ("pgvector", "qdrant")  # each takes seconds to start; make test runs them


@pytest.fixture(
    params=[pytest.param(kind, marks=pytest.mark.slow if kind.startswith(SERVERS) else ()) for kind in KINDS]
)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """A function that makes an empty index of this kind."""
    name, own = KINDS[request.param]
    where: Callable[[], dict[str, Any]] = dict
    if name == "faiss":
        pytest.importorskip("faiss", reason="needs metarep[ann]")
    if name == "pgvector":
        pytest.importorskip("psycopg", reason="needs metarep[pgvector]")
        url, number = request.getfixturevalue("postgres"), itertools.count()
        where = lambda: {"url": url, "table": f"t{request.node.name.__hash__() % 10**9}_{next(number)}"}  # noqa: E731
    if name == "qdrant":
        pytest.importorskip("qdrant_client", reason="needs metarep[qdrant]")
        saved = "saved" in request.node.name
        where = lambda: {"url": str(tmp_path / "qdrant") if saved else ":memory:"}  # noqa: E731
    made: list[Index] = []

    def build(dim: int = DIM, space: str = "here", **more: Any) -> Index:
        made.append(build_index(name, dim, space, **own, **where(), **more))
        return made[-1]

    yield build
    for index in made:
        index.close()


def rows_of(n: int, seed: int = 0, dim: int = DIM) -> Tensor:
    return torch.randn(n, dim, generator=Generator().manual_seed(seed))


def oracle(held: dict[int, Tensor], queries: Tensor, k: int, allowed: list[int] | None) -> tuple[Tensor, list]:
    """Scores by a loop, and for each query the ids by score."""
    ids = [i for i in sorted(held) if allowed is None or i in set(allowed)]
    scores = torch.full((len(queries), k), -torch.inf)
    names = []
    for row, query in enumerate(queries):
        near = sorted(((float(functional.cosine_similarity(query, held[i], dim=0)), i) for i in ids), reverse=True)
        for place, (score, _) in enumerate(near[:k]):
            scores[row, place] = score
        names.append([i for _, i in near[:k]])
    return scores, names


def agree(index: Index, held: dict[int, Tensor], queries: Tensor, k: int, allowed: list[int] | None = None) -> None:
    """Scores are the oracle's to rounding; every id has the score beside it, so ties may come in any order."""
    scores, ids = index.search(queries, k, allowed)
    want, _ = oracle(held, queries, k, allowed)
    assert (scores.dtype, ids.dtype, scores.shape) == (torch.float32, torch.int64, (len(queries), k))
    torch.testing.assert_close(scores, want, rtol=0, atol=2e-5)
    assert torch.equal(ids < 0, want == -torch.inf)
    for row, query in enumerate(queries):
        found = [i for i in ids[row].tolist() if i >= 0]
        assert len(set(found)) == len(found)
        for i, score in zip(found, scores[row].tolist(), strict=False):
            assert i in held
            assert allowed is None or i in allowed
            assert abs(float(functional.cosine_similarity(query, held[i], dim=0)) - score) < 2e-5


def filled(make: Make, n: int = 40, seed: int = 0) -> tuple[Index, dict[int, Tensor]]:
    index, rows = make(), rows_of(n, seed)
    ids = [3 * i + 5 for i in torch.randperm(n, generator=Generator().manual_seed(seed)).tolist()]
    index.add(ids, rows)
    return index, dict(zip(ids, rows, strict=True))


def test_all_indexes_are_here() -> None:
    assert {name for name, _ in KINDS.values()} == set(INDEXES)


def test_a_search_gives_the_results_of_a_loop(make: Make) -> None:
    index, held = filled(make)
    for k in (1, 7, 40, 45):
        agree(index, held, rows_of(6, 1), k)
    assert len(index) == 40
    assert index.ids().tolist() == sorted(held)


def test_a_vector_finds_itself_whatever_its_length(make: Make) -> None:
    index, held = filled(make)
    ids = sorted(held)
    scores, found = index.search(torch.stack([1e4 * held[i] for i in ids]), 1)
    assert found[:, 0].tolist() == ids
    torch.testing.assert_close(scores[:, 0], torch.ones(40), rtol=0, atol=1e-5)


def test_numpy_lists_and_doubles_are_taken(make: Make) -> None:
    index = make(dim=2)
    index.add(np.array([4, 2]), np.array([[1.0, 0.0], [0.0, 3.0]]))
    index.add([9], [[1, 1]])
    scores, ids = index.search([[0.0, 1.0]], 3)
    assert ids.tolist() == [[2, 9, 4]]
    torch.testing.assert_close(scores, torch.tensor([[1.0, 0.5**0.5, 0.0]]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("present", [True, False])
@pytest.mark.parametrize("dim", [1, 7, 64, 100])
def test_rows_are_scaled_to_length_1(dim: int, present: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faster, "PRESENT", faster.PRESENT and present)
    rows = torch.randn(9, dim, generator=Generator().manual_seed(0)).numpy() * 1e3
    rows[3], rows[4] = 0, 1e-18
    wide = rows.astype(np.float64)
    wanted = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-300)
    mine = contract._unit_rows("rows", rows)
    np.testing.assert_allclose(mine, wanted, atol=1e-6)
    reverse = contract._unit_rows("rows", rows[::-1])
    assert reverse.flags.c_contiguous
    np.testing.assert_allclose(reverse, wanted[::-1], atol=1e-6)
    unit = np.delete(mine, 3, axis=0)
    np.testing.assert_allclose(contract._unit_rows("rows", unit), np.delete(wanted, 3, axis=0), atol=1e-6)


@pytest.mark.parametrize("present", [True, False])
def test_where_faiss_finds_fewer_there_is_no_id_and_no_score(present: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss", reason="needs metarep[ann]")
    monkeypatch.setattr(faster, "PRESENT", faster.PRESENT and present)
    index = FaissIndex(2)
    index.add([7, 9], torch.eye(2))
    scores, ids = index._with_ids(torch.tensor([[0.5, -3e38]]), torch.tensor([[1, -1]]))
    assert ids.tolist() == [[9, -1]]
    assert scores.tolist() == [[0.5, -torch.inf]]


def test_an_index_does_not_keep_the_callers_memory(make: Make) -> None:
    index, rows = make(dim=8), torch.eye(8)
    index.add(torch.arange(8), rows)
    rows.zero_()
    scores, ids = index.search(torch.eye(8), 1)
    assert ids[:, 0].tolist() == list(range(8))
    torch.testing.assert_close(scores[:, 0], torch.ones(8))


def test_a_row_of_zeros_is_as_far_from_everything(make: Make) -> None:
    index = make(dim=2)
    index.add([0, 1], [[0.0, 0.0], [1.0, 0.0]])
    scores, ids = index.search([[1.0, 0.0], [0.0, 0.0]], 2)
    assert ids[0].tolist() == [1, 0]
    assert scores[0].tolist() == [1.0, 0.0]
    assert scores[1].tolist() == [0.0, 0.0]


def test_an_empty_search_gives_no_results(make: Make) -> None:
    index = make()
    assert len(index) == 0
    index.add([], torch.empty(0, DIM))
    index.remove([])
    scores, ids = index.search(rows_of(2), 3)
    assert ids.tolist() == [[-1] * 3] * 2
    assert (scores == -torch.inf).all()
    assert index.search(torch.empty(0, DIM), 3)[1].shape == (0, 3)
    assert index.ids().tolist() == []


def test_what_is_removed_is_not_found_and_may_come_back(make: Make) -> None:
    index, held = filled(make)
    gone = sorted(held)[::2]
    index.remove(gone)
    kept = {i: row for i, row in held.items() if i not in gone}
    assert (len(index), index.ids().tolist()) == (20, sorted(kept))
    agree(index, kept, rows_of(5, 2), 8)
    new = rows_of(len(gone), 3)
    index.add(gone, new)
    agree(index, kept | dict(zip(gone, new, strict=True)), rows_of(5, 2), 8)
    index.remove(index.ids())
    assert len(index) == 0
    assert index.search(rows_of(1), 1)[1].tolist() == [[-1]]


def test_only_what_is_allowed_is_found(make: Make) -> None:
    index, held = filled(make)
    for allowed in ([], [8], sorted(held)[:3], [5, 99999, 8], sorted(held)):
        agree(index, held, rows_of(4, 4), 5, allowed)
    index.remove([5])
    assert index.search(rows_of(1), 1, [5])[1].tolist() == [[-1]]


def test_vectors_are_given_back(make: Make) -> None:
    index, held = filled(make)
    ids = sorted(held)[::-3]
    want = functional.normalize(torch.stack([held[i] for i in ids]))
    torch.testing.assert_close(index.vectors(ids), want, rtol=0, atol=1e-6)
    assert index.vectors([]).shape == (0, DIM)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda x: x.add([5], rows_of(1)), r"id 5 is in the index already \(1 of 1 are\)"),
        (lambda x: x.add([1, 1], rows_of(2)), "id 1 is given twice"),
        (lambda x: x.add([-1], rows_of(1)), "ids must be 0 or more, not -1"),
        (lambda x: x.add([0.5], rows_of(1)), r"ids must be whole numbers of shape \(n,\), not torch.float32"),
        (lambda x: x.add([1, 2], rows_of(1)), "2 ids do not name 1 vectors"),
        (lambda x: x.add([1], rows_of(1, dim=7)), r"vectors must have shape \(n, 8\), not \(1, 7\)"),
        (
            lambda x: x.add([0, 1], torch.full((2, DIM), torch.nan)),
            "row 0 of the vectors holds NaN or an infinite value",
        ),
        (lambda x: x.search(torch.full((1, DIM), torch.inf), 1), "row 0 of the queries holds NaN or an infinite value"),
        (lambda x: x.search(rows_of(1, dim=9), 1), r"queries must have shape \(n, 8\), not \(1, 9\)"),
        (lambda x: x.search(rows_of(1), 0), "k must be 1 neighbour or more, not 0"),
        (lambda x: x.search(rows_of(1), 1, [-3]), "allowed must be 0 or more, not -3"),
        (lambda x: x.remove([5, 6]), r"there is no id 6 in the index \(1 of 2 are not\)"),
        (lambda x: x.vectors([6]), "there is no id 6 in the index"),
        (lambda x: x.add([1], rows_of(1), space="there"), "vectors of the encoder here, and these are of there"),
        (lambda x: x.search(rows_of(1), 1, space=""), "and these are of an unknown one"),
    ],
)
def test_invalid_input_is_refused_and_changes_nothing(make: Make, act: Callable, message: str) -> None:
    index, held = filled(make)
    with pytest.raises(MetarepError, match=message):
        act(index)
    assert index.ids().tolist() == sorted(held)
    agree(index, held, rows_of(2, 5), 5)


def test_another_encoders_vectors_are_refused(make: Make) -> None:
    index = make(space="a")
    index.add([1], rows_of(1), space="a")
    index.search(rows_of(1), 1, space="a")
    with pytest.raises(SpaceError, match="use the encoder it was built with"):
        index.add([2], rows_of(1), space="b")


def test_a_dimension_is_a_positive_integer() -> None:
    with pytest.raises(MetarepError, match="dim=0 is not a number of dimensions; give a whole number from 1"):
        build_index("exact", 0)
    with pytest.raises(MetarepError, match="unknown index 'exct'; did you mean 'exact'"):
        build_index("exct", 3)
    with pytest.raises(MetarepError, match="unknown setting of exact 'devise'; did you mean 'device'"):
        build_index("exact", 3, devise="cpu")


STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "remove", "search"]), st.integers(0, 2**20), st.integers(1, 12)),
    min_size=1,
    max_size=12,
)


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_any_sequence_leaves_what_a_dictionary_holds(make: Make, steps: list[tuple[str, int, int]]) -> None:
    index, held = make(), {}
    index.remove(index.ids())  # a server's table outlives the index that made it
    for step, seed, n in steps:
        g = Generator().manual_seed(seed)
        if step == "add":
            ids = [i for i in torch.randperm(30, generator=g)[:n].tolist() if i not in held]
            rows = torch.randn(len(ids), DIM, generator=g)
            index.add(ids, rows)
            held |= dict(zip(ids, rows, strict=True))
        elif step == "remove":
            gone = [i for i in torch.randperm(30, generator=g)[:n].tolist() if i in held]
            index.remove(gone)
            held = {i: row for i, row in held.items() if i not in gone}
        else:
            allowed = None if seed % 2 else torch.randperm(30, generator=g)[:n].tolist()
            agree(index, held, torch.randn(2, DIM, generator=g), n, allowed)
        assert len(index) == len(held)
    assert index.ids().tolist() == sorted(held)
    agree(index, held, rows_of(2, 9), 5)


@pytest.mark.slow
def test_a_filter_keeps_its_recall(make: Make) -> None:
    """Two percent allowed: where an approximate graph would lose half of what there is."""
    index, rows = make(dim=16), clustered(1000, 16)
    index.add(torch.arange(1000), rows)
    allowed = torch.randperm(1000, generator=Generator().manual_seed(1))[:20]
    queries = clustered(50, 16, seed=1)
    _, ids = index.search(queries, 10, allowed)
    assert bool(torch.isin(ids, allowed).all())
    unit = functional.normalize(rows[allowed])
    want = allowed[(functional.normalize(queries) @ unit.T).topk(10).indices]
    overlap = sum(len(set(a) & set(b)) for a, b in zip(ids.tolist(), want.tolist(), strict=True)) / 500
    assert overlap >= 0.99


def clustered(n: int, dim: int, seed: int = 0) -> Tensor:
    """Points about centres of their own; the centres are the same for every seed."""
    g = Generator().manual_seed(seed)
    centres = torch.randn(20, dim, generator=Generator().manual_seed(99))
    return centres[torch.randint(20, (n,), generator=g)] + 0.5 * torch.randn(n, dim, generator=g)


def test_what_is_saved_is_loaded(make: Make, tmp_path: Path) -> None:
    index, held = filled(make)
    index.remove(sorted(held)[:4])
    held = {i: held[i] for i in sorted(held)[4:]}
    before = index.search(rows_of(5, 6), 9)
    index.save(tmp_path / "an.index")
    index.close()
    again = Index.load(tmp_path / "an.index")
    assert (type(again), again.dim, again.space, len(again)) == (type(index), DIM, "here", 36)
    after = again.search(rows_of(5, 6), 9)
    assert torch.equal(after[1], before[1])
    torch.testing.assert_close(after[0], before[0])
    again.add([0], rows_of(1, 7))
    agree(again, held | {0: rows_of(1, 7)[0]}, rows_of(5, 6), 9)
    with pytest.raises(SpaceError):
        again.search(rows_of(1), 1, space="there")
    again.close()


def test_an_empty_index_is_saved_too(make: Make, tmp_path: Path) -> None:
    index = make()
    index.save(tmp_path / "an.index")
    index.close()
    again = Index.load(tmp_path / "an.index")
    assert len(again) == 0
    again.close()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    index = build_index("exact", DIM)
    index.add([1], rows_of(1))
    index.save(tmp_path / "x")
    content = (tmp_path / "x").read_bytes()
    for cut in (0, 9, len(content) // 2, len(content) - 1):
        (tmp_path / "x").write_bytes(content[:cut])
        with pytest.raises(MetarepError, match="x is damaged or was not written by metarep"):
            Index.load(tmp_path / "x")
    (tmp_path / "x").write_bytes(content.replace(b'\\"n\\": 1', b'\\"n\\": 2'))
    with pytest.raises(MetarepError, match="1 vectors instead of 2"):
        Index.load(tmp_path / "x")
    with pytest.raises(MetarepError, match="there is no file"):
        Index.load(tmp_path / "y")


def _save_for_ever(path: str) -> None:
    index = ExactIndex(64, "here")
    index.add(torch.arange(9000), torch.ones(9000, 64))
    while True:
        index.save(path)


def test_a_process_killed_while_saving_leaves_the_old_index(tmp_path: Path) -> None:
    path = tmp_path / "an.index"
    context = multiprocessing.get_context("fork")
    for pause in (0.0, 0.004):
        first = ExactIndex(64, "here")
        first.add([7], torch.ones(1, 64))
        first.save(path)
        process = context.Process(target=_save_for_ever, args=(str(path),))
        process.start()
        partial = path.with_name(path.name + ".part")
        deadline = time.monotonic() + 30
        while not partial.exists() and time.monotonic() < deadline:
            time.sleep(0.0005)
        time.sleep(pause)
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        assert len(Index.load(path)) in (1, 9000)


@pytest.mark.slow
def test_a_million_vectors_would_fit() -> None:
    """Bytes a vector, from what the index holds for 300,000; the benchmark measures the million."""
    index = ExactIndex(64)
    index.add(torch.arange(300_000), torch.ones(300_000, 64))
    held = sum(block.nbytes for block in index.blocks) + index.row_ids.nbytes
    held += sum(ids.nbytes + rows.nbytes for ids, rows in index.rows.runs)
    assert held / 300_000 * 1e6 < 300 * 2**20


def test_many_blocks_are_one_index() -> None:
    """Blocks of 128 rows: growth, search and removal go across their borders."""
    index = ExactIndex(4)
    index.size = 128
    rows = rows_of(1000, dim=4)
    for part in torch.arange(1000).split(77):
        index.add(part, rows[part])
    gone = torch.randperm(1000, generator=Generator().manual_seed(0))[:700]
    for part in gone.split(111):
        index.remove(part)
    kept = torch.tensor(sorted(set(range(1000)) - set(gone.tolist())))
    assert len(index.blocks) == 3
    torch.testing.assert_close(index.vectors(kept), functional.normalize(rows[kept]))
    want = functional.normalize(rows_of(9, 1, 4)) @ functional.normalize(rows[kept]).T
    scores, ids = index.search(rows_of(9, 1, 4), 6)
    torch.testing.assert_close(scores, want.topk(6).values)
    assert torch.equal(ids, kept[want.topk(6).indices])


@pytest.mark.parametrize("n", [1, 63, 64, 700, 6400, 6437])
def test_the_best_of_strips_is_the_best_of_all(n: int) -> None:
    rows, queries = rows_of(n, dim=5), rows_of(3, 1, 5)
    rows[n // 2 :] = rows[: n - n // 2].clone()  # ties, within strips and across them
    want = (queries @ rows.T).topk(min(n, 11))
    scores, places = nearest(queries, iter(rows.split(2500)), min(n, 11))
    torch.testing.assert_close(scores, want.values)
    torch.testing.assert_close((queries @ rows.T).gather(1, places), want.values)
    assert all(len(set(row)) == len(row) for row in places.tolist())
