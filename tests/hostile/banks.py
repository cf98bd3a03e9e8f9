"""Folders of prepared images that a stranger may send."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from hostile.settings import DEEP


def honest_bank(home: Path) -> Path:
    """The folder of a small cache, below ``home``; it holds three images."""
    open_bank(home / "cache", build=True)
    return _folder(home / "cache")


def open_bank(cache: Path, *, build: bool = False) -> object:
    """Map the images in a cache, and read one; a damaged folder is refused."""
    from metarep.data.datasets.cache import cached_images
    from metarep.errors import DataError

    def make() -> tuple[np.ndarray, dict]:
        if not build:
            raise DataError("the folder is damaged, so its images would be made anew")
        return np.arange(3 * 48, dtype=np.uint8).reshape(3, 3, 4, 4), {"names": ["a", "b"]}

    before = os.environ.get("METAREP_CACHE")
    os.environ["METAREP_CACHE"] = str(cache)
    try:
        images, _ = cached_images("x", make)
        return images[torch.tensor([0])]
    finally:
        if before is None:
            del os.environ["METAREP_CACHE"]
        else:
            os.environ["METAREP_CACHE"] = before


def spoiled(end: str, content: bytes | Callable[[bytes], bytes]) -> Callable[[Path], object]:
    """The change of the file in a cache whose name has this end."""

    def change(cache: Path) -> None:
        file = next(path for path in _folder(cache).iterdir() if path.name.endswith(end))
        file.write_bytes(content if isinstance(content, bytes) else content(file.read_bytes()))

    return change


def _folder(cache: Path) -> Path:
    return next(path for path in cache.iterdir() if path.is_dir() and not path.name.startswith("."))


BANKS: Mapping[str, Callable[[Path], object]] = {
    "a manifest that is deep": spoiled(".json", DEEP.encode()),
    "a manifest that is a list": spoiled(".json", b"[1]"),
    "a manifest that is not UTF-8": spoiled(".json", b"\xff"),
    "a manifest of a billion images": spoiled(".json", lambda text: text.replace(b"3", b"1000000000")),
    "a manifest of a number of 5,000 digits": spoiled(".json", lambda text: text.replace(b"3", b"9" * 5000)),
    "a manifest of no images": spoiled(".json", lambda text: text.replace(b"3", b"0")),
    "pixels that are a pickle": spoiled(".npy", b"\x80\x04N."),
    "pixels that claim a billion images": spoiled(".npy", lambda text: text.replace(b"(3, ", b"(10**9, ")),
    "pixels of another shape": spoiled(".npy", lambda text: text.replace(b"(3, 3, 4, 4)", b"(3, 4, 3, 4)")),
    "pixels of objects": spoiled(".npy", lambda text: text.replace(b"|u1", b"|O8")),
    "pixels that are cut off": spoiled(".npy", lambda text: text[:-1]),
    "no pixels": spoiled(".npy", b""),
}
