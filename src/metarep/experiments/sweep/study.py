"""Study: the trials of a sweep in an Optuna storage, which several processes may share."""

import json
import socket
import threading
import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, OptunaError, StorageInternalError
from optuna.pruners import BasePruner
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from metarep.errors import Advice, MetarepError, missing_extra
from metarep.experiments.sweep.sampler import Sampler
from metarep.experiments.sweep.space import Choice, Range, Space
from metarep.machine.files import locked

BEAT = 60.0  # seconds between two heartbeats of a trial
SILENCE = 600.0  # seconds without a heartbeat after which another machine runs the trial again
ATTEMPTS = 5  # to open a storage: two processes that make its tables at the same time disturb each other


@dataclass(frozen=True)
class Attempt:
    """One trial that this process is to run.

    Args:
        trial: Optuna's trial.
        folder: beginning of the names of its run folders; the same if an earlier attempt was interrupted.
        values: the value of each setting.
        again: whether an earlier attempt did not end.
    """

    trial: Trial
    folder: str
    values: dict[str, Any]
    again: bool


class SharedStudy:
    """The trials of one sweep. A trial whose process was killed is run again, with the same values and folder.

    Args:
        storage: a URL of a database, or a path that ends with ``.journal``.
        name: name of the study in it.
        description: what all processes that join it must agree on.
        space: the values of each setting.
        seed: of the sampler.
        pruner: which trials to end early.
        out: the folder of the run folders on this machine.

    Raises:
        MetarepError: the storage cannot be opened, or the study is of another sweep.
    """

    def __init__(
        self,
        storage: str,
        name: str,
        description: dict[str, Any],
        space: Space,
        seed: int,
        pruner: BasePruner,
        out: Path,
    ) -> None:
        self.space, self.out, self.name = space, out, name
        warnings.simplefilter("ignore", ExperimentalWarning)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.study = optuna.create_study(
            storage=open_storage(storage),
            study_name=name,
            sampler=Sampler(space, seed),
            pruner=pruner,
            direction="maximize",
            load_if_exists=True,
        )
        self._refuse_another(json.loads(json.dumps(description)))

    @property
    def trials(self) -> list[FrozenTrial]:
        """The last attempt of each trial, without those that were too many."""
        trials = self.study.get_trials(deepcopy=False)
        repeated = {each.user_attrs.get("again") for each in trials}
        return [each for each in trials if each.number not in repeated and "surplus" not in each.user_attrs]

    @contextmanager
    def next(self, most: int | None) -> Iterator[Attempt | None]:
        """A context with the next trial to run, which is this process's own; None if ``most`` trials have been begun.

        Args:
            most: number of trials of the whole study; None for any number.
        """
        self._repeat_interrupted()
        waiting = any(each.state == TrialState.WAITING for each in self.study.get_trials(deepcopy=False))
        if not waiting and most is not None and len(self.trials) >= most:
            yield None
            return
        trial = self.study.ask()
        before = [each for each in self.study.get_trials(deepcopy=False)[: trial.number] if not _again(each)]
        begun = sum("surplus" not in each.user_attrs for each in before)
        if not _again(trial) and most is not None and begun >= most:
            trial.set_user_attr("surplus", True)  # another process has begun the last one at the same moment
            self.study.tell(trial, state=TrialState.FAIL)
            yield None
            return
        rank = trial.user_attrs.get("rank", len(before))
        with locked(self._lock(rank)), _beating(trial):
            trial.set_user_attr("rank", rank)
            trial.set_user_attr("at", self._here)
            values = {name: _suggest(trial, name, each) for name, each in self.space.items()}
            yield Attempt(trial, folder_of(rank), values, again=_again(trial))

    def tell(self, trial: Trial, value: float | None, state: TrialState) -> None:
        """Store the result of a trial, unless another process took it for interrupted and has it run again."""
        with suppress(ValueError, OptunaError):
            self.study.tell(trial, value, state)

    def _repeat_interrupted(self) -> None:
        for each in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if self._interrupted(each):
                with suppress(ValueError, OptunaError):  # another process was faster
                    self.study.tell(each.number, state=TrialState.FAIL)
                    self.study.enqueue_trial(each.params, {"again": each.number, "rank": each.user_attrs["rank"]})

    def _interrupted(self, trial: FrozenTrial) -> bool:
        """Whether the process that ran a trial has ended: by its lock on this machine, by its heartbeat on another."""
        if trial.user_attrs.get("at") == self._here and self._lock(trial.user_attrs["rank"]).exists():
            try:
                with locked(self._lock(trial.user_attrs["rank"]), MetarepError("it is running")) as held:
                    return held
            except MetarepError:
                return False
        return "rank" in trial.user_attrs and time.time() - trial.user_attrs["beat"] > SILENCE

    @property
    def _here(self) -> str:
        """A unique name of this machine and of the folder on it. Other machines may have the same host name."""
        return f"{socket.gethostname()}-{uuid.getnode():x}:{self.out.resolve()}"

    def _lock(self, rank: int) -> Path:
        return self.out / f".{folder_of(rank)}.lock"

    def _refuse_another(self, description: dict[str, Any]) -> None:
        saved = self.study.user_attrs.get("sweep")
        if saved is None:
            self.study.set_user_attr("sweep", description)
            return
        for name in sorted(saved.keys() | description.keys()):
            was, now = saved.get(name), description.get(name)
            if was != now:
                advice = Advice("choose another {out} or {study}", out=..., study=...)
                raise MetarepError(f"study {self.name} is a sweep with {name} = {was!r}, not {now!r}", advice=advice)


def folder_of(rank: int) -> str:
    """The beginning of the names of a trial's run folders.

    >>> folder_of(3)
    'trial-0003'
    """
    return f"trial-{rank:04d}"


def open_storage(text: str) -> BaseStorage:
    """Open the storage of a study, and make its tables if it has none.

    Args:
        text: a URL, such as ``postgresql://host/database`` or ``sqlite:///study.db``; or a path that ends with
            ``.journal``, for a file that several machines share.

    Raises:
        MetarepError: the URL is wrong, its driver is not installed, or the database cannot be reached.
    """
    if text.endswith(".journal"):
        return JournalStorage(JournalFileBackend(text))
    try:
        url = make_url(text)
    except SQLAlchemyError:
        raise MetarepError(
            f"the storage {text!r} is neither a URL nor a path that ends with .journal",
            advice="write sqlite:///FILE, postgresql://USER@HOST/DATABASE or FILE.journal",
        ) from None
    if url.drivername in ("postgresql", "postgres"):
        url = url.set(drivername="postgresql+psycopg")  # the driver that the extra pgvector installs
    options = {"connect_args": {"timeout": 60}} if url.drivername.startswith("sqlite") else {}
    for attempt in range(ATTEMPTS):
        try:
            return RDBStorage(url.render_as_string(hide_password=False), engine_kwargs=options)
        except ImportError as error:
            if url.drivername.startswith("postgresql"):
                raise missing_extra(f"the storage {url!r}", "psycopg", "pgvector") from error
            package = getattr(error.__cause__, "name", None) or "a driver"
            raise MetarepError(f"the storage {url!r} needs {package}, which is not installed") from error
        except SQLAlchemyError as error:
            if attempt == ATTEMPTS - 1:
                raise MetarepError(f"the storage {url!r} cannot be opened: {_reason(error)}") from error
            time.sleep(0.3 * (attempt + 1))
    raise AssertionError("unreachable")


@contextmanager
def reachable() -> Iterator[None]:
    """A context that turns errors of a database into a :class:`MetarepError`.

    Raises:
        MetarepError: the database could not be read or written.
    """
    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        advice = "start the same sweep again when it can be reached; it goes on from there"
        raise MetarepError(f"the storage of the sweep fails: {_reason(error)}", advice=advice) from error


def _reason(error: Exception) -> str:
    """The first line of the driver's own message."""
    source = error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
    return str(getattr(source, "orig", None) or source).strip().splitlines()[0]


def _again(trial: FrozenTrial | Trial) -> bool:
    """Whether this is a further attempt at a trial that was interrupted."""
    return "again" in trial.user_attrs


def _suggest(trial: Trial, name: str, values: Choice | Range) -> Any:  # noqa: ANN401 - the value of any setting
    if isinstance(values, Choice):
        return trial.suggest_categorical(name, values.values)
    if isinstance(values.low, int) and isinstance(values.high, int):
        return trial.suggest_int(name, values.low, values.high, log=values.log)
    return trial.suggest_float(name, values.low, values.high, log=values.log)


@contextmanager
def _beating(trial: Trial) -> Iterator[None]:
    """Store a heartbeat of a trial every minute, so that other machines know that it is still running."""
    end = threading.Event()

    def beat() -> None:
        while not end.wait(BEAT):
            with suppress(Exception):  # a database that cannot be reached for a while
                trial.set_user_attr("beat", time.time())

    trial.set_user_attr("beat", time.time())
    thread = threading.Thread(target=beat, name="beat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
