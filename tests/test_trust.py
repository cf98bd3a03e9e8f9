"""Leave-one-out and what is calibrated by it."""

import json
import math

import pytest
import torch
from scipy.stats import binomtest
from torch import Generator, nn

from metarep.encoders import Encoder, Preprocess, build_encoder
from metarep.errors import MetarepError
from metarep.learners import LEARNERS, GradientDescent, Learner, Linear, Prototypes
from metarep.learners.learner import spread_groups
from metarep.trust import Trust, find_suspects, fit_scale, measure_trust, wilson


def features(dim: int) -> Encoder:
    return Encoder(nn.Flatten(), Preprocess((1, dim), 1, (0.0,), (1.0,)))


def draw(n: int, dim: int, ways: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = Generator().manual_seed(seed)
    labels = torch.arange(n) % ways
    centres = 2 * torch.rand(ways, dim, generator=generator, dtype=torch.float64)
    return centres[labels] + torch.randn(n, dim, generator=generator, dtype=torch.float64).abs(), labels


@pytest.mark.parametrize("name", LEARNERS)
def test_leaving_one_out_is_adapting_to_the_others(name: str) -> None:
    x, y = draw(14, 6, 4)
    learner = LEARNERS[name](features(6)).double().eval()
    with torch.no_grad():
        found = learner.leave_one_out(x, y, 4)
        for row in range(len(x)):
            others = torch.arange(len(x)) != row
            state = learner.adapt(x[others].unsqueeze(0), y[others].unsqueeze(0), 4)
            want = learner.logits(state, x[row].view(1, 1, -1))[0, 0]
            torch.testing.assert_close(found[row], want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "learner",
    [Prototypes(features(6)), Prototypes(features(6), "cosine"), Linear(features(6), "ridge", 0.5, power=0.5)],
)
def test_formulas_of_leaving_out_equal_the_loop(learner: Learner) -> None:
    x, y = draw(30, 6, 4)
    torch.testing.assert_close(learner.leave_one_out(x, y, 4), Learner.leave_one_out(learner, x, y, 4))


def test_many_are_left_out_in_groups_that_never_hold_a_whole_class() -> None:
    y = torch.tensor([0, 0, *[1] * 130, *[2] * 7, 0])
    groups = [rows for some in spread_groups(y, 50) for rows in some]
    assert len(groups) == 50
    assert torch.cat(groups).sort().values.tolist() == list(range(len(y)))
    for rows in groups:
        assert (y[rows].bincount(minlength=3) < y.bincount()).all()
    x, y = draw(120, 12, 4)
    learner = Linear(features(12)).double()
    found, alone = learner.leave_one_out(x, y, 4), torch.arange(120)[:, None] != torch.arange(120)
    each = torch.arange(120).expand(120, 120)[alone].view(120, 119)
    want = learner.logits(learner.adapt(x[each], y[each], 4), x.unsqueeze(1)).squeeze(1)
    assert (found - want).abs().mean() < 0.05 * want.abs().mean()


def test_scores_stay_fractions_where_rows_are_whole_numbers() -> None:
    """Learners that adapt the body keep the images themselves, in bytes."""
    y = torch.arange(9) % 3
    images = (60 * y.view(-1, 1, 1, 1) + torch.randint(60, (9, 1, 16, 16), generator=Generator().manual_seed(0))).byte()
    encoder = build_encoder("conv4", Preprocess((16, 16), 1, (0.5,), (0.25,)), width=4)
    learner = GradientDescent(encoder, ways=3, scope="all", steps=1).eval()
    with torch.no_grad():
        found = learner.leave_one_out(learner.prepare(images), y, 3)
        state = learner.adapt(learner.prepare(images[1:]).unsqueeze(0), y[1:].unsqueeze(0), 3)
        want = learner.logits(state, learner.prepare(images[:1]).unsqueeze(0))[0, 0]
    torch.testing.assert_close(found[0], want)


def test_with_a_centre_leaving_out_is_nearly_the_loop() -> None:
    x, y = draw(200, 12, 4)
    learner = Linear(features(12), "ridge", 0.5, power=0.5, centre=True)
    formula, loop = learner.leave_one_out(x, y, 4), Learner.leave_one_out(learner, x, y, 4)
    assert (formula - loop).abs().mean() < 0.02 * loop.abs().mean()
    assert (formula.argmax(-1) == loop.argmax(-1)).float().mean() > 0.98


def test_what_all_classes_share_says_nothing_after_centring() -> None:
    x, y = draw(12, 6, 3)
    learner = Linear(features(6), "ridge", centre=True, normalise=False)
    found = [learner.logits(learner.adapt(rows[None], y[None], 3), rows[None]) for rows in (x, x + 100)]
    torch.testing.assert_close(found[0], found[1])


def test_false_alarms_are_as_rare_as_said() -> None:
    """Over many draws the share of known images below the threshold is at most what was asked, and not much less."""
    shares = []
    for seed in range(200):
        generator = Generator().manual_seed(seed)
        scores, y = torch.randn(60, 5, generator=generator), torch.randint(5, (60,), generator=generator)
        trust = measure_trust(scores, y, 0.1)
        fresh = torch.randn(400, 5, generator=generator)
        shares.append((fresh.amax(-1) < trust.known).float().mean())
    mean, error = torch.stack(shares).mean(), torch.stack(shares).std() / len(shares) ** 0.5
    assert 0.1 - 1 / 61 - 4 * error < mean < 0.1 + 4 * error


def test_label_sets_hold_the_class_as_often_as_said() -> None:
    held = []
    for seed in range(200):
        generator = Generator().manual_seed(seed)
        y = torch.randint(5, (460,), generator=generator)
        scores = torch.randn(460, 5, generator=generator) + 2 * nn.functional.one_hot(y, 5)
        trust = measure_trust(scores[:60], y[:60], 0.1)
        own = (scores[60:] * trust.scale).softmax(-1).gather(1, y[60:, None])
        held.append((own >= trust.likely).float().mean())
    assert 0.88 < torch.stack(held).mean() < 0.93


def test_too_few_images_never_call_anything_unknown() -> None:
    trust = measure_trust(torch.eye(12), torch.arange(12), 0.05)  # 0.05 of 13 is no whole image
    assert trust.known == -math.inf
    assert trust.likely == 0
    few = measure_trust(torch.eye(4), torch.arange(4), 0.5)
    assert (few.accuracy, few.known, few.scale) == (100, -math.inf, 1)


def test_probabilities_are_how_often_they_are_right() -> None:
    generator = Generator().manual_seed(0)
    y = torch.randint(4, (4000,), generator=generator)
    scores = torch.randn(4000, 4, generator=generator) + 1.5 * nn.functional.one_hot(y, 4)
    scale = fit_scale(7 * scores, y)
    probability, guess = (scale * 7 * scores).softmax(-1).max(-1)
    for low, high in ((0.3, 0.5), (0.5, 0.7), (0.7, 0.9), (0.9, 1.0)):
        some = (probability >= low) & (probability < high)
        assert (guess[some] == y[some]).float().mean() == pytest.approx(probability[some].mean().item(), abs=0.05)


def test_an_image_in_the_wrong_class_is_found() -> None:
    x, y = draw(40, 6, 4)
    x = x + 6 * nn.functional.one_hot(y, 6)
    wrong = y.clone()
    wrong[5] = (y[5] + 1) % 4
    scores = Prototypes(features(6), "cosine").leave_one_out(x, wrong, 4)
    found = find_suspects(scores, wrong, 20.0, list(range(40)))
    assert [(each.row, each.likelier) for each in found] == [(5, int(y[5]))]


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, math.nan])
def test_a_share_is_a_share(share: float) -> None:
    with pytest.raises(MetarepError, match="above 0 and below 1"):
        measure_trust(torch.eye(20), torch.arange(20), share)


@pytest.mark.parametrize(("right", "tested"), [(0, 7), (3, 12), (60, 60), (499, 1000)])
def test_the_interval_is_wilsons(right: int, tested: int) -> None:
    bounds = binomtest(right, tested).proportion_ci(0.95, "wilson")
    assert wilson(right, tested) == pytest.approx((100 * bounds.low, 100 * bounds.high), abs=0.006)


def test_all_right_is_not_certainty() -> None:
    trust = measure_trust(5 * torch.eye(4), torch.arange(4))
    assert str(trust) == "100.0 % (51.0 to 100.0)"
    assert Trust.of_dict(json.loads(json.dumps(trust.as_dict()))) == trust
