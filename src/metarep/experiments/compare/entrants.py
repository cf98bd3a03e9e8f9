"""Entrants: the rows of a comparison. Each is a method, a run or a reference, with one learner for each seed."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from metarep.data.split import Split
from metarep.errors import MetarepError
from metarep.experiments.compare.trainings import Trained
from metarep.experiments.measurement.measure import pick_learner
from metarep.experiments.measurement.references import has_untrained, raw_pixels, untrained
from metarep.learners import Learner
from metarep.methods import METHODS
from metarep.weights.checkpoint import Checkpoint
from metarep.weights.frozen import FROZEN, load_to_measure
from metarep.weights.hub.names import short_name
from metarep.weights.record import RunRecord

REFERENCE, FEATURES = "reference", "features"
PIXELS, UNTRAINED = "raw pixels", "untrained encoder"


@dataclass(frozen=True)
class Seed:
    """One learner of an entrant.

    Args:
        number: seed of its training.
        run: its run folder or file; empty for a reference.
        open: loads its checkpoint, on the CPU.
        trained: what its training took; None if it was not trained by this comparison.
    """

    number: int
    run: str
    open: Callable[[], Checkpoint] = field(repr=False)
    trained: Trained | None = None


@dataclass(frozen=True)
class Entrant:
    """One row of a comparison.

    Args:
        name: its name in tables.
        family: the family of its method; or ``frozen`` for third-party encoders, ``features`` for files of these, or
            ``reference``.
        paper: authors and year of the method; empty for others.
        seeds: its learners.
    """

    name: str
    family: str
    paper: str
    seeds: tuple[Seed, ...]

    @property
    def reference(self) -> bool:
        """Whether it is raw pixels or the untrained encoder."""
        return self.family == REFERENCE


def of_trainings(trainings: Sequence[Trained]) -> list[Entrant]:
    """One entrant for each method that was trained.

    Args:
        trainings: all trainings on one data set.
    """
    entrants = []
    for method in dict.fromkeys(each.method for each in trainings):
        own = [each for each in trainings if each.method == method]
        seeds = tuple(Seed(each.seed, each.run, _opener(each.run), each) for each in own)
        entrants.append(Entrant(method, METHODS[method].family, METHODS[method].paper, seeds))
    return entrants


def of_runs(names: Sequence[str], learners: Sequence[str] = ()) -> list[Entrant]:
    """Entrants for runs that are trained already. Those that differ in nothing but their seed are one entrant.

    Args:
        names: run folders, files, models that ship, or names of third-party encoders.
        learners: what solves the tasks on the encoder of every run, each in a row of its own; by default the learner
            that was trained with a run.

    Raises:
        MetarepError: there is no such run, its file is damaged, or a learner cannot be used with its encoder.
    """
    groups: list[tuple[RunRecord, list[tuple[str, Checkpoint]]]] = []
    for name in names:
        opened = load_to_measure(name)
        alike = _of_any_seed(opened.record)
        same = next((each for record, each in groups if record == alike and _another_seed(opened, each)), None)
        if same is None:
            groups.append((alike, [(name, opened)]))
        else:
            same.append((name, opened))
    entrants = []
    for record, members in groups:
        seeds = tuple(Seed(each.record.train.seed, name, _opener(name)) for name, each in members)
        called = _called([name for name, _ in members])
        family, paper = FROZEN, ""
        if record.method in METHODS:
            family, paper = METHODS[record.method].family, METHODS[record.method].paper
        entrants.append(Entrant(called, family, paper, seeds))
    return [_with(each, learner) for each in entrants for learner in learners] or entrants


def _with(entrant: Entrant, learner: str) -> Entrant:
    """The same runs with another learner."""

    def opener(seed: Seed) -> Callable[[], Checkpoint]:
        def opened() -> Checkpoint:
            own = seed.open()
            return replace(own, learner=pick_learner(own, learner).eval())

        opened()  # a learner that this encoder cannot have is refused now, and not after trainings
        return opened

    seeds = tuple(replace(each, open=opener(each)) for each in entrant.seeds)
    return replace(entrant, name=f"{entrant.name}, {learner}", seeds=seeds)


def references(first: Entrant, seeds: int) -> list[Entrant]:
    """Raw pixels and the untrained encoder, with the image size and the architecture of another entrant.

    Args:
        first: the other entrant.
        seeds: number of untrained encoders.
    """
    one = first.seeds[0]

    def pixels() -> Checkpoint:
        opened = one.open()
        return replace(opened, learner=raw_pixels(opened.learner.encoder.preprocess).eval(), trained=None)

    def fresh(seed: int) -> Checkpoint:
        opened = one.open()
        return replace(opened, learner=untrained(opened.learner.encoder, seed).eval(), trained=None)

    nothing = Entrant(PIXELS, REFERENCE, "", (Seed(0, "", pixels),))
    if not has_untrained(one.open().learner.encoder):
        return [nothing]
    random = tuple(Seed(seed, "", lambda seed=seed: fresh(seed)) for seed in range(seeds))
    return [Entrant(UNTRAINED, REFERENCE, "", random), nothing]


def unmeasurable(learner: Learner, ways: range) -> bool:
    """Whether a learner cannot answer tasks of these ways, because its head has a fixed number of rows."""
    return learner.ways is not None and {*ways} != {learner.ways}


def refuse_leaks(entrants: Sequence[Entrant], split: Split, data: str) -> None:
    """Raise if a run was trained on the classes of a split.

    Args:
        entrants: the runs.
        split: images and labels of the test classes.
        data: the data set.

    Raises:
        LeakageError: the message names the run and a class.
    """
    for entrant in entrants:
        for seed in entrant.seeds:
            try:
                seed.open().refuse_leak(split.labels, split.name, data, "test")
            except MetarepError as error:
                raise type(error)(f"{seed.run}: {error.message}", advice=error.advice) from error


def parameters_of(learner: Learner) -> int:
    """The number of weights of a learner, all of which are read for an answer."""
    return sum(weight.numel() for weight in learner.parameters())


def _opener(name: str) -> Callable[[], Checkpoint]:
    return lambda: load_to_measure(name)


def _of_any_seed(record: RunRecord) -> RunRecord:
    return replace(record, train=replace(record.train, seed=0))


def _another_seed(opened: Checkpoint, members: Sequence[tuple[str, Checkpoint]]) -> bool:
    """Whether a run was trained with a seed that none of the members has. An encoder without a training has no seed."""
    seed = opened.record.train.seed
    return opened.record.method in METHODS and all(each.record.train.seed != seed for _, each in members)


def _called(names: Sequence[str]) -> str:
    """The name of runs that differ in their seed: what their folders have in common.

    >>> _called(["runs/maml-0", "runs/maml-1"]), _called(["runs/maml-0"])
    ('maml', 'maml-0')
    """
    stems = [short_name(name).removesuffix(".safetensors") for name in names]
    if len(stems) == 1:
        return stems[0]
    short = {re.sub(r"[-_]?(seed[-_]?)?\d+$", "", stem) for stem in stems}
    return short.pop() if len(short) == 1 and "" not in short else stems[0]
