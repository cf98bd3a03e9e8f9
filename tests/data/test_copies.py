"""Copies are found by what pictures look like, and are told from pictures that are only alike."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from thinning import few
from torch.nn import functional

from metarep.data.copies.near_copies import near_copies
from metarep.data.copies.near_pairs import linked
from metarep.data.copies.picture_hash import picture_hash
from metarep.data.copies.sketches import crossing_copies
from metarep.data.reading.decode import decode
from metarep.index import build_index
from metarep.search.duplicates import duplicates


def photograph(seed: int) -> Image.Image:
    """Coloured blobs of many sizes, as little alike as photographs are."""
    dice = np.random.default_rng(seed)
    layers = [
        dice.normal(0, 60 / step**0.5, (step, step * 4 // 3, 3)).astype(np.float32) for step in (3, 6, 12, 24, 48)
    ]
    scaled = [
        functional.interpolate(torch.from_numpy(each).permute(2, 0, 1)[None], (180, 240), mode="bicubic")[0]
        for each in layers
    ]
    whole = torch.stack(scaled).sum(0)
    return Image.fromarray((128 + whole.permute(1, 2, 0).numpy()).clip(0, 255).astype(np.uint8))


def saved(picture: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return file.getvalue()


MADE = {
    "saved again": lambda picture: saved(picture, 50),
    "half the size": lambda picture: saved(picture.resize((120, 90)), 90),
    "cut by 5 %": lambda picture: saved(picture.crop((6, 4, 234, 175)), 90),
    "mirrored": lambda picture: saved(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 90),
}


def hashes(pictures: list[bytes]) -> torch.Tensor:
    pixels = [decode(each, size=(84, 84), channels=3, name="x", stretch=4 / 3) for each in pictures]
    return picture_hash(torch.from_numpy(np.stack(pixels)))


@pytest.mark.slow
@pytest.mark.parametrize("how", MADE)
def test_copies_are_found_without_and_with_features(how: str) -> None:
    originals = [photograph(seed) for seed in range(12)]
    found = hashes([saved(each, 95) for each in originals] + [MADE[how](each) for each in originals])
    features = torch.eye(12).repeat(2, 1) + 0.1  # a photograph and its copy are alike to the encoder
    for given in (None, features):
        assert near_copies(given, found).tolist() == [*range(12), *range(12)]
    among_many = crossing_copies(lambda rows: found[torch.from_numpy(rows)], np.arange(24))
    assert among_many.tolist() == [*range(12), *range(12)]
    one_class = crossing_copies(lambda rows: found[torch.from_numpy(rows)], np.arange(24) % 12)
    assert one_class.tolist() == [*range(24)], "copies in one class are not looked for"


def test_what_is_only_alike_is_no_copy() -> None:
    """Features that are as near as those of one person's photographs make no copies."""
    features = functional.normalize(torch.ones(12, 64) + 0.1 * torch.randn(12, 64), dim=1)
    assert (features @ features.T).min() > 0.97
    assert near_copies(features).tolist() == [*range(12)]
    assert near_copies(features, hashes([saved(photograph(seed), 95) for seed in range(12)])).tolist() == [*range(12)]


def test_pictures_of_one_colour_are_compared_by_features() -> None:
    flat = torch.full((4, 3, 8, 8), 9, dtype=torch.uint8)
    features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.1, 1.0]])
    assert near_copies(features, picture_hash(flat)).tolist() == [0, 0, 1, 2]
    assert near_copies(None, picture_hash(flat)).tolist() == [0, 1, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize("dim", [6, 300])
@pytest.mark.parametrize("threshold", few([0.9, 0.2, 0.995], 1))
def test_groups_are_what_all_pairs_say(dim: int, threshold: float) -> None:
    """Of 2,500 vectors, some in clouds, some the same: by the bound where vectors are long."""
    dice = torch.Generator().manual_seed(0)
    centres = torch.randn(500, dim, generator=dice)
    spread = torch.rand(2000, 1, generator=dice) * torch.randn(2000, dim, generator=dice)
    rows = torch.cat([centres, centres[torch.randint(500, (2000,), generator=dice)] + 0.2 * spread.round(decimals=1)])
    rows = functional.normalize(rows, dim=1)
    near = rows @ rows.T >= threshold - 1e-6
    want = torch.arange(len(rows))
    for _ in range(100):
        lower = torch.where(near, want, len(rows)).amin(1)
        if torch.equal(lower, want):
            break
        want = lower
    assert linked(rows, threshold).of.tolist() == want.tolist()


@pytest.mark.slow
def test_many_that_are_all_alike_cost_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first few meet all others; what is known to be one group is not compared again."""
    rows = functional.normalize(torch.ones(20_000, 8) + 0.01 * torch.randn(20_000, 8), dim=1)
    products, mm = [], torch.mm

    def counted(one: torch.Tensor, other: torch.Tensor, **more: torch.Tensor) -> torch.Tensor:
        products.append(len(one) * other.shape[1])
        return mm(one, other, **more)

    monkeypatch.setattr(torch, "mm", counted)
    assert not linked(rows, 0.99).of.any()
    assert sum(products) <= 128 * len(rows)


def test_copies_and_look_alikes_are_told_apart(tmp_path: Path) -> None:
    pictures = [saved(photograph(1), 95), MADE["cut by 5 %"](photograph(1)), saved(photograph(2), 95), b"no picture"]
    paths = [tmp_path / f"{place}.jpg" for place in range(4)]
    for path, content in zip(paths, pictures, strict=True):
        path.write_bytes(content)
    index = build_index("exact", 2)
    index.add([3, 5, 7, 9], torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, 0.12], [0.0, 1.0]]))
    found = [(each.kind, each.ids) for each in duplicates(index, paths, 0.99)]
    assert found == [("copies", [3, 5]), ("look-alikes", [3, 5, 7])]
