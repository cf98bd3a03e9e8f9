"""Sampling by C code: where it is taken, and on threads."""

import shutil

import pytest
import torch
from torch import Generator, Tensor

from metarep.data.augment import Augment
from metarep.fast import c, sampling
from metarep.fast.sampling import sample_compiled

WILD = Augment(rotate=180, scale=(0.2, 4.0), shear=40, shift=0.6, crop=(0.1, 1.0), ratio=(0.3, 3.0), flip=0.5)


@pytest.fixture(autouse=True)
def _library() -> None:
    if c.library() is None:
        assert shutil.which("cc") is None, "there is a C compiler, and yet sampling.c was not built"
        pytest.skip("no C compiler when the package was installed")


def some(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    generator = Generator().manual_seed(0)
    x = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
    return x, WILD.matrices(len(x), generator, shape[3] / shape[2])


def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, matrix = some((37, 3, 20, 20))
    whole = sample_compiled(x, matrix)
    assert whole is not None
    monkeypatch.setattr(sampling, "WORTH_A_THREAD", 1)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        parts = sample_compiled(x, matrix)
        assert parts is not None
        assert torch.equal(parts, whole)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("shape", [(2, 1, 1, 9), (2, 1, 9, 1), (2, 1, 2, 1025)])
def test_sides_that_the_c_code_cannot_take_are_left(shape: tuple[int, ...]) -> None:
    assert sample_compiled(*some(shape)) is None
    assert sample_compiled(*some((2, 1, 9, 9))) is not None


def test_floats_are_left() -> None:
    x, matrix = some((2, 1, 9, 9))
    assert sample_compiled(x.float(), matrix) is None
