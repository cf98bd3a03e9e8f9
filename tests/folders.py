"""Folders of random pictures for tests."""

import os
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image


def put(path: Path, seed: int | None = None, colour: bool = True) -> Path:
    """A random picture at ``path``; equal seeds give equal pictures."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = zlib.crc32(os.fsencode(path)) if seed is None else seed
    shape = (20, 16, 3) if colour else (20, 16)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)).save(path)
    return path


def fill(root: Path, names: Iterable[str], images: int = 3, colour: bool = True) -> None:
    for number, name in enumerate(names):
        for image in range(images):
            put(root / name / f"{image}.png", 1000 * number + image, colour)
