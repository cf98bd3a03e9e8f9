"""Clock of a tuning: the share of its time that is over, from what each kind of its work has taken so far."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable


class Clock:
    """Counts finished pieces of work, and tells the share of the time that is over.

    A piece that is still to do is taken to last as long as the mean of those of its kind that are finished, or as long
    as was expected while there are none. Nothing is told before that is known of every kind.

    Args:
        tell: called with the share, from 0 to 1, which never falls.
        now: gives the time in seconds.

    >>> seconds = iter([0.0, 1.0, 5.0])
    >>> clock = Clock(print, lambda: next(seconds))
    >>> clock.plan(view=2, step=4)
    >>> clock.finished("view")  # says nothing, since nobody knows how long a step takes
    >>> clock.expect(step=2.0)
    >>> clock.finished("step")  # 5 s are over; a view of 1 s and three steps of 4 s are left
    0.2777777777777778
    """

    def __init__(
        self, tell: Callable[[float], None] | None = None, now: Callable[[], float] = time.perf_counter
    ) -> None:
        self.tell, self.now = tell, now
        self.began = self.last = now()
        self.counts: dict[str, int] = {}
        self.expected: dict[str, float] = {}
        self.done: Counter[str] = Counter()
        self.took: defaultdict[str, float] = defaultdict(float)
        self.share = 0.0

    def plan(self, **counts: int) -> None:
        """Sets how many pieces of each kind there are, the finished ones included; other kinds keep their numbers."""
        self.counts |= counts

    def expect(self, **seconds: float) -> None:
        """Sets how long a piece of each kind seems to take, until one is finished."""
        self.expected |= seconds

    def passed(self) -> None:
        """Notes that the time since the last piece went into something else."""
        self.last = self.now()

    def finished(self, kind: str, number: int = 1) -> None:
        """Notes that pieces of a kind are finished, which took the time since the last ones; and tells the share."""
        now = self.now()
        self.done[kind] += number
        self.took[kind] += now - self.last
        self.last = now
        left = self.left()
        if self.tell and left is not None:
            spent = now - self.began
            self.share = max(self.share, spent / max(spent + left, 1e-9))
            self.tell(self.share)

    def seconds(self, kind: str) -> float | None:
        """The time of a piece: the mean of those that are finished, or else what was expected; None if unknown."""
        if self.done[kind]:
            return self.took[kind] / self.done[kind]
        return self.expected.get(kind)

    def left(self) -> float | None:
        """The seconds that are left; None while the time of a kind is unknown."""
        total = 0.0
        for kind, count in self.counts.items():
            each, more = self.seconds(kind), count - self.done[kind]
            if each is None and more > 0:
                return None
            total += max(0, more) * (each or 0.0)
        return total
