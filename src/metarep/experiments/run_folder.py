"""RunFolder: a training on disk, which can be resumed and read."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from metarep.errors import MetarepError
from metarep.experiments.json_files import ANOTHER_FOLDER, OTHERWISE, read_values, refuse_differing, write_values
from metarep.experiments.saved_states import SavedStates, keeping_states
from metarep.machine.device import environment
from metarep.machine.files import locked, replacing
from metarep.methods import Method
from metarep.weights.checkpoint import save_checkpoint
from metarep.weights.hub.contents import SETTINGS
from metarep.weights.record import RunRecord

ENVIRONMENT = "environment.json"  # beside the settings: versions, hardware and threads at the first step
LOG = "log.jsonl"
MODEL = "model.safetensors"
NO_RUN = "does not hold the settings of a run"


class RunFolder:
    """The folder of one training.

    It holds ``settings.json`` (the record of the run), ``environment.json`` (the machine), ``log.jsonl``, ``README.md``
    (the card of the run, once it is done), ``model.safetensors``, and ``state.safetensors`` with the state before it,
    ``previous-state.safetensors``. Resuming needs one of these two; both may be deleted after the training.

    Nothing is written before :meth:`held`, so a training that is refused leaves nothing behind. A folder in which no
    step was saved, because the first steps failed, may be used by another training.

    Args:
        path: the folder; :meth:`held` makes it if it does not exist.
        record: what the run is. A folder that already holds another run is refused.
        seen: digests of the keys of all classes that the training touches.
        fitted: digests of the classes that weights are fitted to. The others in ``seen`` are for validation.
        beginning: called by :meth:`held` if the training starts at its first step, to write other files.

    Raises:
        MetarepError: the folder holds another run. The message has each setting that differs, with both values.

    >>> import tempfile
    >>> run = RunFolder(Path(tempfile.mkdtemp(), "first"), RunRecord("protonet"), seen=())
    >>> with run.held():
    ...     run.log({"step": 20, "loss": 1.5})
    >>> read_record(run.path / "settings.json").method, run.records()
    ('protonet', [{'step': 20, 'loss': 1.5}])
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
        self.states = SavedStates(self.path)
        self.seen, self.fitted = frozenset(seen), frozenset(fitted)
        self._refuse_another()

    @property
    def model(self) -> Path:
        """The file of the trained model, ``model.safetensors``."""
        return self.path / MODEL

    @property
    def begun(self) -> bool:
        """Whether the folder holds a saved model or state."""
        return self.model.exists() or bool(self.states.files)

    @contextmanager
    def held(self) -> Iterator[None]:
        """A context that locks the folder for one training, and writes the record of the run if it is new.

        Raises:
            MetarepError: on entering, if another process is training here, or has trained another run since.
        """
        busy = MetarepError(
            f"another process is training in {self.path}", advice=("wait until it has ended", ANOTHER_FOLDER)
        )
        self.path.mkdir(parents=True, exist_ok=True)
        with locked(self.path / ".lock", busy):
            self._refuse_another()
            with keeping_states():
                if not self.begun or not (self.path / SETTINGS).exists():
                    write_values(self.path / SETTINGS, self.record.as_dict())
                    write_values(self.path / ENVIRONMENT, environment())
                if self.beginning and not self.states.files:
                    self.beginning()
            yield

    def log(self, record: dict[str, Any]) -> None:
        """Append a record to ``log.jsonl``, as one line of JSON."""
        with keeping_states(), (self.path / LOG).open("a") as file:
            file.write(json.dumps(record) + "\n")

    def records(self) -> list[dict[str, Any]]:
        """The records in ``log.jsonl``, in order. Lines that were not written completely are left out."""
        path = self.path / LOG
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        return [record for line in lines if (record := _record(line)) is not None]

    def save_model(self, method: Method) -> None:
        """Write ``model.safetensors``: the weights of a method, the record of the run, and the classes seen."""
        with keeping_states():
            save_checkpoint(self.model, method, self.record, self.seen, self.fitted)

    def save_state(self, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
        """Write the state of the training, which resuming needs. The state before it stays in a second file.

        Args:
            tensors: the state, by name.
            header: values that JSON can hold. ``step`` is the number of steps done, and ``validated`` the last step
                after which the weights were validated; if it is missing, that is ``step``.
        """
        more = {"seen": sorted(self.seen), "fitted": sorted(self.fitted)}
        self.states.save(tensors, header | more)

    def load_state(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The tensors and the header of the newest state that is not damaged; None if no state was saved.

        Log lines of later steps are removed. The classes that the saved state had seen are added to ``seen``, because
        the run that it started from may have been replaced since.

        Raises:
            MetarepError: all saved states are damaged.

        Warns:
            DamagedStateWarning: the newest state is damaged, so an older one is returned.
        """
        saved = self.states.load()
        header: dict[str, Any] = saved[1] if saved else {"step": 0}
        self.seen |= set(header.get("seen", ()))
        self.fitted |= set(header.get("fitted", ()))
        step, validated = header["step"], header.get("validated", header["step"])
        kept = [each for each in self.records() if each["step"] <= (validated if "accuracy" in each else step)]
        with keeping_states(), replacing(self.path / LOG) as partial:
            partial.write_text("".join(json.dumps(record) + "\n" for record in kept))
        return saved

    def _refuse_another(self) -> None:
        if not self.begun or not (self.path / SETTINGS).exists():
            return
        before = read_values(self.path / SETTINGS, NO_RUN)
        refuse_differing(self.path, "a run", self.record.differences(before))


def read_record(path: Path) -> RunRecord:
    """The record of a run, from its ``settings.json``.

    Args:
        path: the file.

    Raises:
        MetarepError: the file is damaged, or was not written by this library.
    """
    try:
        return RunRecord.read(read_values(path, NO_RUN))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, MetarepError):
            raise
        raise MetarepError(f"{path} {NO_RUN}", advice=OTHERWISE) from error


def _record(line: str) -> dict[str, Any] | None:
    """A line of the log as a record; None if the line was not written completely."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and "step" in record else None
