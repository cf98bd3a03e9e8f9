"""Drawings of eight kinds, in folders."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight kinds of ten drawings: strokes that are moved and thickened."""
    root = tmp_path_factory.mktemp("drawings") / "photos"
    g = np.random.default_rng(0)
    for kind in range(8):
        (root / f"kind {kind}").mkdir(parents=True)
        pattern = g.random((7, 7)) < 0.4
        for number in range(10):
            pixels = np.full((28, 28), 255, np.uint8)
            down, right = 1 + number % 4, 1 + 2 * (number // 4)
            pixels[down : down + 21, right : right + 21][np.kron(pattern, np.ones((3, 3))) > 0] = 0
            Image.fromarray(pixels).save(root / f"kind {kind}" / f"{number}.png")
    return root


@pytest.fixture
def photos(drawn: Path, tmp_path: Path) -> Path:
    shutil.copytree(drawn, tmp_path / "photos")
    return tmp_path / "photos"
