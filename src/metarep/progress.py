"""What a person sees of a training: a bar on a terminal, a line now and then in a file, TensorBoard if asked."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from metarep.errors import MetarepError
from metarep.training import Watch


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
            _take(latest, record)
            bar.update(
                task, completed=record["step"], total=record["steps"], phase=_phase(latest), figures=_figures(latest)
            )

        yield watch


@contextlib.contextmanager
def _lines() -> Iterator[Watch]:
    latest: dict[str, Any] = {}
    shown = -1

    def watch(record: dict[str, Any]) -> None:
        nonlocal shown
        if _take(latest, record):
            shown = -1
        tenth = record["step"] * 10 // record["steps"]
        if "accuracy" in record or tenth > shown:
            shown = max(shown, tenth)
            print(f"{_phase(latest)} {record['step']:>5}  {_figures(latest)}", file=sys.stderr, flush=True)

    yield watch


@contextlib.contextmanager
def _board(folder: Path) -> Iterator[Watch]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MetarepError("--tensorboard needs an extra: pip install 'metarep[tensorboard]'") from error
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


def _take(latest: dict[str, Any], record: dict[str, Any]) -> bool:
    """Keep the newest figures; those of another phase (the next method of quickstart) are dropped."""
    changed = record.get("phase") != latest.get("phase")
    if changed:
        latest.clear()
    latest.update(record)
    return changed


def _phase(latest: dict[str, Any]) -> str:
    return f"{latest['phase']} step" if "phase" in latest else "step"


def _figures(latest: dict[str, Any]) -> str:
    parts = [f"loss {latest['loss']:.4f}"] if "loss" in latest else []
    parts += [f"active {latest['active']:.2f}"] if "active" in latest else []
    parts += [f"spread {latest['spread']:.2f}  rank {latest['rank']:.1f}"] if "spread" in latest else []
    parts += [f"validation {latest['accuracy']:.2f} ± {latest['ci95']:.2f} %"] if "accuracy" in latest else []
    parts += [f"{latest['images_per_second']:,.0f} images/s"] if "images_per_second" in latest else []
    parts += [f"{latest['seconds_left']:.0f} s left"] if "seconds_left" in latest else []
    return "  ".join(parts)
