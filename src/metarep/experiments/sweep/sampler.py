"""The sampler of a sweep: a grid if there are only choices, else Optuna's tree-structured Parzen estimator (TPE)."""

import itertools
import random
import zlib
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from metarep.experiments.sweep.space import Choice, Space


def grid_of(space: Space) -> list[dict[str, Any]]:
    """All combinations of choices; an empty list if the space has a range.

    >>> grid_of({"width": Choice((8, 16)), "turns": Choice((1, 2))})[1]
    {'width': 8, 'turns': 2}
    """
    choices = {name: each.values for name, each in space.items() if isinstance(each, Choice)}
    if len(choices) < len(space):
        return []
    return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]


class Sampler(BaseSampler):
    """Draws the values of a trial by random numbers that depend only on the seed and on how many trials came before.

    So a sweep that is resumed does not draw its first trials again, and two processes do not draw the same.

    Args:
        space: the values of each setting.
        seed: of the random numbers.
    """

    def __init__(self, space: Space, seed: int) -> None:
        self.seed, self.grid = seed, grid_of(space)
        random.Random(seed).shuffle(self.grid)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:  # noqa: ARG002
        """Return an empty space: each setting is drawn on its own."""
        return {}

    def sample_relative(
        self,
        study: Study,  # noqa: ARG002
        trial: FrozenTrial,  # noqa: ARG002
        search_space: dict[str, BaseDistribution],  # noqa: ARG002
    ) -> dict[str, Any]:
        """Return nothing, as the space is empty."""
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:  # noqa: ANN401 - Optuna's own
        """Return the value of one setting."""
        rank = trial.user_attrs.get("rank", trial.number)
        if self.grid:
            return self.grid[rank % len(self.grid)][param_name]
        seed = zlib.crc32(f"{self.seed} {rank} {param_name}".encode())
        return TPESampler(seed=seed, constant_liar=True).sample_independent(
            study, trial, param_name, param_distribution
        )
