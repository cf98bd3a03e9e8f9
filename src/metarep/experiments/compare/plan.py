"""Comparison: what is compared, on which tasks, and how it is trained."""

import inspect
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from metarep.data.labels import Labels
from metarep.data.split import Split
from metarep.data.task_file import load_tasks
from metarep.data.tasks import usable_classes
from metarep.errors import Advice, MetarepError, above, unknown
from metarep.experiments.job import Job
from metarep.experiments.measurement.measure import Setting
from metarep.experiments.measurement.report import Balance, span
from metarep.experiments.recipes import recipe_names
from metarep.learners import read_learner
from metarep.methods import METHODS
from metarep.weights.shipped import zoo_names

QUERIES = (15, 10, 5, 2, 1)  # tried in this order, unless the number is given


@dataclass(frozen=True)
class Comparison:
    """What is compared, on which tasks, and how it is trained.

    Args:
        data: the data sets, each as ``name`` or ``name:argument``. Methods are trained on each of them anew.
        methods: names of the methods to train; ``("all",)`` for all of them.
        runs: trained runs to measure as well: run folders, files, models that ship, or names of third-party encoders.
            Those that differ in nothing but their seed are seeds of one row.
        ways, shots: the tasks have every combination of these. Each is a range; tasks vary inside a longer one.
        seeds: number of trainings of each method.
        budget: seconds of training for each method and seed; None for as many steps as a method has by default.
        recipes: train by the recipes of the methods for this data. Of ``all`` methods those without one are left out.
        train_on: ``train``, with validation, or ``trainval``; None for ``trainval`` with recipes, and else ``train``.
        queries: query images of each class; None for 15, or for fewer if the classes are too small.
        tasks: the number of test tasks of each measurement.
        task_seed: seed of the test tasks, which are the same for all.
        task_file: a file of tasks to measure on instead of drawn ones, from :func:`metarep.data.task_file.save_tasks`;
            ways, shots, queries, the number of tasks and their balance are then those of the file.
        learners: what solves the tasks on the encoder of every run, as ``evaluate`` takes it; each makes a row. Empty
            for the learner that was trained with a run.
        balance: how many queries a class has: ``balanced``, or ``dirichlet``.
        size: side of the images in pixels; None for the size of the data set.
        encoder: name and settings of the encoder of the trainings; None for that of the recipe, or ``conv4``.

    Raises:
        MetarepError: there is nothing to compare, a method is unknown, or two values contradict each other.

    >>> Comparison(data=("glyphs",), methods=("protonet", "simclr"), budget=20.0).trained_on
    'train'
    """

    data: tuple[str, ...]
    methods: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    ways: tuple[range, ...] = (range(5, 6),)
    shots: tuple[range, ...] = (range(1, 2),)
    seeds: int = 1
    budget: float | None = None
    recipes: bool = False
    train_on: str | None = None
    queries: int | None = None
    tasks: int = 2000
    task_seed: int = 1
    task_file: str | None = None
    learners: tuple[str, ...] = ()
    balance: Balance = "balanced"
    size: int | None = None
    encoder: dict[str, Any] | None = field(default=None)

    def __post_init__(self) -> None:
        if not self.methods and not self.runs:
            raise MetarepError(
                "there is nothing to compare",
                advice=(
                    Advice("name methods to train with {methods}", methods="protonet,simclr"),
                    Advice("train all with {methods}", methods="all"),
                    "name trained run folders",
                ),
            )
        for name in self.methods:
            if name not in (*METHODS, "all"):
                if name in zoo_names() or Path(name).exists():
                    raise MetarepError(f"{name} is a trained model and no method; name it first, as a run")
                raise unknown("method", name, [*METHODS, "all"])
        kinds = {"methods": self.methods, "runs": self.runs, "data sets": self.data, "learners": self.learners}
        for what, given in kinds.items():
            if twice := sorted({each for each in given if given.count(each) > 1}):
                raise MetarepError(f"{twice[0]} is named twice among the {what}; name it once")
        for name in self.learners:
            read_learner(name)
        if self.learners and not self.runs:
            raise MetarepError("other learners are for runs that are trained already, and none is named; name some")
        above("seeds", self.seeds)
        if self.budget is not None:
            above("budget", self.budget)
        if self.recipes and self.budget is not None:
            raise MetarepError(
                "recipes have numbers of steps of their own, and budget sets another; give one of the two"
            )
        if not self.methods and (self.recipes or self.budget is not None or self.seeds > 1 or self.train_on):
            raise MetarepError(
                "recipes, budget, seeds and train_on are for trainings, and only trained runs are named",
                advice=(
                    Advice("name what to train with {methods}", methods="protonet,simclr"),
                    "leave them out",
                ),
            )
        if self.train_on not in (None, "train", "trainval"):
            raise MetarepError(
                f"train_on must be train or trainval, not {self.train_on!r}; test classes are never trained on"
            )
        if self.task_file and len(self.data) > 1:
            raise MetarepError("a file of tasks is of one data set, and several are named; name one")
        for ways in self.ways:  # a Setting has checks of its own
            Setting(ways, self.shots[0], self.queries or 1, self.tasks)

    @property
    def trained_on(self) -> str:
        """The part of the data that methods are trained on."""
        return self.train_on or ("trainval" if self.recipes else "train")

    def trained(self, data: str) -> list[str]:
        """The methods that are trained on a data set.

        Args:
            data: the data set.

        Raises:
            MetarepError: a method that was named has no recipe for it, or no method has one.
        """
        every = "all" in self.methods
        names = [*METHODS] if every else [*self.methods]
        if not self.recipes:
            return names
        source = data.partition(":")[0]
        without = [name for name in names if f"{name}-{source}" not in recipe_names()]
        having = [name for name in names if name not in without]
        if (without and not every) or not having:
            raise MetarepError(
                f"there is no recipe for {', '.join(without)} on {source}",
                advice=Advice("train by {budget} instead of recipes", budget="10m"),
            )
        return having

    def job(self, method: str, data: str, seed: int, train: dict[str, Any]) -> Job:
        """The training of a method without a recipe.

        Methods whose head has one row for each class are trained for the ways of the test tasks, if these have one
        number of ways. Otherwise their head starts from prototypes, so that one training answers tasks of any ways.
        Validation is on tasks like those of the first measurement, for all methods alike.

        Args:
            method: name of the method.
            data: the data set.
            seed: seed of the training.
            train: settings of the training that follow from the budget.
        """
        settings: dict[str, Any] = {}
        ways, shots = min(min(each) for each in self.ways), min(min(each) for each in self.shots)
        train = {"validation_ways": ways, "validation_shots": shots, **train, "seed": seed}
        if "ways" in inspect.signature(METHODS[method].__init__).parameters:
            if {*self.ways} == {range(ways, ways + 1)}:
                train["ways"] = ways
            else:
                settings["head"] = "prototype"
        encoder = self.encoder or {"name": "conv4"}
        return Job(method, settings, train, data=data, train_on=self.trained_on, size=self.size, encoder=encoder)

    def shaped(self, read: Setting) -> "Comparison":
        """The comparison with the shape of the tasks in its file; without a file it is the same.

        Args:
            read: the tasks of the file, from :meth:`settings`.
        """
        if self.task_file is None:
            return self
        shape: dict[str, Any] = {"queries": read.queries, "tasks": read.tasks, "balance": read.balance}
        return replace(self, ways=(read.ways,), shots=(read.shots,), **shape)

    def settings(self, split: Split | Labels) -> list[Setting]:
        """The test tasks on one data set.

        Args:
            split: images and labels of the test classes; or labels alone, as of features.

        Raises:
            DataError: the classes cannot give such tasks, or a file has tasks of other images.
        """
        if self.task_file is not None:
            return [Setting.of_tasks(load_tasks(Path(self.task_file), split))]
        labels = split.labels if isinstance(split, Split) else split
        most_ways, most_shots = max(max(each) for each in self.ways), max(max(each) for each in self.shots)
        queries = self._queries(labels, most_ways, most_shots)
        usable_classes(labels, most_ways, most_shots, queries)
        how = {"queries": queries, "tasks": self.tasks, "seed": self.task_seed, "balance": self.balance}
        return [Setting(ways, shots, **how) for ways in self.ways for shots in self.shots]

    def _queries(self, labels: Labels, ways: int, shots: int) -> int:
        if self.queries is not None:
            return self.queries
        enough = (number for number in QUERIES if int(labels.can_give(shots, number).sum()) >= ways)
        return next(enough, QUERIES[-1])

    def as_dict(self) -> dict[str, Any]:
        """The values by name, as JSON holds them; ranges as text."""
        spans = {"ways": [span(each) for each in self.ways], "shots": [span(each) for each in self.shots]}
        return asdict(self) | spans | {name: [*getattr(self, name)] for name in ("data", "methods", "runs", "learners")}

    @property
    def training(self) -> dict[str, Any]:
        """The values that all trainings in a folder share."""
        return {
            "budget": self.budget,
            "recipes": self.recipes,
            "train_on": self.trained_on,
            "size": self.size,
            "encoder": self.encoder,
        }
