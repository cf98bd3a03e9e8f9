"""Rows of an index by C code: what is not copied, and what is left to the plain way."""

import numpy as np
import pytest
import torch

from metarep.fast import c
from metarep.fast.rows import LINE, empty_at_a_line, rows_to_ids, unit_rows

pytestmark = pytest.mark.skipif(c.library() is None, reason="needs the C code")


def test_rows_of_length_1_at_a_cache_line_are_not_copied_and_never_changed() -> None:
    rows = empty_at_a_line((5, 8))
    rows[:] = np.eye(8, dtype=np.float32)[:5]
    assert unit_rows(rows) is rows
    rows[2, 2] = 1.001  # a thousandth off is off
    scaled = unit_rows(rows)
    assert scaled is not None
    assert scaled is not rows
    assert rows[2, 2] == np.float32(1.001)
    assert scaled[2, 2] == pytest.approx(1, abs=1e-6)


def test_rows_begin_at_a_cache_line_and_what_is_not_finite_is_left() -> None:
    rows = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    scaled = unit_rows(rows)
    assert scaled is not None
    assert scaled.ctypes.data % LINE == 0
    np.testing.assert_allclose(scaled, rows / np.linalg.norm(rows, axis=1, keepdims=True), atol=1e-6)
    rows[1, 1] = np.nan
    assert unit_rows(rows) is None


def test_rows_become_ids_in_place() -> None:
    rows, scores = torch.tensor([[1, -1]]), torch.tensor([[0.5, -3e38]])
    assert rows_to_ids(np.array([7, 9]), rows, scores)
    assert rows.tolist() == [[9, -1]]
    assert scores.tolist() == [[0.5, -torch.inf]]
