"""What a person sees of trainings and measurements: a bar on a terminal, a line now and then in a file, TensorBoard."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from metarep.errors import missing_extra
from metarep.training import Watch

Tell = Callable[[float], None]  # to be told the share that is done
EVERY = 5.0  # seconds between lines on what has no figures of its own


@contextlib.contextmanager
def progress(*, quiet: bool = False, tensorboard: Path | None = None) -> Iterator[Watch]:
    """A ``watch`` for ``train``, for the length of a ``with`` block."""
    with contextlib.ExitStack() as stack:
        watchers: list[Watch] = []
        if not quiet:
            watchers.append(stack.enter_context(_bar() if sys.stderr.isatty() else _lines()))
        if tensorboard is not None:
            watchers.append(stack.enter_context(_board(tensorboard)))

        def watch(record: dict[str, Any]) -> None:
            for watcher in watchers:
                watcher(record)

        yield watch


@contextlib.contextmanager
def measuring(what: str, *, quiet: bool = False, every: float = EVERY) -> Iterator[Tell]:
    """A function to be told what share of a measurement is done, for the length of a ``with`` block.

    Args:
        what: is measured.
        quiet: show nothing.
        every: seconds between two lines, where standard error is no terminal; the first comes as late.
    """
    if not quiet and sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        columns = (TextColumn(what), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:
            task = bar.add_task(what, total=1.0)
            yield lambda share: bar.update(task, completed=share)
        return
    began = said = time.monotonic()

    def tell(share: float) -> None:
        nonlocal said
        now = time.monotonic()
        if not quiet and 0 < share < 1 and now - said >= every:
            said = now
            left = (now - began) * (1 - share) / share
            print(f"{what}: {share:.0%} done, {left:.0f} s left", file=sys.stderr, flush=True)

    yield tell


def measuring_by(watch: Watch) -> Callable[[str], contextlib.AbstractContextManager[Tell]]:
    """As :func:`measuring`, told to the ``watch`` of a training that went before."""

    @contextlib.contextmanager
    def told(what: str) -> Iterator[Tell]:
        began = time.monotonic()

        def tell(share: float) -> None:
            left = (time.monotonic() - began) * (1 - share) / max(share, 1e-9)
            watch({"phase": f"measuring {what}", "step": round(100 * share), "steps": 100, "seconds_left": left})

        yield tell

    return told


@contextlib.contextmanager
def _bar() -> Iterator[Watch]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.fields[phase]} {task.completed:>5.0f} of {task.total}"),
        BarColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    latest: dict[str, Any] = {}
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("training", total=None, phase="step", figures="")

        def watch(record: dict[str, Any]) -> None:
            if record.get("phase") != latest.get("phase"):  # figures of the phase before say nothing of this one
                latest.clear()
            latest.update(record)
            if "accuracy" in record and "measured" not in record:
                latest["validated"] = record["step"]  # it stays on the bar for a while
            figures = _figures(latest)
            bar.update(task, completed=record["step"], total=record["steps"], phase=_phase(latest), figures=figures)

        yield watch


@contextlib.contextmanager
def _lines(every: float = EVERY) -> Iterator[Watch]:
    """A line at each tenth of a training and at each validation; elsewhere one now and then."""
    phase, shown, said = None, -1, time.monotonic()

    def watch(record: dict[str, Any]) -> None:
        nonlocal phase, shown, said
        if record.get("phase") != phase:
            phase, shown, said = record.get("phase"), -1, time.monotonic()
        tenth, now = record["step"] * 10 // record["steps"], time.monotonic()
        if "accuracy" in record or (tenth > shown if "loss" in record else now - said >= every):
            shown, said = max(shown, tenth), now
            step = f"{_phase(record)} {record['step']:>5} of {record['steps']}"
            print(f"{step}  {_figures(record)}".rstrip(), file=sys.stderr, flush=True)

    yield watch


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
