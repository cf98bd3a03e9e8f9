"""Trainings: train what is missing in run folders of its own, and keep what each training took."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from metarep.errors import MetarepError
from metarep.experiments.compare.budget import pace_of
from metarep.experiments.compare.plan import Comparison
from metarep.experiments.job import Job
from metarep.experiments.json_files import OTHERWISE, read_values, refuse_differing, write_values
from metarep.experiments.readings import Watch
from metarep.experiments.recipes import load_recipe
from metarep.experiments.reproduce import recipe_job
from metarep.experiments.run_folder import LOG, MODEL
from metarep.experiments.start import start_on
from metarep.machine.device import pick_device, pick_precision
from metarep.machine.peak import peak_memory

RUNS, TRAINED, PACES = "runs", "trained", "budget.json"


@dataclass(frozen=True)
class Machine:
    """Where trainings run, and how images are read.

    Args:
        device, precision: of the trainings.
        data_dir: folder of downloaded data sets; None for the default.
        skip_bad: leave out images that cannot be read.
    """

    device: str = "auto"
    precision: str = "auto"
    data_dir: Path | None = None
    skip_bad: bool = False

    @property
    def reading(self) -> dict[str, Any]:
        """The arguments of :func:`metarep.data.datasets.load_dataset` that say how images are read."""
        return {"data_dir": self.data_dir, "skip_bad": self.skip_bad}


@dataclass(frozen=True)
class Trained:
    """A finished training, and what it took.

    Args:
        method, data, seed: what was trained.
        run: its run folder.
        seconds: time of steps and validations.
        steps: number of steps; ``kept_step`` is the one whose weights were kept.
        accuracy: validation accuracy of these weights in percent; None without validation.
        validated_on: shape of the validation tasks.
        memory: the most memory that it took, in bytes; None if it is not known.
        precision: of its arithmetic.
        curve: step and accuracy in percent, with half its 95 % interval, of each validation.
    """

    method: str
    data: str
    seed: int
    run: str
    seconds: float
    steps: int
    kept_step: int
    accuracy: float | None
    validated_on: str
    memory: int | None
    precision: str
    curve: list[list[float]]


class Trainings:
    """All trainings of a comparison, in the folder ``out``; each is a run folder ``out/runs/METHOD-DATA-SEED``.

    What has been trained is not trained again, and a training that was interrupted goes on.

    Args:
        plan: what is compared.
        out: the folder.
        machine: where to train.
    """

    def __init__(self, plan: Comparison, out: Path, machine: Machine) -> None:
        self.plan, self.out, self.machine = plan, out, machine

    @property
    def names(self) -> list[tuple[str, str, int]]:
        """Method, data set and seed of each training, in order: all methods of a seed, then those of the next."""
        return [
            (method, data, seed)
            for data in (self.plan.data if self.plan.methods else ())
            for seed in range(self.plan.seeds)
            for method in self.plan.trained(data)
        ]

    def folder(self, method: str, data: str, seed: int) -> Path:
        """The run folder of a training."""
        return self.out / RUNS / f"{method}-{file_name(data)}-{seed}"

    def done(self, method: str, data: str, seed: int) -> Trained | None:
        """What a training took, if it is finished; None otherwise.

        Raises:
            MetarepError: the file that says so is damaged.
        """
        path = self._record(method, data, seed)
        if not path.exists() or not (self.folder(method, data, seed) / MODEL).exists():
            return None
        content = read_values(path)
        try:
            return Trained(**{name: value for name, value in content.items() if name != "job"})
        except TypeError as error:
            raise MetarepError(f"{path} does not hold what a training took", advice=OTHERWISE) from error

    def run(self, method: str, data: str, seed: int, watch: Watch) -> Trained:
        """Train one method, unless it is trained already.

        Args:
            method, data, seed: what to train.
            watch: see :func:`metarep.experiments.training.train`.

        Raises:
            MetarepError: its folder holds another training.
        """
        path, folder = self._record(method, data, seed), self.folder(method, data, seed)
        if finished := self.done(method, data, seed):
            self._refuse_another(path, self._described(self._job(method, data, seed, watch)))
            return finished
        device = pick_device(self.machine.device)
        precision = pick_precision(self.machine.precision, device)
        job = self._job(method, data, seed, watch)
        with peak_memory(device) as peak:
            run, outcome = start_on(job, folder, device, precision, **self.machine.reading, watch=watch)
        trained = Trained(
            method=method,
            data=data,
            seed=seed,
            run=str(folder),
            seconds=outcome.seconds,
            steps=run.record.train.steps,
            kept_step=outcome.step,
            accuracy=outcome.accuracy,
            validated_on=outcome.validated_on,
            memory=peak.bytes,
            precision=precision,
            curve=curve_of(folder / LOG),
        )
        write_values(path, asdict(trained) | {"job": self._described(job)})
        return trained

    def _job(self, method: str, data: str, seed: int, watch: Watch) -> Job:
        if not self.plan.recipes:
            return self.plan.job(method, data, seed, self._steps(method, data, watch))
        recipe = load_recipe(f"{method}-{data.partition(':')[0]}")
        machine = asdict(self.machine) | {"watch": watch}
        job = recipe_job(recipe, self.out / RUNS, self.plan.trained_on, seed, machine)
        changes: dict[str, Any] = {"size": self.plan.size, "encoder": self.plan.encoder}
        return replace(job, data=data, **{name: value for name, value in changes.items() if value is not None})

    def _steps(self, method: str, data: str, watch: Watch) -> dict[str, Any]:
        """The settings of a training within the budget. All seeds of a method have the same."""
        if self.plan.budget is None:
            return {}
        path, name = self.out / PACES, f"{method} {data}"
        paces = read_values(path) if path.exists() else {}
        if name not in paces:
            watch({"step": 0, "steps": 1, "images": "timing the first steps"})
            device = pick_device(self.machine.device)
            precision = pick_precision(self.machine.precision, device)
            probe = self.plan.job(method, data, 0, {"validate_every": 1 << 30})
            pace = pace_of(probe, self.plan.budget, device, precision, **self.machine.reading)
            paces[name] = {
                "pace": {"step": pace.step, "validation": pace.validation, "tasks": pace.tasks},
                "train": pace.settings(self.plan.budget),
            }
            write_values(path, paces)
        return paces[name]["train"]

    def _record(self, method: str, data: str, seed: int) -> Path:
        return self.out / TRAINED / f"{self.folder(method, data, seed).name}.json"

    def _described(self, job: Job) -> dict[str, Any]:
        return json.loads(json.dumps(asdict(job)))  # as JSON holds it

    def _refuse_another(self, path: Path, job: dict[str, Any]) -> None:
        before = read_values(path).get("job", {})
        differing = [(name, before.get(name), job[name]) for name in job if before.get(name) != job[name]]
        refuse_differing(self.out, f"a training of {job['method']}", differing)


def curve_of(log: Path) -> list[list[float]]:
    """Step, accuracy and interval of each validation in the log of a run.

    Args:
        log: the file ``log.jsonl``.
    """
    records = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return [[float(each["step"]), each["accuracy"], each["ci95"]] for each in records if "accuracy" in each]


def file_name(data: str) -> str:
    """The name of a data set in names of files.

    >>> file_name("omniglot:vinyals"), file_name("folder:a/b")
    ('omniglot-vinyals', 'folder-a-b')
    """
    return "".join(each if each.isalnum() or each in "-_." else "-" for each in data).strip("-.")
