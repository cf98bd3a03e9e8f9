"""compare: train what is missing, measure everything on the same test tasks, and write the page and the tables."""

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch

from metarep.data.datasets import load_dataset
from metarep.data.split import Split
from metarep.data.task_file import keep_tasks
from metarep.encoders import Preprocess, build_encoder
from metarep.errors import MetarepError
from metarep.experiments.compare.content import content_of, write_all
from metarep.experiments.compare.entrants import (
    Entrant,
    of_runs,
    of_trainings,
    references,
    refuse_leaks,
    unmeasurable,
)
from metarep.experiments.compare.features import compare_features, of_features
from metarep.experiments.compare.findings import Findings
from metarep.experiments.compare.measurements import Measurement, Measurements
from metarep.experiments.compare.plan import Comparison
from metarep.experiments.compare.progress import Outlook
from metarep.experiments.compare.trainings import Machine, Trained, Trainings
from metarep.experiments.json_files import ANOTHER_FOLDER, read_values, refuse_differing, write_values
from metarep.experiments.measurement.measure import Setting
from metarep.experiments.measurement.prepared import Prepared
from metarep.experiments.pretrained import is_pretrained, open_pretrained
from metarep.experiments.readings import Watch
from metarep.machine.device import pick_device
from metarep.machine.files import locked
from metarep.weights.checkpoint import Checkpoint

COMPARE = "compare.json"  # in the folder: what all its trainings share


class Compared(NamedTuple):
    """What a comparison has found.

    Attributes:
        findings: the figures.
        content: the content of ``results.json``.

    >>> nothing = Compared(Findings([], []), {"seeds": 3})
    >>> nothing.findings.entrants, nothing.content["seeds"]
    ([], 3)
    """

    findings: Findings
    content: dict[str, Any]


def compare(
    plan: Comparison,
    out: Path,
    *,
    device: str = "auto",
    precision: str = "auto",
    data_dir: Path | None = None,
    skip_bad: bool = False,
    watch: Watch | None = None,
    save_to: Path | None = None,
) -> Compared:
    """Train what is missing, measure everything on the same test tasks, and write the page and the tables.

    A comparison that was interrupted goes on when it is called again: trainings at their last saved state, measurements
    at the first one that is missing. The same folder takes more methods, runs, seeds, ways and shots later. All
    trainings come before the first measurement on test classes. Nothing is chosen by a measurement.

    Args:
        plan: what is compared.
        out: a folder for ``report.html``, ``results.md``, ``results.csv``, ``runs.csv``, ``differences.csv``,
            ``results.json``, and for the run folders of the trainings in ``runs``.
        device, precision: device and precision of the trainings. Measurements are in float32.
        data_dir: folder of downloaded data sets; None for the default.
        skip_bad: leave out images that cannot be read, with a warning for each.
        watch: called now and then with ``phase``, ``step``, ``steps`` and ``seconds_left``; the time is that of the
            whole comparison.
        save_to: a file for the tasks, so that other libraries can be measured on them. They must be of one data set,
            with one number or range of ways and of shots.

    Returns:
        The figures, and the content of ``results.json``.

    Raises:
        LeakageError: a run was trained on the test classes.
        MetarepError: an unknown run, test classes that cannot give the tasks, or a folder of another comparison.

    >>> import tempfile
    >>> from PIL import Image
    >>> folder = Path(tempfile.mkdtemp())
    >>> for i in range(8):  # horizontal lines are one class, and vertical lines another
    ...     image, file = torch.zeros(28, 28, dtype=torch.uint8), folder / "test" / "hv"[i % 2] / f"{i}.png"
    ...     (image.T if i % 2 else image)[2 + 3 * i] = 255
    ...     file.parent.mkdir(parents=True, exist_ok=True)
    ...     Image.fromarray(image.numpy()).save(file)
    >>> tasks = {"ways": (range(2, 3),), "queries": 3, "tasks": 20}
    >>> plan = Comparison((f"folder:{folder}",), runs=("omniglot-protonet",), size=28, **tasks)
    >>> findings = compare(plan, Path(tempfile.mkdtemp(), "out"), device="cpu").findings
    >>> [findings.cell(name, findings.places[0]).accuracy for name in ("omniglot-protonet", "raw pixels")]
    [100.0, 0.0]
    """
    out, began = Path(out), time.perf_counter()
    if save_to and len(plan.data) * len(plan.ways) * len(plan.shots) > 1:
        raise MetarepError(
            "a file holds one set of tasks; give one data set and one number or range of ways and of shots"
        )
    if of_features(plan):
        return Compared(*compare_features(plan, out, save_to))
    machine = Machine(device, precision, data_dir, skip_bad)
    splits = _Splits(plan, machine)
    # first of all, for data that cannot give the tasks
    settings = {data: plan.settings(splits.of(data)) for data in plan.data}
    plan = plan.shaped(settings[plan.data[0]][0])
    given = of_runs(plan.runs, plan.learners)
    for data in plan.data:
        refuse_leaks(given, splits.of(data), data)
    trainings = Trainings(plan, out, machine)
    names = trainings.names
    _refuse_another(plan, out)
    if out.is_file():
        raise MetarepError(f"{out} is a file and not a folder", advice=(ANOTHER_FOLDER,))
    _refuse_encoder(plan, splits.of(plan.data[0]))
    busy = MetarepError(f"another process compares in {out}", advice=("wait until it has ended", ANOTHER_FOLDER))
    out.mkdir(parents=True, exist_ok=True)
    if save_to:
        split = splits.of(plan.data[0])
        keep_tasks(save_to, split, settings[plan.data[0]][0].draw(split.labels))
    with locked(out / ".lock", busy):
        if plan.methods:
            write_values(out / COMPARE, plan.training)
        seeds = plan.seeds if plan.methods else max(len(each.seeds) for each in given)
        count = sum(len(settings[data]) * _learners(plan, given, data, seeds) for data in plan.data)
        outlook = Outlook(len(names), count, plan.budget, watch or (lambda _: None))
        trained = _train_all(trainings, names, outlook)
        every = {data: _entrants(trained, given, data, seeds) for data in plan.data}
        measured = _measure_all(every, splits, settings, Measurements(out, pick_device(device)), outlook)
        unique = {each.name: each for entrants in every.values() for each in entrants}
        findings = Findings([*unique.values()], measured)
        queries = {data: settings[data][0].queries for data in plan.data}
        facts = {data: splits.facts(data) for data in plan.data}
        content = content_of(plan, out, findings, measured, trained, facts, queries, time.perf_counter() - began)
        write_all(out, findings, content, {data: (every[data], splits) for data in plan.data})
    return Compared(findings, content)


class _Splits:
    """Loads the test split of a data set at the image size of a learner. Only the last one is kept in memory."""

    def __init__(self, plan: Comparison, machine: Machine) -> None:
        self.plan, self.machine = plan, machine
        self.kept: dict[tuple[str, int | None], Split] = {}

    def of(self, data: str, opened: Checkpoint | None = None) -> Split:
        size = opened.learner.encoder.preprocess.size[0] if opened else self.plan.size
        key = data, size
        if key not in self.kept:
            depth = opened.record.data.depth if opened else None
            self.kept = {key: load_dataset(data, "test", size=size, depth=depth, **self.machine.reading)}
        return self.kept[key]

    def facts(self, data: str) -> dict[str, Any]:
        """The number of classes and images and the digest of the labels, for each part that the data set has."""
        facts = {}
        for part in ("train", "val", "test"):
            with suppress(MetarepError):  # a folder need not have all parts
                split = load_dataset(data, part, size=self.plan.size, **self.machine.reading)
                facts[part] = {
                    "classes": len(split.labels.names),
                    "images": len(split.bank),
                    "digest": split.labels.digest,
                    "grouped": split.labels.groups is not None,
                }
        return facts


def _refuse_encoder(plan: Comparison, split: Split) -> None:
    """Raise an error for an invalid encoder before anything is written and before any step is timed."""
    if not plan.methods or not plan.encoder:
        return
    if is_pretrained(plan.encoder):
        open_pretrained(plan.encoder, split.bank.size, "none")
        return
    with torch.random.fork_rng(devices=[]):
        build_encoder(preprocess=Preprocess.of(split.bank), **plan.encoder)


def _refuse_another(plan: Comparison, out: Path) -> None:
    """Raise if the folder holds the trainings of another comparison, or files that are not a comparison."""
    path = out / COMPARE
    if not path.exists():
        strange = [each.name for each in out.iterdir() if not each.name.startswith(".")] if out.is_dir() else []
        if strange and not (out / "results.json").exists() and "measured" not in strange:
            raise MetarepError(f"{out} holds {strange[0]} and no comparison", advice=ANOTHER_FOLDER)
        return
    before, now = read_values(path), plan.training if plan.methods else {}
    differing = [(name, before.get(name), now[name]) for name in now if before.get(name) != now[name]]
    refuse_differing(out, "a comparison", differing)


def _learners(plan: Comparison, given: Sequence[Entrant], data: str, seeds: int) -> int:
    """The number of learners that are measured on a data set, of which raw pixels are one."""
    own = len(plan.trained(data)) * plan.seeds if plan.methods else 0
    return own + sum(len(each.seeds) for each in given) + seeds + 1


def _train_all(trainings: Trainings, names: Sequence[tuple[str, str, int]], outlook: Outlook) -> list[Trained]:
    trained = []
    for method, data, seed in names:
        finished = trainings.done(method, data, seed) is not None
        trained.append(trainings.run(method, data, seed, outlook.training(f"{method}, {data}, seed {seed}")))
        outlook.training_done(now=not finished)
    return trained


def _entrants(trained: Sequence[Trained], given: Sequence[Entrant], data: str, seeds: int) -> list[Entrant]:
    """The rows on one data set, with names that differ."""
    own = of_trainings([each for each in trained if each.data == data])
    taken = {each.name for each in own}
    for each in given:
        name = each.name if each.name not in taken else each.seeds[0].run
        taken.add(name)
        own.append(Entrant(name, each.family, each.paper, each.seeds))
    return [*own, *references(own[0], seeds)]


def _measure_all(
    every: dict[str, list[Entrant]],
    splits: _Splits,
    settings: dict[str, list[Setting]],
    measurements: Measurements,
    outlook: Outlook,
) -> list[Measurement]:
    measured = []
    for data, entrants in every.items():
        for entrant in entrants:
            for seed in entrant.seeds:
                opened = seed.open()
                split = splits.of(data, opened)
                if not entrant.reference:
                    opened.refuse_leak(split.labels, split.name, data, "test")
                prepared = Prepared()
                for setting in settings[data]:
                    name = f"{entrant.name}, {data} {setting.shape}"
                    if unmeasurable(opened.learner, setting.ways):
                        outlook.measuring_done(name, now=False)
                        continue
                    with torch.no_grad():
                        on_progress = outlook.measuring(name)
                        one = measurements.measure(entrant, seed, opened, data, split, setting, on_progress, prepared)
                    measured.append(one)
                    outlook.measuring_done(name, now=True)
    return measured
