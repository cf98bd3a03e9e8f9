"""A data set called ``tiny``: blobs, of 8 training, 5 validation and 6 test classes with 12 images each."""

import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from metarep.data import datasets
from metarep.data.images import ImageBank
from metarep.data.labels import Labels
from metarep.data.split import Split

HOSTILE = "<script>alert('x')</script> & \"co\""
CLASSES = {"train": 8, "val": 5, "test": 6}


def load(argument, split, options):
    """Classes are blobs at places of their own; twelve images each. One class has a name that would break a page."""
    start = {"train": 0, "val": 100, "test": 200}[split]
    generator = np.random.default_rng(start)
    images, values = [], []
    for row in range(CLASSES[split]):
        ink = generator.uniform(0, 1, (16, 16)) < 0.25
        for _ in range(12):
            noisy = np.where(generator.uniform(0, 1, (16, 16)) < 0.7, ink, ~ink)
            noisy[[0, -1]] = noisy[:, [0, -1]] = False  # a light border: drawings
            images.append(np.where(noisy, 0, 255).astype(np.uint8))
        values += [f"kind/{HOSTILE if row == 1 else 'letter'} {start + row}"] * 12
    return Split(ImageBank.from_arrays(np.stack(images)), Labels.of(values, "tiny"), f"tiny/{split}")


@contextmanager
def tiny_data() -> Iterator[None]:
    """A context in which ``metarep.data.datasets.load_dataset`` knows it."""
    module = types.ModuleType("tiny_data")
    module.load, module.ABOUT = load, f"blobs; {HOSTILE}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tiny_data", module)
        patch.setitem(datasets.DATASETS, "tiny", "tiny_data")
        yield
