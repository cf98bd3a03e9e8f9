"""Batch-all triplets against the mask over all triplets, which needs memory for n**3 values."""

import pytest
import torch
from torch import Generator, Tensor
from torch.nn import functional

from metarep.errors import MetarepError
from metarep.learners.distances import distances
from metarep.methods import batch_all
from metarep.methods.losses import triplet_loss
from metarep.methods.pairs import mean_where, same_class

UNEVEN = torch.tensor([5, 1, 9, 2, 30, 1, 4]).repeat_interleave(torch.tensor([3, 1, 7, 2, 25, 1, 2]))


def over_all_triplets(x: Tensor, labels: Tensor, margin: float | None) -> tuple[Tensor, Tensor]:
    positive, negative = same_class(labels)
    gap = distances(x, x)
    apart = gap.unsqueeze(2) - gap.unsqueeze(1)  # anchor positive negative
    value = functional.softplus(apart) if margin is None else (apart + margin).clamp_min(0)
    triplet = positive.unsqueeze(2) & negative.unsqueeze(1)
    active = triplet & (value > 1e-7)
    return mean_where(value, active), active.sum() / triplet.sum()


@pytest.mark.parametrize("margin", [0.0, 0.2, 3.0, None])
@pytest.mark.parametrize("numbers", [1, 90, 2**16], ids=["a row a block", "two rows", "one block"])
def test_value_and_gradient_are_those_of_the_mask(
    margin: float | None, numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(batch_all.NUMBERS, "cpu", numbers)
    g = Generator().manual_seed(0)
    labels = UNEVEN[torch.randperm(len(UNEVEN), generator=g)]
    x = torch.randn(len(labels), 5, generator=g, dtype=torch.float64, requires_grad=True)
    loss, share = triplet_loss(x, labels, margin=margin, mining="batch-all", squared=False)
    want, wanted = over_all_triplets(x, labels, margin)
    torch.testing.assert_close(loss, want, rtol=1e-12, atol=0)
    assert share.item() == pytest.approx(wanted.item(), rel=1e-6)
    assert margin is None or 0 < share < 1, "some triplets should have no loss"
    (got,), (slope,) = torch.autograd.grad(3 * loss, x), torch.autograd.grad(3 * want, x)
    torch.testing.assert_close(got, slope, rtol=1e-11, atol=1e-13)


def test_nothing_with_a_value_for_every_triplet_is_made() -> None:
    """512 images make 3 million triplets; 512**2 is a quarter of a million."""
    labels = torch.arange(512) // 8
    x = torch.randn(512, 8, generator=Generator().manual_seed(0), requires_grad=True)
    with torch.profiler.profile(profile_memory=True) as profile:
        triplet_loss(x, labels, margin=0.2, mining="batch-all", squared=False)[0].backward()
    assert max(event.self_cpu_memory_usage for event in profile.events()) < 9 * 512**2, "a float64 matrix at most"


def test_second_derivatives() -> None:
    """With a margin they are those of the distances; with the soft one there is an error, and not a wrong number."""
    x = torch.randn(8, 2, generator=Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    labels = torch.arange(8) // 2
    assert torch.autograd.gradgradcheck(
        lambda rows: triplet_loss(rows, labels, margin=1.0, mining="batch-all", squared=True)[0], x
    )
    soft, _ = triplet_loss(x, labels, margin=None, mining="batch-all", squared=True)
    with pytest.raises(MetarepError, match="soft margin have no second derivative here; set a margin"):
        torch.autograd.grad(soft, x, create_graph=True)


def test_half_precision_counts_in_float32() -> None:
    x = torch.randn(64, 8, generator=Generator().manual_seed(0), dtype=torch.bfloat16)
    loss, _ = triplet_loss(x, torch.arange(64) // 16, margin=0.2, mining="batch-all", squared=True)
    want, _ = triplet_loss(x.float(), torch.arange(64) // 16, margin=0.2, mining="batch-all", squared=True)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(want.item(), rel=0.01)
