"""An interrupted training loses nothing: damaged states, signals, full disks, and saves between validations."""

import errno
import random
import re
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from trainings import SMALL, Case, Drawings, Make, PulledError, build, folder, pull_at, same, without_clock

from metarep.data.split import Split
from metarep.errors import MetarepError
from metarep.experiments.run_folder import RunFolder
from metarep.experiments.saved_states import DamagedStateWarning, SavedStates, read_state
from metarep.experiments.training import train
from metarep.machine import files
from metarep.methods import Method
from metarep.weights.settings import TrainSettings

LOOP = sys.modules[train.__module__]
SETTINGS = TrainSettings(**SMALL, save_every=3)  # validated every 4 steps: most states are between two validations
Watch = Callable[[dict[str, Any]], None]


class Runs:
    """Trainings in folders of one folder, started and resumed with new objects."""

    def __init__(self, path: Path, drawings: Drawings, make: Make) -> None:
        self.path, self.drawings, self.make = path, drawings, make

    def start(self, name: str, watch: Watch | None = None) -> tuple[Method, RunFolder]:
        method, run = build(Case(), self.make), folder(self.path / name, SETTINGS)
        train(method, self.drawings[0], SETTINGS, validation=self.drawings[1], run=run, watch=watch)
        return method, run

    def check(self, name: str = "run") -> None:
        """Resume a training, and compare it with one that was not interrupted."""
        (whole, one), (pieces, other) = self.start("whole"), self.start(name)
        assert same(whole.state_dict(), pieces.state_dict())
        (tensors, header), (others, heading) = (read_state(run.states.newest) for run in (one, other))
        assert same(tensors, others)
        assert without_clock([header]) == without_clock([heading])
        assert without_clock(one.records()) == without_clock(other.records())

    def states(self, name: str = "run") -> SavedStates:
        return SavedStates(self.path / name)

    def step(self, name: str = "run") -> int:
        return read_state(self.states(name).files[0])[1]["step"]


@pytest.fixture
def runs(tmp_path: Path, drawings: Drawings, small_encoder: Make, monkeypatch: pytest.MonkeyPatch) -> Runs:
    monkeypatch.setattr(LOOP, "LOG_EVERY", 1)
    return Runs(tmp_path, drawings, small_encoder)


def at(step: int, kind: str, work: Callable[[], object]) -> Watch:
    """Do something when the loss or the accuracy of this step is logged."""
    return lambda record: work() if record["step"] == step and kind in record else None


def tensors(step: int) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    return {"a": torch.arange(2000.0) + step, "b": torch.tensor(step), "c": torch.zeros(0)}, {"step": step}


@pytest.mark.slow
def test_a_state_between_validations_is_resumed_and_a_damaged_one_is_named(runs: Runs) -> None:
    with pytest.raises(PulledError):
        runs.start("run", pull_at(8))
    assert runs.step() == 6
    newest = runs.states().newest
    newest.write_bytes(newest.read_bytes()[:-100])
    said = rf"^{re.escape(str(newest))} is damaged .* goes on from the state before it, of step 3$"
    with pytest.warns(DamagedStateWarning, match=said):
        runs.check()
    assert newest.with_name("damaged-state.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_step_and_ends_the_training(
    runs: Runs, number: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises((SystemExit, KeyboardInterrupt)) as ended:
        runs.start("run", at(10, "loss", lambda: signal.raise_signal(number)))
    where = f"step 11 of 12 is saved in {runs.path / 'run'}; the same training, started again, goes on from it"
    assert [*caplog.messages, str(ended.value)][0].endswith(f"{number.name}: {where}")
    assert ended.type is (SystemExit if number == signal.SIGTERM else KeyboardInterrupt)
    assert runs.step() == 11
    runs.check()


@pytest.mark.slow
def test_a_signal_during_a_validation_leaves_it_for_later(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    def signalled(*_: object) -> None:
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("the validation went on")

    for step in (4, 12):  # also after the last step
        with monkeypatch.context() as patch, pytest.raises(SystemExit):
            runs.start("run", at(step, "loss", lambda: patch.setattr(LOOP, "evaluate", signalled)))
        assert runs.step() == step
    runs.check()


@pytest.mark.slow
def test_in_another_thread_signals_do_what_they_did(runs: Runs) -> None:
    before = signal.getsignal(signal.SIGTERM)
    handlers: list[object] = []
    watch = at(4, "loss", lambda: handlers.append(signal.getsignal(signal.SIGTERM)))
    thread = threading.Thread(target=runs.start, args=("run", watch))
    thread.start()
    thread.join()
    assert handlers == [before]
    runs.check()


@pytest.mark.slow
def test_after_a_full_disk_the_training_goes_on(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(MetarepError, match=r"No space left.*make room on its disk"):
        runs.start("run", at(8, "loss", lambda: patch.setattr(files, "save_file", full)))
    assert runs.step() == 6
    with monkeypatch.context() as patch, pytest.raises(MetarepError, match=r"run folder cannot be written.*make room"):
        runs.start("run", at(9, "loss", lambda: patch.setattr("json.dumps", full)))
    runs.check()


@pytest.mark.slow
def test_save_every_may_change_and_other_differences_are_all_listed(runs: Runs, drawings: tuple[Split, Split]) -> None:
    with pytest.raises(PulledError):
        runs.start("run", pull_at(8))
    path = runs.path / "run"
    folder(path, replace(SETTINGS, save_every=100))
    said = "holds a run with train.lr = 0.003, not 0.1, and train.steps = 12, not 24; choose another out"
    with pytest.raises(MetarepError, match=re.escape(said)):
        folder(path, replace(SETTINGS, lr=0.1, steps=24))


def test_every_damage_is_recognised(tmp_path: Path) -> None:
    states, generator = SavedStates(tmp_path), random.Random(0)
    for step in (1, 2):
        states.save(*tensors(step))
    content = states.newest.read_bytes()
    for turn in range(60):
        position, damaged = generator.randrange(len(content)), bytearray(content)
        if turn % 3 == 0:
            del damaged[position:]
        elif turn % 3 == 1:
            damaged[position] ^= 1 << generator.randrange(8)
        else:
            damaged[position : position + 100] = bytes(len(damaged[position : position + 100]))
        if bytes(damaged) == content:
            continue  # zeros were written over zeros
        states.newest.write_bytes(damaged)
        with pytest.warns(DamagedStateWarning):
            loaded = states.load()
        assert loaded is not None
        assert loaded[1]["step"] == 1
        states.previous.write_bytes(states.newest.read_bytes())
    states.newest.write_bytes(b"")
    states.previous.write_bytes(content[:-1])
    with pytest.raises(MetarepError, match=r"no saved state of the training in .* can be read: .*state.* damaged.*;"):
        states.load()


@pytest.mark.parametrize("stop", range(3))
def test_a_process_that_dies_between_two_renames_keeps_a_state(
    tmp_path: Path, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the rename to next-state, to previous-state, and to state."""
    states = SavedStates(tmp_path)
    states.save(*tensors(1))
    states.save(*tensors(2))
    rename, calls = Path.replace, iter(range(9))

    def replaced(path: Path, target: Path) -> Path:
        if next(calls) == stop:
            raise PulledError
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replaced)
        with pytest.raises(PulledError):
            states.save(*tensors(3))
    step = 2 if stop == 0 else 3
    for _ in range(2):
        loaded = states.load()
        assert loaded is not None
        assert loaded[1] == {"step": step}
        assert same(loaded[0], tensors(step)[0])
    states.save(*tensors(4))
    assert [read_state(path)[1]["step"] for path in states.files] == [4, step]


def test_a_state_without_a_digest_is_one_of_an_earlier_version(tmp_path: Path) -> None:
    files.write_tensors(tmp_path / "state.safetensors", *tensors(7))
    loaded = SavedStates(tmp_path).load()
    assert loaded is not None
    assert loaded[1] == {"step": 7}
