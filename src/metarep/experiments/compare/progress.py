"""Outlook: where a comparison stands, and how long the rest will take."""

import time
from collections.abc import Callable
from typing import Any

from metarep.experiments.readings import Watch


class Outlook:
    """Passes the progress of trainings and measurements on, with the time that is left for all of them.

    Args:
        trainings, measurements: how many there are.
        budget: seconds of a training; None if that is not known.
        watch: called with each record.
    """

    def __init__(self, trainings: int, measurements: int, budget: float | None, watch: Watch) -> None:
        self.trainings, self.measurements, self.watch = trainings, measurements, watch
        self.budget = budget
        self.trained, self.measured = 0, 0
        self.took: dict[str, list[float]] = {"training": [], "measurement": []}
        self.began = time.monotonic()

    def training(self, name: str) -> Watch:
        """A ``watch`` for the next training."""
        self.began, number = time.monotonic(), self.trained + 1

        def see(record: dict[str, Any]) -> None:
            own = record.get("seconds_left")
            left = {} if own is None else {"seconds_left": own + self._rest(time.monotonic() - self.began + own)}
            self.watch({**record, "phase": f"{number} of {self.trainings}: {name}", **left})

        return see

    def training_done(self, *, now: bool) -> None:
        """Count a training; ``now`` if it was trained by this process, so that its time says how long others take."""
        self.trained += 1
        if now:
            self.took["training"].append(time.monotonic() - self.began)

    def measuring(self, name: str) -> Callable[[float], None]:
        """A function for the next measurement, to call with the finished share."""
        self.began = time.monotonic()

        def report_share(share: float) -> None:
            passed = time.monotonic() - self.began
            self._say(name, passed * (1 - share) / max(share, 1e-9))

        return report_share

    def measuring_done(self, name: str, *, now: bool) -> None:
        """Count a measurement; ``now`` if it was not read from a file."""
        self.measured += 1
        if now:
            self.took["measurement"].append(time.monotonic() - self.began)
        self._say(name, 0.0)

    def _say(self, name: str, own: float) -> None:
        number = min(self.measured + 1, self.measurements)
        record = {"phase": f"measuring {name},", "step": number, "steps": self.measurements}
        self.watch({**record, "seconds_left": own + self._rest(0.0, measuring=True)})

    def _rest(self, present: float, *, measuring: bool = False) -> float:
        """The estimated seconds of all trainings and measurements after the present one."""
        trainings = 0 if measuring else self.trainings - self.trained - 1
        measurements = max(0, self.measurements - self.measured - measuring)
        usual = self.budget or _mean(self.took["training"], present)
        return trainings * usual + measurements * _mean(self.took["measurement"], 0.0)


def _mean(values: list[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
