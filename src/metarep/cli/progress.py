"""What a person sees of work that takes a while: a bar on a terminal, a line now and then elsewhere, and TensorBoard.

There is one display, :func:`display`. Trainings, measurements and counts of images say what they show on it.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from metarep.errors import counted, missing_extra

Tell = Callable[[float], None]  # called with the share that is done
Watch = Callable[[dict[str, Any]], None]  # that of a training: called with each record of its log
EVERY = 5.0  # seconds between two lines


@runtime_checkable
class Show(Protocol):
    """Shows how far some work is.

    Args:
        what: is being done, with the count of what is done.
        done, total: how far it is.
        figures: what else there is to say.
        due: whether a line is due now, where there is no terminal; None for one every few seconds.
    """

    def __call__(self, what: str, done: float, total: float, figures: str, *, due: bool | None = None) -> None: ...


@contextlib.contextmanager
def display(*, quiet: bool = False, every: float = EVERY, stays: bool = False) -> Iterator[Show]:
    """Yields a function that shows how far some work is, on standard error.

    Args:
        quiet: show nothing.
        every: seconds between two lines, where standard error is not a terminal; the first comes as late.
        stays: leave the bar on the terminal at the end.
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
def progress(*, quiet: bool = False, tensorboard: Path | None = None, every: float = EVERY) -> Iterator[Watch]:
    """A ``watch`` for ``train``, for the length of a ``with`` block."""
    with contextlib.ExitStack() as stack:
        watchers = [_training(stack.enter_context(display(quiet=quiet, every=every, stays=True)))]
        if tensorboard is not None:
            watchers.append(stack.enter_context(_board(tensorboard)))

        def watch(record: dict[str, Any]) -> None:
            for watcher in watchers:
                watcher(record)

        yield watch


@contextlib.contextmanager
def measuring(what: str, *, quiet: bool = False, every: float = EVERY) -> Iterator[Tell]:
    """A function to call with the share of a measurement that is done, for the length of a ``with`` block."""
    began = time.monotonic()
    with display(quiet=quiet, every=every) as show:

        def tell(share: float) -> None:
            if 0 < share < 1:
                left = (time.monotonic() - began) * (1 - share) / share
                show(f"{what}:", share, 1, f"{share:.0%} done, {left:.0f} s left")

        yield tell


@contextlib.contextmanager
def counting(noun: str, *, quiet: bool = False, every: float = EVERY) -> Iterator[Callable[..., None]]:
    """A function to call with the number of things that are done, and of all, for the length of a ``with`` block.

    A third number, if it is given, says how many of those done took time; the speed is that of these.
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
    """As :func:`counting`; the function is called with how many more are done."""
    done = 0
    with counting(noun, quiet=quiet) as tell:

        def advance(more: int) -> None:
            nonlocal done
            done += more
            tell(done, total)

        yield advance


def _training(show: Show) -> Watch:
    """Shows the records of a training: on a terminal the latest figures of each kind, elsewhere those of the record.

    There, a line is due at each tenth of a training and at each validation.
    """
    latest: dict[str, Any] = {}
    shown = -1

    def watch(record: dict[str, Any]) -> None:
        nonlocal shown
        if not latest or record.get("phase") != latest.get("phase"):  # figures of another phase say nothing of this one
            latest.clear()
            shown = -1
        latest.update(record)
        if "accuracy" in record and "measured" not in record:
            latest["validated"] = record["step"]  # it stays on the bar for a while
        step, steps = record["step"], record["steps"]
        tenth = step * 10 // steps
        due = "accuracy" in record or (tenth > shown if "loss" in record else None)
        shown = max(shown, tenth) if due else shown
        figures = _figures(latest if sys.stderr.isatty() else record)
        show(f"{_phase(record)} {step:>5} of {steps}", step, steps, figures, due=due)

    return watch


@contextlib.contextmanager
def _board(folder: Path) -> Iterator[Watch]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise missing_extra("the log for tensorboard", "tensorboard", "tensorboard") from error
    writer = None

    def watch(record: dict[str, Any]) -> None:
        nonlocal writer
        writer = writer or SummaryWriter(str(folder / "tensorboard"))  # now: it makes the folder
        for name, value in record.items():
            if isinstance(value, float):
                writer.add_scalar(name, value, record["step"])

    try:
        yield watch
    finally:
        if writer:
            writer.close()


def _phase(record: dict[str, Any]) -> str:
    """What is counted: steps, of a method where there are several; or what is measured."""
    phase = record.get("phase", "")
    return phase if phase.startswith("measuring") else f"{phase} step".lstrip()


def _figures(record: dict[str, Any]) -> str:
    """What a record says, and nothing of another step."""
    parts = [f"loss {record['loss']:.4f}"] if "loss" in record else []
    parts += [f"active {record['active']:.2f}"] if "active" in record else []
    parts += [f"spread {record['spread']:.2f}  rank {record['rank']:.1f}"] if "spread" in record else []
    if "accuracy" in record:
        at = f" at {record['validated']}" if "validated" in record else ""
        what = record.get("measured", "validation")
        parts += [f"{what} {record['accuracy']:.2f} ± {record['ci95']:.2f} %{at}"]
    parts += [f"{record['images_per_second']:,.0f} images/s"] if "images_per_second" in record else []
    parts += [f"{record['seconds_left']:.0f} s left"] if "seconds_left" in record else []
    return "  ".join(parts)
