"""LabelledIndex: Neighbours on an index are Neighbours on a batch, and grow."""

import pytest
import torch
from torch import Generator, nn

from metarep.encoders import Encoder, Preprocess
from metarep.errors import MetarepError
from metarep.index import build_index
from metarep.learners import LabelledIndex, Neighbours

DIM = 6


def learner(k: int = 1, **settings: object) -> Neighbours:
    return Neighbours(Encoder(nn.Flatten(), Preprocess((2, 3), 1, (0.0,), (1.0,))), k, **settings)  # type: ignore[arg-type]


def rows_of(n: int, seed: int = 0, dim: int = DIM) -> torch.Tensor:
    return torch.randn(n, dim, generator=Generator().manual_seed(seed))


def gallery(dim: int = DIM) -> LabelledIndex:
    return LabelledIndex(build_index("exact", dim))


@pytest.mark.parametrize("k", [1, 3, 20, 500])
def test_votes_are_those_of_the_batched_path(k: int) -> None:
    support, query = rows_of(20), rows_of(9, 1)
    labels = torch.arange(20) % 7
    kind, held = learner(k), gallery()
    held.add(support[:11], labels[:11])
    held.add(support[11:], labels[11:])
    want = kind.logits(kind.adapt(support.unsqueeze(0), labels.unsqueeze(0), 7), query.unsqueeze(0))
    torch.testing.assert_close(kind.logits(held, query.unsqueeze(0)), want, rtol=1e-4, atol=1e-4)
    scores, classes = kind.rank(held, query)
    for row in range(9):
        named = classes[row][classes[row] >= 0]
        assert len(named.unique()) == len(named)
        torch.testing.assert_close(scores[row, : len(named)], want[0, row, named], rtol=1e-4, atol=1e-4)
        assert (want[0, row].exp() > 1e-6).sum() <= len(named)
        assert bool((scores[row].diff() <= 0).all() | (scores[row] == -torch.inf).any())


def test_rows_and_classes_are_added_and_removed() -> None:
    kind, held = learner(), gallery()
    rows = rows_of(10)
    ids = held.add(rows, torch.arange(10))
    assert kind.logits(held, rows.unsqueeze(0)).argmax(-1).tolist() == [list(range(10))]
    held.remove(ids[3:4])
    assert held.forget(4) == 1
    held.add(rows[3:5], torch.tensor([99, 0]))
    assert (len(held), held.ways) == (10, 100)
    scores, classes = kind.rank(held, rows)
    assert classes[:, 0].tolist() == [0, 1, 2, 99, 0, 5, 6, 7, 8, 9]
    assert scores.exp().allclose(torch.ones(10, 1))
    assert held.forget(12345) == 0


def test_many_classes_are_ranked_in_one_call() -> None:
    rows = rows_of(50_000, dim=32)
    kind, held = learner(5), gallery(32)
    held.add(rows, torch.arange(50_000))
    near = rows[::1000] + 0.1 * rows_of(50, 1, 32)
    assert kind.rank(held, near)[1][:, 0].tolist() == list(range(0, 50_000, 1000))


def test_invalid_input_is_refused() -> None:
    held = gallery()
    for act, message in (
        (lambda: learner().logits(held, rows_of(1).unsqueeze(0)), "the gallery is empty"),
        (lambda: held.add(rows_of(1), torch.tensor([-1])), "class -1 is negative; classes are 0 or more"),
        (lambda: held.add(rows_of(2), torch.tensor([1])), "2 rows and 1 classes|parameter 'labels'"),
        (lambda: LabelledIndex(filled()), "starts from an empty index, not from one of 1 vectors"),
        (lambda: learner(metric="euclidean").rank(filled_gallery(), rows_of(1)), "searched by cosine"),
        (
            lambda: learner().logits(filled_gallery(), rows_of(2).unsqueeze(1)),
            "queries are of 2 tasks, and a gallery is one task",
        ),
    ):
        with pytest.raises(Exception, match=message) as error:
            act()
        assert isinstance(error.value, MetarepError) or "parameter" in str(error.value)


def filled():
    index = build_index("exact", DIM)
    index.add([0], rows_of(1))
    return index


def filled_gallery() -> LabelledIndex:
    held = gallery()
    held.add(rows_of(3), torch.arange(3))
    return held
