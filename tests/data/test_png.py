"""PNG files that Pillow reads as what was written."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metarep.data.drawing.png import write_png


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 1), (84, 84), (3, 2000)])
def test_what_is_written_is_read(shape: tuple[int, int], channels: int, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*shape, channels), dtype=np.uint8)
    for pixels in (noise, noise.transpose(1, 0, 2), np.full_like(noise, 255)):
        write_png(tmp_path / "picture.png", pixels)
        with Image.open(tmp_path / "picture.png") as picture:
            picture.verify()  # the checksums
        with Image.open(tmp_path / "picture.png") as picture:
            assert picture.mode == ("L", "LA", "RGB", "RGBA")[channels - 1]
            np.testing.assert_array_equal(np.asarray(picture).reshape(pixels.shape), pixels)


def test_smooth_pictures_are_packed(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.arange(160, dtype=np.uint8)[:, None], (160, 160, 3))
    write_png(tmp_path / "ramp.png", ramp)
    assert (tmp_path / "ramp.png").stat().st_size < ramp.size / 20
