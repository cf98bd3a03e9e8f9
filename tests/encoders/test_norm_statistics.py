"""Mixed statistics of batch norms: what each norm then has is what its own input is like."""

import copy

import pytest
import torch
from torch import Tensor

from metarep import Preprocess, build_encoder
from metarep.encoders import Encoder
from metarep.encoders.norm_statistics import batch_norms, mix_statistics

SHARE = 0.3


def encoder(name: str = "conv4") -> Encoder:
    """With running statistics that are not those of any batch."""
    torch.manual_seed(0)
    made = build_encoder(name, Preprocess((16, 16), 1, (0.5,), (0.5,)), width=8).eval()
    for norm in batch_norms(made):
        torch.nn.init.normal_(norm.running_mean)
        torch.nn.init.uniform_(norm.running_var, 0.5, 2)
    return made


def pictures(number: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (number, 1, 16, 16), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("name", ["conv4", "resnet12"])
def test_a_norm_has_its_part_of_what_its_input_is_like_when_all_norms_are_mixed(name: str) -> None:
    """To measure the layers behind a norm under statistics of the batch alone, as training does, would not fit."""
    before, images, seen = encoder(name), pictures(20), list[Tensor]()
    mixed = copy.deepcopy(before)
    mix_statistics(mixed, images, SHARE)
    for norm in batch_norms(mixed):
        norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].double()))
    with torch.no_grad():
        mixed(images)
    assert len(seen) == len(batch_norms(mixed)) > 3
    for own, norm, x in zip(batch_norms(before), batch_norms(mixed), seen, strict=True):
        variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
        for found, start, new in (
            (norm.running_mean, own.running_mean, mean),
            (norm.running_var, own.running_var, variance),
        ):
            assert found is not None
            assert start is not None
            torch.testing.assert_close(found.double(), (1 - SHARE) * start + SHARE * new, rtol=1e-4, atol=1e-5)


def test_parts_together_have_the_statistics_of_all_images() -> None:
    """Of the first norm, whose input no other norm changes."""
    made, images = encoder(), pictures(96)
    x = made.body[0][0](made.preprocess(images)).double()
    mix_statistics(made, images, 1.0)
    first = batch_norms(made)[0]
    torch.testing.assert_close(first.running_mean.double(), x.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(first.running_var.double(), x.var((0, 2, 3), correction=0), rtol=1e-4, atol=1e-5)


def test_a_share_of_nothing_changes_nothing() -> None:
    made, images = encoder(), pictures(40)
    before = made(images)
    mix_statistics(made, images, 0.0)
    assert torch.equal(made(images), before)
