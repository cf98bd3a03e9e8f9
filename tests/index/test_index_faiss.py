"""FaissIndex beyond the contract: lists that learn, tombstones, filters, and what recall is left."""

from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Generator, Tensor
from torch.nn import functional

from metarep.errors import MetarepError
from metarep.index import ExactIndex, Index, build_index
from metarep.index import faiss as ours

faiss = pytest.importorskip("faiss", reason="needs metarep[ann]")
N, DIM = 3000, 16
KINDS = ["flat", "hnsw", "ivf", "sq8", "pq"]
LEAST = {"flat": 1.0, "hnsw": 0.99, "ivf": 0.99, "sq8": 0.95, "pq": 0.5}


@pytest.fixture(autouse=True)
def lists_learn_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours, "TRAINED_AT", 1000)
    monkeypatch.setattr(ours, "FEW", 200)
    faiss.omp_set_num_threads(1)


def clustered(n: int, seed: int) -> Tensor:
    g = Generator().manual_seed(seed)
    centres = torch.randn(100, DIM, generator=Generator().manual_seed(99))
    return centres[torch.randint(100, (n,), generator=g)] + 0.3 * torch.randn(n, DIM, generator=g)


def build(kind: str, **more: Any) -> Any:
    return build_index("faiss", DIM, kind=kind, **more)


def recall(index: Index, exact: Index, allowed: Tensor | None = None) -> float:
    queries = clustered(100, 7)
    got, want = index.search(queries, 10, allowed)[1].tolist(), exact.search(queries, 10, allowed)[1].tolist()
    return sum(len(set(a) & set(b)) for a, b in zip(got, want, strict=True)) / 1000


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_recall_after_growth_removal_and_loading(kind: str, tmp_path: Any) -> None:
    index, exact = build(kind), ExactIndex(DIM)
    rows = clustered(N, 0)
    for part in torch.arange(N).split(500):  # ivf learns at 1,000
        index.add(part, rows[part])
        exact.add(part, rows[part])
    assert recall(index, exact) >= LEAST[kind]
    gone = torch.randperm(N, generator=Generator().manual_seed(1))
    for part in gone[:2000].split(250):  # sweeps happen on the way
        index.remove(part)
        exact.remove(part)
        assert not np.isin(index.search(clustered(20, 3), 10)[1].numpy(), gone[: N - len(index)]).any()
    assert index.inner.ntotal < 1300
    assert recall(index, exact) >= LEAST[kind]
    assert torch.equal(index.ids(), exact.ids())
    index.remove(gone[2000:2050])
    exact.remove(gone[2000:2050])
    index.save(tmp_path / "x")
    again = Index.load(tmp_path / "x")
    assert torch.equal(again.search(clustered(20, 3), 10)[1], index.search(clustered(20, 3), 10)[1])
    again.add(gone[:300], rows[gone[:300]])
    exact.add(gone[:300], rows[gone[:300]])
    assert recall(again, exact) >= LEAST[kind]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "share", [0.02, pytest.param(0.1, marks=pytest.mark.slow), pytest.param(0.5, marks=pytest.mark.slow), 0.9]
)
def test_a_filter_keeps_its_recall_at_every_share(kind: str, share: float) -> None:
    index, exact = build(kind), ExactIndex(DIM)
    rows = clustered(N, 0)
    index.add(torch.arange(N), rows)
    exact.add(torch.arange(N), rows)
    index.remove(torch.arange(0, N, 11))
    exact.remove(torch.arange(0, N, 11))
    allowed = torch.randperm(N, generator=Generator().manual_seed(1))[: int(share * N)]
    found = index.search(clustered(50, 3), 10, allowed)[1]
    assert bool((torch.isin(found, allowed) & (found % 11 != 0)).all())
    assert recall(index, exact, allowed) >= LEAST[kind]


def test_a_graph_without_our_detour_loses_what_a_filter_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason for the detour, as long as it is one."""
    index, exact = build("hnsw", search_width=10), ExactIndex(DIM)
    index.add(torch.arange(N), clustered(N, 0))
    exact.add(torch.arange(N), clustered(N, 0))
    allowed = torch.randperm(N, generator=Generator().manual_seed(1))[:60]
    assert recall(index, exact, allowed) == 1
    monkeypatch.setattr(ours, "FEW", 0)
    monkeypatch.setattr(ours, "KEEP", 0)
    assert recall(index, exact, allowed) < 0.9


def test_lists_learn_again_as_the_index_grows() -> None:
    index = build("ivf")
    rows = clustered(9000, 0)
    index.add(torch.arange(900), rows[:900])
    assert index.learned_at == 0
    index.add(torch.arange(900, 1200), rows[900:1200])
    first = index.inner.nlist
    assert index.learned_at == 1200
    index.add(torch.arange(1200, 4700), rows[1200:4700])
    assert index.learned_at == 1200
    index.add(torch.arange(4700, 9000), rows[4700:])
    assert index.learned_at == 9000
    assert index.inner.nlist > first
    unit = functional.normalize(rows)
    torch.testing.assert_close(index.vectors([5, 4000, 8999]), unit[[5, 4000, 8999]], rtol=0, atol=1e-6)


def test_compressed_rows_survive_a_sweep() -> None:
    """What is decoded and encoded again hardly moves: a few rows come to another list."""
    for kind in ("sq8", "pq"):
        index = build(kind)
        index.add(torch.arange(2000), clustered(2000, 0))
        before = index.vectors(torch.arange(1000))
        index.remove(torch.arange(1000, 2000))
        assert index.inner.ntotal == 1000
        moved = (index.vectors(torch.arange(1000)) - before).norm(dim=1) > 1e-3
        assert moved.float().mean() < 0.05


def test_settings_are_checked() -> None:
    for settings, message in (
        ({"kind": "hnws"}, "(?s)hnws.*flat.*hnsw.*ivf.*sq8.*pq"),
        ({"links": 1}, "links must be a number above 1"),
        ({"efSearch": 3}, "unknown setting of faiss 'efSearch'"),
    ):
        with pytest.raises((MetarepError, TypeCheckError), match=message):
            build_index("faiss", DIM, **settings)


def test_a_graph_that_was_tampered_with_is_refused(tmp_path: Any) -> None:
    index = build("hnsw")
    index.add(torch.arange(50), clustered(50, 0))
    index.save(tmp_path / "x")
    content = bytearray((tmp_path / "x").read_bytes())
    content[-200] ^= 1
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(MetarepError, match="x is damaged"):
        Index.load(tmp_path / "x")
