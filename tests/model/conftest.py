"""Printed letters, as arrays and as folders of images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metarep.data.datasets import load_dataset

WAYS, SHOTS = 6, 4


@pytest.fixture(scope="session")
def letters() -> tuple[np.ndarray, list[str]]:
    """Printed letters of a script: twelve images of each of eight."""
    split = load_dataset("glyphs", "test")
    rows = [split.labels.rows[start : start + 12] for start in split.labels.starts[: WAYS + 2].tolist()]
    names = [name.split("/")[-1] for name in split.labels.names[: WAYS + 2] for _ in range(12)]
    return split.bank.pixels(torch.cat(rows)).numpy(), names


@pytest.fixture(scope="session")
def photos(letters: tuple[np.ndarray, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``fit/CLASS/IMAGE.png`` for six classes, ``query/`` with other images of them, ``other/`` of two more."""
    root = tmp_path_factory.mktemp("photos")
    images, names = letters
    for place, (image, name) in enumerate(zip(images, names, strict=True)):
        known, number = place < 12 * WAYS, place % 12
        part = "other" if not known else "fit" if number < SHOTS else "query"
        folder = root / part / f"c{names.index(name) // 12}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0]).save(folder / f"{number}.png")
    return root
