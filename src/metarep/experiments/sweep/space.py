"""The space of a sweep: which settings are tried, and with which values."""

import inspect
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from metarep.errors import Advice, MetarepError, above, unknown
from metarep.experiments.job import Job
from metarep.methods import METHODS
from metarep.weights.settings import TrainSettings

ENCODER = ("encoder", "width")
LABELS = ("clusters", "partitions")
MEASURE = ("validate_every", "validation_tasks", "validation_ways", "validation_shots")
Value = str | int | float | bool | None


@dataclass(frozen=True)
class Choice:
    """Separate values of a setting.

    Args:
        values: at least two different values.

    Raises:
        MetarepError: fewer than two different values.
    """

    values: tuple[Value, ...]

    def __post_init__(self) -> None:
        if len(set(self.values)) < max(2, len(self.values)):
            raise MetarepError(f"a sweep needs at least two different values, not {', '.join(map(str, self.values))}")

    @property
    def ends(self) -> tuple[Value, ...]:
        """All values, which are checked before the sweep starts."""
        return self.values


@dataclass(frozen=True)
class Range:
    """All numbers between two bounds, or all whole numbers if both bounds are whole.

    Args:
        low, high: the bounds, which belong to the range.
        log: whether to draw from a logarithmic scale, on which 0.001 to 0.01 is as wide as 0.01 to 0.1.

    Raises:
        MetarepError: the lower bound is not below the upper one, or not above 0 on a logarithmic scale.

    >>> Range(8, 64).whole, Range(1e-4, 1e-2, log=True).whole
    (True, False)
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not -math.inf < self.low < self.high < math.inf:
            raise MetarepError(f"a range goes from a number to a larger one, not from {self.low:g} to {self.high:g}")
        if self.log and self.low <= 0:
            raise MetarepError(f"a logarithmic range begins above 0, not at {self.low:g}")

    @property
    def whole(self) -> bool:
        """Whether all values are whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def ends(self) -> tuple[Value, ...]:
        """The two bounds, which are checked before the sweep starts."""
        return self.low, self.high


Space = Mapping[str, Choice | Range]


def settable(method: str) -> list[str]:
    """The names of the settings that a sweep of a method can try.

    >>> "lr" in settable("protonet"), "margin" in settable("protonet"), "margin" in settable("triplet")
    (True, False, True)
    """
    parameters = inspect.signature(METHODS[method].__init__).parameters.values()
    own = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY and each.name != "classes"]
    shared = [each.name for each in fields(TrainSettings) if each.name not in (*MEASURE, "seed")]
    return [*dict.fromkeys([*own, *shared, *ENCODER, *LABELS])]


def with_values(job: Job, values: Mapping[str, Any]) -> Job:
    """The job with these values of its settings.

    >>> changed = with_values(Job("protonet"), {"lr": 0.01, "width": 32, "turns": 2})
    >>> changed.train, changed.encoder, changed.settings
    ({'lr': 0.01}, {'name': 'conv4', 'width': 32}, {'turns': 2})
    """
    shared = {each.name for each in fields(TrainSettings)}
    train = {name: value for name, value in values.items() if name in shared}
    encoder = {"name": values["encoder"]} if values.get("encoder", job.encoder["name"]) != job.encoder["name"] else {}
    encoder = encoder or job.encoder
    encoder = encoder | ({"width": values["width"]} if "width" in values else {})
    labels = {name: values[name] for name in LABELS if name in values}
    own = {name: value for name, value in values.items() if name not in (*train, *labels, *ENCODER)}
    return replace(job, train=job.train | train, settings=job.settings | own, encoder=encoder, **labels)


def check_sweep(job: Job, space: Space, *, seeds: int, trials: int | None, budget: float | None) -> None:
    """Raise if these settings of a sweep cannot be used; the arguments and errors are those of
    :func:`metarep.experiments.sweep.sweep.sweep`. It needs no Optuna.
    """
    check_space(job, space)
    above("seeds", seeds)
    above("trials", 1 if trials is None else trials)
    above("budget", 1.0 if budget is None else budget)


def check_space(job: Job, space: Space) -> None:
    """Raise if a sweep cannot try these settings; each value of a choice and both bounds of a range are checked.

    Args:
        job: the training whose settings are tried.
        space: the values of each setting, by its name.

    Raises:
        MetarepError: the training has no validation, nothing is tried, a setting is unknown, a value cannot be used, or
            the setting must be the same in all trials.
    """
    if job.train_on != "train":
        raise MetarepError(
            f"a sweep chooses on validation classes, and train_on={job.train_on} has none",
            advice=Advice("take {train_on}", train_on="train"),
        )
    if not space:
        raise MetarepError("a sweep needs at least one setting to try", advice=Advice("name one by {over}", over=...))
    for name, values in space.items():
        if name == "seed":
            raise MetarepError("a seed is not a setting to choose", advice=Advice("train each with {seeds}", seeds=3))
        if name in MEASURE:
            raise MetarepError(f"{name} must be the same in all trials, because their accuracies are compared")
        if name not in settable(job.method):
            raise unknown(f"setting of {job.method}", name, settable(job.method))
        for value in values.ends:
            try:
                with_values(job, {name: value})
            except MetarepError as error:
                raise MetarepError(f"{name} cannot be {value}: {error.message}", advice=error.advice) from error


def described(job: Job, space: Space) -> dict[str, Any]:
    """The job and the space as values that JSON can hold, to compare two sweeps by."""
    tried = {name: [*each.values] if isinstance(each, Choice) else asdict(each) for name, each in space.items()}
    return {**asdict(job), "over": tried}
