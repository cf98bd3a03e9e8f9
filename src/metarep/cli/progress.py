"""Progress of long work: a bar on a terminal, a line every few seconds elsewhere; and trackers of trainings.

There is one display, :func:`display`. Trainings, measurements and counts of images choose the text that it shows.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from metarep.errors import counted

Tell = Callable[[float], None]  # called with the finished share, from 0 to 1
Watch = Callable[[dict[str, Any]], None]  # called with each record of the log of a training
EVERY = 5.0  # seconds between two lines
SILENCE = 60.0  # the most seconds of a training without a line


@runtime_checkable
class Show(Protocol):
    """A function that shows the progress of some work.

    Args:
        what: the name of the work, and how much of it is done.
        done, total: the finished amount and the whole amount, in the same unit.
        figures: further figures to show.
        due: without a terminal: whether to print a line now; None for a line every few seconds.
    """

    def __call__(self, what: str, done: float, total: float, figures: str, *, due: bool | None = None) -> None: ...


@contextlib.contextmanager
def display(*, quiet: bool = False, every: float = EVERY, stays: bool = False) -> Iterator[Show]:
    """Context that yields a function to show the progress of some work on standard error.

    Args:
        quiet: show nothing.
        every: seconds between two lines if standard error is not a terminal, and before the first line.
        stays: keep the bar on the terminal at the end.
    """
    if quiet:
        yield lambda *_, **__: None
        return
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[figures]}", markup=False),
        )
        console, both = Console(stderr=True), sys.stdout.isatty()  # what goes into a file must not go to the terminal
        with Progress(*columns, console=console, transient=not stays, redirect_stdout=both) as bar:
            task = bar.add_task("", total=None, figures="")

            def move(what: str, done: float, total: float, figures: str, *, due: bool | None = None) -> None:  # noqa: ARG001
                bar.update(task, description=what, completed=done, total=total, figures=figures)

            yield move
        return
    said = time.monotonic()

    def write(what: str, done: float, total: float, figures: str, *, due: bool | None = None) -> None:  # noqa: ARG001
        nonlocal said
        now = time.monotonic()
        if now - said >= every if due is None else due:
            said = now
            print(f"{what}  {figures}".rstrip(), file=sys.stderr, flush=True)

    yield write


@contextlib.contextmanager
def progress(
    *, quiet: bool = False, trackers: Sequence[str] = (), folder: Path | None = None, every: float = EVERY
) -> Iterator[Watch]:
    """Context that yields a ``watch`` function for ``train``.

    Args:
        quiet: show nothing.
        trackers: names of :data:`metarep.cli.trackers.TRACKERS`, which get the figures too.
        folder: the run folder, for the trackers.
        every: seconds between two lines if standard error is not a terminal.

    Raises:
        MetarepError: the package of a tracker is not installed.
    """
    with contextlib.ExitStack() as stack:
        watchers = [_training(stack.enter_context(display(quiet=quiet, every=every, stays=True)))]
        if trackers and folder is not None:
            from metarep.cli.trackers import tracking

            watchers += [stack.enter_context(tracking(name, folder)) for name in trackers]

        def watch(record: dict[str, Any]) -> None:
            for watcher in watchers:
                watcher(record)

        yield watch


@contextlib.contextmanager
def measuring(what: str, *, quiet: bool = False, every: float = EVERY) -> Iterator[Tell]:
    """Context that yields a function to call with the finished share of a measurement, from 0 to 1."""
    began = time.monotonic()
    with display(quiet=quiet, every=every) as show:

        def tell(share: float) -> None:
            if 0 < share < 1:
                left = (time.monotonic() - began) * (1 - share) / share
                show(f"{what}:", share, 1, f"{share:.0%} done, {left:.0f} s left")

        yield tell


@contextlib.contextmanager
def counting(noun: str, *, quiet: bool = False, every: float = EVERY) -> Iterator[Callable[..., None]]:
    """Context that yields a function to call with the number of finished items and the number of all items.

    A third number, if it is given, is the number of finished items that took time. The shown speed is that of these.
    """
    began = time.monotonic()
    with display(quiet=quiet, every=every) as show:

        def tell(done: int, total: int, worked: int | None = None) -> None:
            rate = (done if worked is None else worked) / max(time.monotonic() - began, 1e-9)
            left = f", {(total - done) / rate:.0f} s left" if rate else ""
            show(f"{done:,} of {counted(total, noun)}", done, total, f"{rate:.0f} a second{left}")

        yield tell


@contextlib.contextmanager
def counter(total: int, noun: str, *, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """Context like :func:`counting`, but the function is called with the number of newly finished items."""
    done = 0
    with counting(noun, quiet=quiet) as tell:

        def advance(more: int) -> None:
            nonlocal done
            done += more
            tell(done, total)

        yield advance


def _training(show: Show) -> Watch:
    """A ``watch`` that shows the records of a training.

    A terminal shows the latest figure of each kind. Elsewhere, a line with the figures of one record is printed at each
    tenth of the training, at each validation, and after a minute without a line.
    """
    latest: dict[str, Any] = {}
    shown, last = -1, time.monotonic()

    def watch(record: dict[str, Any]) -> None:
        nonlocal shown, last
        if not latest or record.get("phase") != latest.get("phase"):  # figures of another phase say nothing of this one
            latest.clear()
            shown = -1
        latest.update(record)
        if "accuracy" in record and "measured" not in record:
            latest["validated"] = record["step"]  # it stays on the bar for a while
        step, steps = record["step"], record["steps"]
        tenth = step * 10 // steps
        said = "images" in record or "encoder" in record
        long = time.monotonic() - last >= SILENCE
        due = "accuracy" in record or said or (tenth > shown or long if "loss" in record else None)
        shown = max(shown, tenth) if due and not said else shown
        last = time.monotonic() if due else last
        figures = _figures(latest if sys.stderr.isatty() else record)
        show(f"{_phase(record)} {step:>5} of {steps}", step, steps, figures, due=due)

    return watch


def _phase(record: dict[str, Any]) -> str:
    """The name of the count: ``step``, after the method if several are trained; or the measurement."""
    phase = record.get("phase", "")
    return phase if phase.startswith("measuring") else f"{phase} step".lstrip()


def _figures(record: dict[str, Any]) -> str:
    """The figures of a record as text."""
    parts = [record[text] for text in ("encoder", "images") if text in record]
    parts += [f"loss {record['loss']:.4f}"] if "loss" in record else []
    parts += [f"active {record['active']:.2f}"] if "active" in record else []
    parts += [f"spread {record['spread']:.2f}  rank {record['rank']:.1f}"] if "spread" in record else []
    if "accuracy" in record:
        at = f" at {record['validated']}" if "validated" in record else ""
        what = record.get("measured", "validation")
        parts += [f"{what} {record['accuracy']:.2f} ± {record['ci95']:.2f} %{at}"]
    parts += [f"{record['images_per_second']:,.0f} images/s"] if "images_per_second" in record else []
    parts += [f"{record['seconds_left']:.0f} s left"] if "seconds_left" in record else []
    return "  ".join(parts)
