"""Low-rank updates: the start is the plain encoder, merging changes nothing, and only the factors learn."""

import pytest
import torch
from torch import nn

from metarep.encoders import Preprocess, build_encoder
from metarep.encoders.halves import Halves
from metarep.encoders.low_rank import LowRank, add_low_rank, merge_low_rank
from metarep.errors import MetarepError

PHOTO, GREY = Preprocess((32, 32), 3, (0.5,) * 3, (0.5,) * 3), Preprocess((28, 28), 1, (0.0,), (1.0,))
BODIES = [
    ("conv4", GREY, {}),
    ("resnet12", PHOTO, {"width": 8}),
    ("efficientnet-lite", PHOTO, {"mirror": True}),
    ("vit-tiny", GREY, {}),
]


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return ((one - other).norm() / other.norm()).item()


@pytest.mark.parametrize(("name", "preprocess", "settings"), BODIES, ids=[name for name, _, _ in BODIES])
def test_updates_start_at_nothing_and_merge_into_the_same_features(
    name: str, preprocess: Preprocess, settings: dict
) -> None:
    torch.manual_seed(0)
    encoder = build_encoder(name, preprocess, **settings).eval()
    images = torch.randint(0, 256, (3, preprocess.channels, *preprocess.size), dtype=torch.uint8)
    with torch.no_grad():
        plain, names = encoder(images), list(encoder.body.state_dict())
        weights = {key: value.clone() for key, value in encoder.body.state_dict().items()}
        added = add_low_rank(encoder.body, 4)
        assert apart(encoder(images), plain) < 1e-5, "a fused pass rounds otherwise"
        for factor in added:
            factor.add_(0.02 * torch.randn_like(factor))
        moved = encoder(images)
        assert apart(moved, plain) > 1e-2
        merge_low_rank(encoder.body)
        assert apart(encoder(images), moved) < 1e-5
    assert sorted(encoder.body.state_dict()) == sorted(names)
    changed = {key for key, value in encoder.body.state_dict().items() if not value.equal(weights[key])}
    assert len(changed) == len(added) // 2
    build_encoder(name, preprocess, **settings).body.load_state_dict(encoder.body.state_dict())


@pytest.mark.parametrize(("name", "preprocess", "settings"), BODIES, ids=[name for name, _, _ in BODIES])
def test_a_trunk_and_its_tail_are_the_encoder(name: str, preprocess: Preprocess, settings: dict) -> None:
    torch.manual_seed(0)
    encoder = build_encoder(name, preprocess, **settings).eval()
    images = torch.randint(0, 256, (3, preprocess.channels, *preprocess.size), dtype=torch.uint8)
    halves = Halves(encoder)
    with torch.no_grad():
        features = torch.stack([halves.tail(maps) for maps in halves.plain(images)]).mean(0)
        assert apart(features, encoder(images)) < 1e-5
    assert bool(len(halves.trunk)) == (name != "vit-tiny")


def test_the_update_is_scaled_by_alpha_over_rank() -> None:
    update = LowRank(torch.zeros(2, 3, 1, 1), 4, torch.Generator().manual_seed(0))
    with torch.no_grad():
        update.down.fill_(1.0)
        update.up.fill_(1.0)
    assert update(torch.zeros(2, 3, 1, 1)).flatten().tolist() == [16.0] * 6, "alpha / rank is 4, and the rank adds 4"


@pytest.mark.parametrize(
    ("body", "rank", "says"),
    [(nn.Linear(2, 2), 0, "from 1 to 1,024, not 0"), (nn.Flatten(), 8, "no linear layer or convolution")],
)
def test_what_cannot_be_updated_is_said(body: nn.Module, rank: int, says: str) -> None:
    with pytest.raises(MetarepError, match=says):
        add_low_rank(body, rank)
