"""RunFolder: a training on disk, so that it can be resumed, read and trusted."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from metarep.errors import Advice, MetarepError
from metarep.machine.device import environment
from metarep.machine.files import locked, read_tensors, replacing, write_tensors
from metarep.methods import Method
from metarep.weights.checkpoint import save_checkpoint
from metarep.weights.record import RunRecord

SETTINGS = "settings.json"
STATE = "state.safetensors"  # what resuming needs
ANOTHER_FOLDER = Advice("choose another {out}", out=...)
OTHERWISE = (ANOTHER_FOLDER, "delete the folder")


class RunFolder:
    """One training's folder: ``settings.json``, ``environment.json``, ``log.jsonl``, ``model.safetensors`` and
    ``state.safetensors`` (what resuming needs; small runs may delete it when done).

    Nothing is written before :meth:`held`, so a training that is refused leaves nothing behind. A folder in which no
    training was saved, for its first steps failed, is another's to take.

    Args:
        path: made when it is held, if it is not there.
        record: what the run is; a folder that already holds another run is refused.
        seen: digests of the keys of the classes that it touches.
        fitted: of those the ones that weights are fitted to; the others are validated on.
        beginning: called when it is held to train from the first step: what else the folder must hold.

    Raises:
        MetarepError: the folder holds another run; the first setting that differs is named.
    """

    def __init__(
        self,
        path: Path,
        record: RunRecord,
        seen: Iterable[str],
        fitted: Iterable[str] = (),
        beginning: Callable[[], None] | None = None,
    ) -> None:
        self.path, self.record, self.beginning = Path(path), record, beginning
        self.seen, self.fitted = frozenset(seen), frozenset(fitted)
        self._refuse_another()

    @property
    def model(self) -> Path:
        """The file of the trained model, ``model.safetensors``."""
        return self.path / "model.safetensors"

    @property
    def begun(self) -> bool:
        """Whether something of a training was saved here."""
        return self.model.exists() or (self.path / STATE).exists()

    @contextmanager
    def held(self) -> Iterator[None]:
        """One training at a time.

        Raises:
            MetarepError: on entering: another process is training here, or has trained another run meanwhile.
        """
        busy = MetarepError(
            f"another process is training in {self.path}", advice=("wait until it has ended", ANOTHER_FOLDER)
        )
        self.path.mkdir(parents=True, exist_ok=True)
        with locked(self.path / ".lock", busy):
            self._refuse_another()
            if not self.begun or not (self.path / SETTINGS).exists():
                _write(self.path / SETTINGS, self.record.as_dict())
                _write(self.path / "environment.json", environment())
            if self.beginning and not (self.path / STATE).exists():
                self.beginning()
            yield

    def log(self, record: dict[str, Any]) -> None:
        """Append one line to ``log.jsonl``."""
        with (self.path / "log.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")

    def records(self) -> list[dict[str, Any]]:
        """All lines of ``log.jsonl``."""
        path = self.path / "log.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}")]  # the last may have been cut short

    def save_model(self, method: Method) -> None:
        """Write the weights of a method, with the record of the run and the classes that it has seen."""
        save_checkpoint(self.model, method, self.record, self.seen, self.fitted)

    def save_state(self, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
        """Write what resuming needs: tensors, and a header that JSON can hold."""
        more = {"seen": sorted(self.seen), "fitted": sorted(self.fitted)}
        write_tensors(self.path / STATE, tensors, header | more)

    def load_state(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What the last :meth:`save_state` wrote, or None; log lines of steps after it are dropped.

        What it had seen stays seen, whatever stands by now where it started from.
        """
        path = self.path / STATE
        saved = read_tensors(path) if path.exists() else None
        if saved:
            self.seen |= set(saved[1].get("seen", ()))
            self.fitted |= set(saved[1].get("fitted", ()))
        step = saved[1]["step"] if saved else 0
        kept = [record for record in self.records() if record["step"] <= step]
        (self.path / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in kept))
        return saved

    def _refuse_another(self) -> None:
        if not self.begun or not (self.path / SETTINGS).exists():
            return
        if difference := self.record.difference(_read_json(self.path / SETTINGS)):
            name, was, now = difference
            raise MetarepError(f"{self.path} holds a run with {name} = {was!r}, not {now!r}", advice=OTHERWISE)


def read_record(path: Path) -> RunRecord:
    """What a run is, from its ``settings.json``.

    Raises:
        MetarepError: the file is damaged, or is not one of ours.
    """
    try:
        return RunRecord.read(_read_json(path))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, MetarepError):
            raise
        raise MetarepError(f"{path} does not hold the settings of a run", advice=OTHERWISE) from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise MetarepError(f"{path} is damaged ({error})", advice=OTHERWISE) from error
    if not isinstance(content, dict):
        raise MetarepError(f"{path} does not hold the settings of a run", advice=OTHERWISE)
    return content


def _write(path: Path, content: dict[str, Any]) -> None:
    with replacing(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n")
