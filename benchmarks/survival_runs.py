"""The trainings that survival.py disturbs: forks of ``metarep train``, what they leave on the disk, and comparisons."""

import contextlib
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
import torch._dynamo  # AdamW imports it: seconds, which are spent once, before the forks

from metarep.cli import main as metarep
from metarep.errors import MetarepError
from metarep.experiments import start  # noqa: F401 - imported once, before the forks
from metarep.experiments.saved_states import NEXT, STATE, SavedStates, read_state
from metarep.machine.files import read_tensors

TASKS = "--ways 5 --shots 2 --queries 3"
METHODS = {
    "protonet": f"{TASKS} --augment drawings",
    "siamese": "--ways 8 --shots 2",
    "triplet": "--ways 8 --shots 2 --mine index --mine-every 5",
    "baseline": "--ways 8 --shots 2",
    "maml": f"{TASKS} --tasks 1 --rates layer --test-steps 1",
    "anil": f"{TASKS} --tasks 2",
    "reptile": f"{TASKS} --tasks 1 --inner-steps 2 --test-steps 2",
    "simclr": "--images 16",
    "moco": "--images 16 --queue 64",
    "byol": "--images 16",
    "supcon": "--ways 8 --shots 2",
}
SAVE = 3  # steps between saved states; validated every 8 steps, so most states are between two validations
SHARED = (
    f"--data glyphs --width 8 --save-every {SAVE} --validate-every 8 --validation-tasks 4 --validation-ways 5 "
    "--threads 1 --device cpu --precision float32 --json"
)
CLOCK = ("seconds", "images_per_second", "seconds_left", "digest")
LIMIT = 300.0  # seconds after which a process hangs


T = TypeVar("T")


class LostError(Exception):
    """Something was lost, or was not said; the message says what."""


class Ended(NamedTuple):
    code: int  # as of subprocess: -9 for SIGKILL
    text: str


class Child:
    """``metarep train`` in a fork of this process; ``before`` is called in it first."""

    def __init__(self, arguments: list[str], before: Callable[[], object] = lambda: None) -> None:
        self.name = Path(arguments[-1]).name
        self.output = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the child; the run's disk may be full
        self.pid = os.fork()
        if self.pid == 0:
            code = 70
            try:
                for stream in (1, 2):
                    os.dup2(self.output.fileno(), stream)
                before()
                code = metarep(arguments)
            except SystemExit as error:
                code = int(error.code or 0)
            except BaseException:
                traceback.print_exc()
            finally:  # nothing of the parent may run in the child
                sys.stdout.flush()
                os._exit(code)

    def ended(self) -> Ended | None:
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if not pid:
            return None
        self.output.seek(0)  # not earlier, because the child writes at the same position
        return Ended(os.waitstatus_to_exitcode(status), self.output.read().decode())

    def wait(self) -> Ended:
        return until(self.ended, f"{self.name} ends")

    def kill(self) -> Ended:
        os.kill(self.pid, signal.SIGKILL)
        return self.wait()


def until(ready: Callable[[], T | None], what: str) -> T:
    """Wait for a value that is not None, False, 0 or empty."""
    limit = time.monotonic() + LIMIT
    while True:
        with contextlib.suppress(MetarepError, OSError):  # a file was renamed between two looks
            if value := ready():
                return value
        if time.monotonic() > limit:
            raise LostError(f"waited {LIMIT:.0f} s in vain: {what}")
        time.sleep(0.002)


def lines(folder: Path, *, validations: bool = False) -> list[dict[str, Any]]:
    """The log without its clock; a line that was not written completely is left out."""
    path = folder / "log.jsonl"
    whole = [line for line in (path.read_text().splitlines() if path.exists() else []) if line.endswith("}")]
    records = [timeless(json.loads(line)) for line in whole]
    return [record for record in records if "accuracy" in record] if validations else records


def timeless(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in CLOCK}


def saved_step(folder: Path) -> int:
    """The step of the newest state; 0 if there is none."""
    paths = SavedStates(folder).files
    return read_state(paths[0])[1]["step"] if paths else 0


def same(one: Path, other: Path, *, every_line: bool = True) -> None:
    """Raise unless two finished runs have the same bits."""
    for file in ("model.safetensors", STATE):
        (tensors, header), (others, heading) = read_tensors(one / file), read_tensors(other / file)
        if tensors.keys() != others.keys() or any(not equal(tensors[name], others[name]) for name in tensors):
            raise LostError(f"{file} of {other.name} has other tensors than that of {one.name}")
        if timeless(header) != timeless(heading):
            raise LostError(f"{file} of {other.name} has another header than that of {one.name}")
    if lines(one, validations=not every_line) != lines(other, validations=not every_line):
        raise LostError(f"the log of {other.name} differs from that of {one.name}")


def equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.numpy().tobytes() == other.numpy().tobytes()


def alive(pid: str) -> bool:
    with contextlib.suppress(OSError):
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def die_before(name: str, save: int) -> None:
    """Let this process kill itself just before the rename of a file to this name, at the given save."""
    rename, calls = Path.replace, Counter[str]()

    def replace(path: Path, target: Path) -> Path:
        calls[target.name] += 1
        if target.name == name and calls[NEXT] + (name != NEXT) > save:
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(path, target)

    setattr(Path, "replace", replace)  # noqa: B010
