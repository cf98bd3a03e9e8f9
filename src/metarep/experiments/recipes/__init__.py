"""Recipes: settings of a training with the published accuracy to compare with, in one TOML file each."""

import tomllib
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from metarep.errors import MetarepError, unknown

JOB = ("data", "size", "encoder", "settings", "train", "init", "teacher", "freeze")
JOB = (*JOB, "labels", "clusters", "partitions", "labels_per_class")


@dataclass(frozen=True)
class Recipe:
    """The content of a file ``recipes/METHOD-NAME.toml``, or of one with another name that says its ``method``.

    Args:
        name: name of the file without its ending, such as ``protonet-omniglot``.
        method: name of the training method.
        about: a description in one line.
        source: the source of the published accuracies.
        job: fields of ``metarep.experiments.job.Job`` without the method. If ``init``, ``teacher`` or
            ``labels = "clusters:..."`` name another recipe, the run of that recipe is used.
        measure: one entry for each measurement, such as ``{"ways": 5, "shots": 1, "published": 98.8}``. ``published``
            is in percent; it is missing if there is no published result. ``{"data": "omniglot-runs"}`` is Lake's runs.
            ``within`` draws tasks within superclasses, and ``only = "val"`` measures on validation classes alone.
        learner: a learner that is measured beside the trained one, as ``evaluate --learner`` takes it; None for none.

    >>> recipe = load_recipe("protonet-omniglot")
    >>> recipe.method, recipe.job["data"]
    ('protonet', 'omniglot:vinyals')
    """

    name: str
    method: str
    about: str
    source: str
    job: dict[str, Any]
    measure: tuple[dict[str, Any], ...]
    learner: str | None = None


def recipe_names(method: str = "") -> list[str]:
    """The names of all recipes, or of those of one method, sorted.

    Args:
        method: how the names must begin; empty for all.

    >>> recipe_names("siamese")
    ['siamese-caltech-101', 'siamese-omniglot']
    """
    names = [entry.name.removesuffix(".toml") for entry in files(__name__).iterdir() if entry.name.endswith(".toml")]
    return sorted(name for name in names if name.startswith(method))


def load_recipe(name: str) -> Recipe:
    """Read a recipe by its name, ``METHOD-NAME``.

    Raises:
        MetarepError: no recipe has this name. The message suggests the closest name and lists the recipes of the same
            method.

    >>> load_recipe("protonet-omniglot").measure[0]["published"]
    98.8
    """
    if name not in recipe_names():
        method, _, _ = name.partition("-")
        raise unknown("recipe", name, recipe_names(f"{method}-") or recipe_names())
    content = tomllib.loads((files(__name__) / f"{name}.toml").read_text())
    job = {key: content[key] for key in JOB if key in content}
    extra = content.keys() - job.keys() - {"method", "about", "source", "measure", "learner"}
    if extra:
        raise MetarepError(f"recipe {name} has unknown entries: {', '.join(sorted(extra))}")
    method = content.get("method", name.partition("-")[0])
    measure = tuple(content.get("measure", ()))
    return Recipe(name, method, content["about"], content["source"], job, measure, content.get("learner"))
