"""Tests of the linear learners against scikit-learn, and of their levels against loops."""

import warnings
from typing import Literal

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from task_rows import pixels, rows_of, solve
from torch import Generator, Tensor
from torch.nn import functional

from metarep.learners import Linear
from metarep.learners.class_sizes import shared_cosine


def with_one(rows: Tensor, normalise: bool) -> np.ndarray:
    rows = functional.normalize(rows, dim=-1) if normalise else rows
    return torch.cat([rows, torch.ones(len(rows), 1, dtype=rows.dtype)], dim=-1).numpy()


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("strength", [0.01, 1.0, 30.0])
def test_ridge_is_sklearns(strength: float, normalise: bool) -> None:
    support, y, query = rows_of()
    got = solve(Linear(pixels(), "ridge", strength, normalise, scale=10), support, y, query)
    for task in range(4):
        oracle = Ridge(alpha=strength, fit_intercept=False).fit(
            with_one(support[task], normalise), functional.one_hot(y[task], 3).double().numpy()
        )
        want = 10 * oracle.predict(with_one(query[task], normalise))
        np.testing.assert_allclose(got[task].numpy(), want, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize(("ways", "strength"), [(3, 0.01), (3, 0.1), (3, 30.0), (20, 1.0)])
def test_logistic_regression_is_sklearns(strength: float, normalise: bool, ways: int) -> None:
    support, y, query = rows_of(tasks=2, labels=[i % ways for i in range(3 * ways)], ways=ways)
    state = Linear(pixels(), "logistic", strength, normalise).adapt(support, y, ways)
    got = Linear(pixels(), "logistic", strength, normalise).logits(state, query)
    for task in range(2):
        oracle = LogisticRegression(C=1 / strength, fit_intercept=False, tol=1e-10, max_iter=10_000)
        with warnings.catch_warnings():  # the line search of the oracle ends when it can improve no more
            warnings.simplefilter("ignore")
            oracle.fit(with_one(support[task], normalise), y[task].numpy())
        weights, off = state["weights"][task].T.numpy(), 1e-4 if strength >= 0.1 else 2e-3  # it stops at a tolerance
        np.testing.assert_allclose(weights, oracle.coef_, atol=off, rtol=0)
        np.testing.assert_allclose(
            got[task].softmax(-1).numpy(), oracle.predict_proba(with_one(query[task], normalise)), atol=off, rtol=0
        )


def test_logistic_regression_reaches_its_optimum_on_features_as_they_come() -> None:
    """Conv4's features at 84 px: 1,600 numbers of length about 40, in float32, for which a fixed count of steps is
    easily too few. The gradient of the objective must vanish."""
    g = Generator().manual_seed(0)
    support, y = torch.randn(3, 25, 1600, generator=g).relu() * 1.5, (torch.arange(25) % 5).expand(3, -1)
    learner = Linear(pixels(), "logistic", normalise=False)
    weights = learner.adapt(support, y, 5)["weights"]
    x = torch.cat([support, torch.ones(3, 25, 1)], dim=-1)
    gradient = x.mT @ ((x @ weights).softmax(-1) - functional.one_hot(y, 5)) + weights
    assert gradient.norm() < 1e-2 * (x.mT @ (0.2 - functional.one_hot(y, 5).float())).norm()


@pytest.mark.parametrize("solver", ["ridge", "logistic"])
def test_scores_are_shifted_by_a_part_of_what_new_images_can_expect(solver: Literal["ridge", "logistic"]) -> None:
    support, y, query = rows_of(tasks=2, labels=[0, 1, 1, 2, 2, 2, 2, 2, 2])
    plain, level = (Linear(pixels(), solver, centre=True, balance=True, level=on) for on in (False, True))
    was, now, own = (solve(learner, support, y, x) for learner, x in ((plain, query), (level, query), (plain, support)))
    scale = 10 if solver == "ridge" else 1
    for task in range(2):
        unit = functional.normalize(support[task], dim=-1)
        centred = functional.normalize(unit - unit.mean(0), dim=-1)
        even = torch.stack([centred[y[task] == way].mean(0) for way in range(3)]).mean(0)
        shared = shared_cosine((centred - even).unsqueeze(0), y[task : task + 1], 3).item()
        expected = torch.tensor(
            [
                own[task][y[task] == way, way].mean().item() * shared / (shared + (1 - shared) / count)
                for way, count in enumerate((1, 2, 6))
            ]
        )
        shift = 0.7 * (expected - expected.mean())
        torch.testing.assert_close((was[task] - now[task]) / scale, (shift / scale).expand(7, -1).to(was.dtype))
    alike = torch.arange(9).expand(2, -1) % 3
    assert solve(plain, support, alike, query).equal(solve(level, support, alike, query)), "equal classes stay"
