"""Images left out, each fold by a learner of the others; and the linear learners against their optimum."""

import pytest
import torch
from left_out import draw, features
from torch import Generator, nn

from metarep.encoders import Preprocess, build_encoder
from metarep.learners import INDUCTIVE, LEARNERS, GradientDescent, Learner, Linear, Neighbours, Prototypes
from metarep.learners.class_sizes import even_mean, shared_cosine
from metarep.learners.logistic import MANY_ROWS, NotSolvedWarning, logistic, orthogonal
from metarep.model.trust.folds import deal_folds, deal_to_one

ROWS = [name for name in INDUCTIVE if name != "augmented"]  # whose rows have an axis of views


@pytest.mark.parametrize("name", ROWS)
def test_a_fold_is_told_what_a_learner_of_the_others_says(name: str) -> None:
    x, y = draw(15, 6, 4)
    learner = LEARNERS[name](features(6)).double().eval()
    folds = [torch.tensor([0, 1, 2, 3]), torch.tensor([5]), torch.tensor([0, 4, 9])]
    with torch.no_grad():
        found = learner.held_out(x, y, 4, folds).split([len(fold) for fold in folds])
        for fold, scores in zip(folds, found, strict=True):
            stays = ~torch.isin(torch.arange(len(x)), fold)
            state = learner.adapt(x[stays].unsqueeze(0), y[stays].unsqueeze(0), 4)
            want = learner.logits(state, x[fold].unsqueeze(0))[0]
            torch.testing.assert_close(scores, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ROWS)
def test_a_class_of_one_image_is_no_obstacle(name: str) -> None:
    """It cannot be left out, so the other classes are, and it stays."""
    x, y = draw(9, 6, 4)  # the fourth class has two
    x, y = x[:-2], y[:-2]
    learner = LEARNERS[name](features(6)).double().eval()
    with torch.no_grad():
        found = learner.leave_one_out(x, y, 4)
        others = torch.arange(len(x)) != 0
        state = learner.adapt(x[others].unsqueeze(0), y[others].unsqueeze(0), 4)
        torch.testing.assert_close(found[0], learner.logits(state, x[:1].unsqueeze(0))[0, 0], rtol=1e-4, atol=1e-4)
    assert found.isfinite().all()


@pytest.mark.parametrize(
    "learner",
    [
        Prototypes(features(6)),
        Prototypes(features(6), "cosine"),
        Neighbours(features(6), k=3),
        Linear(features(6), "ridge", 0.5, power=0.5),
        Linear(features(6), "ridge", 1e-4, balance=True),
        Linear(features(6), strength=0.1, power=0.7),
        Linear(features(6), strength=0.1, power=0.7, centre=True, balance=True),
        Linear(features(6), strength=0.1, balance=True, level=True),
        Linear(features(6), "ridge", 0.5, level=True),
    ],
    ids=lambda learner: f"{learner.called}-{getattr(learner, 'solver', '')}",
)
def test_short_ways_of_leaving_out_equal_the_loop(learner: Learner) -> None:
    x, y = draw(130, 6, 4)
    y[:30] = 0
    folds = deal_folds(y, most=3)
    found, loop = learner.held_out(x, y, 4, folds), Learner.held_out(learner, x, y, 4, folds)
    if getattr(learner, "centre", False):  # it stays that of all images where there are many
        assert (found.argmax(-1) == loop.argmax(-1)).float().mean() > 0.97
    else:
        level = isinstance(learner, Linear) and learner.level  # what images of a class share stays that of all images
        torch.testing.assert_close(found, loop, rtol=0.03 if level else 0.01, atol=0.02 if level else 0.01)


def test_what_images_of_a_class_share_is_that_of_all_images_in_every_fold() -> None:
    """Also where a fold leaves one image of a class: the others do not count as images of another class."""
    x, y = draw(150, 6, 4)
    y[:60], (kept, out) = 1, deal_to_one(y, torch.arange(150), most=1)[0]
    out = (y == y[kept]).nonzero().flatten()
    out = out[out != kept]
    plain, level = (Linear(features(6), strength=0.1, normalise=False, level=on) for on in (False, True))
    was, now = (learner.held_out(x, y, 4, [out])[0] for learner in (plain, level))
    stays = torch.ones(150, dtype=torch.bool).index_fill(0, out, False)
    own = plain.logits(plain.adapt(x[stays][None], y[stays][None], 4), x[stays][None])[0]
    shared = shared_cosine(x[None] - even_mean(x[None], y[None], 4), y[None], 4).item()
    counts = y[stays].bincount(minlength=4)
    means = torch.stack([own[y[stays] == way, way].mean() for way in range(4)])
    expected = means * shared / (shared + (1 - shared) / counts)
    torch.testing.assert_close(was - now, 0.7 * (expected - expected.mean()), rtol=0.02, atol=0.02)


def test_neighbours_leave_out_exactly_above_fifty_images() -> None:
    x, y = draw(120, 3, 4)
    learner = Neighbours(features(3), k=5)
    found = learner.leave_one_out(x, y, 4)
    for row in (0, 57, 119):
        others = torch.arange(120) != row
        state = learner.adapt(x[others].unsqueeze(0), y[others].unsqueeze(0), 4)
        torch.testing.assert_close(found[row], learner.logits(state, x[row].view(1, 1, -1))[0, 0])


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


def test_folds_take_an_image_of_every_class_and_never_the_last() -> None:
    y = torch.tensor([*[0] * 5, *[1] * 2, *[2] * 12, 3])
    units = torch.arange(20)
    units[13] = units[12]  # two copies
    folds = deal_folds(y, units, most=4)
    dealing = folds[:4]
    times = torch.cat(dealing).bincount(minlength=20)
    assert times[:5].tolist() == [1] * 5, "each image of a class with more units than folds is left out once"
    assert times[5:7].tolist() == [2, 2], "a class with fewer gives one in each fold"
    assert times[-1] == 0, "an image that is alone is never left out"
    for fold in folds:
        assert (y[fold].bincount(minlength=4)[:3] > 0).all()
        assert (y[fold].bincount(minlength=4) < y.bincount()).all()
        assert (12 in fold) == (13 in fold), "copies are left out together"
    assert [fold.tolist() for fold in deal_folds(y, units, most=4)] == [fold.tolist() for fold in folds]
    assert deal_folds(torch.arange(5)) == []


def test_what_all_classes_share_says_nothing_after_centring() -> None:
    x, y = draw(12, 6, 3)
    learner = Linear(features(6), "ridge", centre=True, normalise=False)
    found = [learner.logits(learner.adapt(rows[None], y[None], 3), rows[None]) for rows in (x, x + 100)]
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("strength", [1e-4, 0.1, 10.0])
@pytest.mark.parametrize("balance", [False, True])
@pytest.mark.parametrize("n", [40, MANY_ROWS])
def test_logistic_regression_is_at_its_optimum(n: int, strength: float, balance: bool) -> None:
    """Against the minimum that scipy finds of the loss as it is written, in float64."""
    from scipy.optimize import minimize

    x, y = draw(n, 5, 3)
    y[:14] = 0
    learner = Linear(features(5), strength=strength, normalise=False, balance=balance)
    weights = learner.adapt(x.float()[None], y[None], 3)["weights"][0].double()
    rows = torch.cat([x, torch.ones(n, 1, dtype=torch.float64)], 1)
    weigh = n / 3 / y.bincount()[y] if balance else torch.ones(n)

    def loss(flat: torch.Tensor) -> torch.Tensor:
        w = flat.view(6, 3)
        return (
            nn.functional.cross_entropy(rows @ w, y, reduction="none") * weigh
        ).sum() + strength / 2 * w.square().sum()

    def both(flat):
        point = torch.tensor(flat, requires_grad=True)
        value = loss(point)
        return value.item(), torch.autograd.grad(value, point)[0].numpy()

    best = minimize(
        both, torch.zeros(18).double().numpy(), jac=True, method="BFGS", options={"gtol": 1e-9, "maxiter": 9999}
    )
    assert loss(weights.flatten()).item() <= best.fun * (1 + 1e-4) + 1e-6


def test_ridge_keeps_its_digits_at_a_small_strength() -> None:
    x, y = draw(40, 60, 3)
    learner = Linear(features(60), "ridge", 1e-4)
    rows = torch.cat([nn.functional.normalize(x, dim=-1), torch.ones(40, 1, dtype=torch.float64)], 1)
    onehot = nn.functional.one_hot(y, 3).double()
    want = torch.linalg.solve(rows.T @ rows + 1e-4 * torch.eye(61, dtype=torch.float64), rows.T @ onehot)
    found = learner.adapt(x.float()[None], y[None], 3)["weights"][0].double()
    assert (found - want).norm() < 0.01 * want.norm()


@pytest.mark.parametrize(("n", "most"), [(40, 5), (MANY_ROWS, 2)])
def test_a_solver_that_stops_early_says_so(n: int, most: int) -> None:
    ones = torch.ones(1, n, dtype=torch.float64)
    rows, _ = orthogonal(draw(n, 5, 3)[0].unsqueeze(0), ones)
    onehot = nn.functional.one_hot(torch.arange(n) % 3, 3).double().unsqueeze(0)
    with pytest.warns(
        NotSolvedWarning, match=f"stopped after {most} steps with a gradient of .* take a strength above 1e-06"
    ):
        logistic(rows, onehot, 1e-6, ones, most=most)


def test_folds_of_many_images_equal_trainings_without_them() -> None:
    x, y = draw(MANY_ROWS + 40, 30, 6)
    learner = Linear(features(30), strength=0.1)
    folds = [torch.arange(0, 60), torch.arange(60, 90)]
    together = learner.held_out(x.float(), y, 6, folds)
    for fold, scores in zip(folds, together.split([60, 30]), strict=True):
        stays = torch.ones(len(y), dtype=torch.bool).index_fill(0, fold, False)
        state = learner.adapt(x.float()[stays][None], y[stays][None], 6)
        torch.testing.assert_close(scores, learner.logits(state, x.float()[fold][None])[0], atol=1e-2, rtol=0)


@pytest.mark.parametrize("strength", [0.1, 1e-3, 1e-6])
@pytest.mark.parametrize("weight", [1.0, 1e6])
def test_many_rows_of_random_labels_are_solved_as_in_float64(strength: float, weight: float) -> None:
    """Rounding drives nothing away: neither along what changes no probability, nor to NaN."""
    generator = Generator().manual_seed(0)
    x, y = torch.randn(1, 300, 20, generator=generator), torch.randint(3, (300,), generator=generator)
    rows, _ = orthogonal(torch.cat([x, torch.ones(1, 300, 1)], 2), torch.ones(1, 300))
    targets, weights = nn.functional.one_hot(y, 3).float().unsqueeze(0), torch.full((1, 300), weight)
    found = logistic(rows, targets, strength * weight, weights)
    exact = logistic(rows.double(), targets.double(), strength * weight, weights.double(), tolerance=1e-9)
    assert (rows.double() @ (found.double() - exact)).abs().max() < 1e-4
