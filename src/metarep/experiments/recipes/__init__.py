"""Recipes: a published setting, its source, and the number it must reach; one TOML file each."""

import tomllib
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from metarep.errors import MetarepError, unknown

JOB = ("data", "size", "encoder", "settings", "train", "init", "labels", "clusters", "partitions", "labels_per_class")


@dataclass(frozen=True)
class Recipe:
    """What a file ``recipes/METHOD-NAME.toml`` says.

    Args:
        name: the file's name without ending, ``protonet-omniglot``.
        about: one line.
        source: where the published numbers are from.
        job: fields of ``metarep.experiments.job.Job`` but for the method. Where ``init`` or
            ``labels = "clusters:..."`` name another recipe, its run is meant.
        measure: ``{"ways": 5, "shots": 1, "published": 98.8}``, one for each setting; without ``published`` where
            nobody printed a number.
    """

    name: str
    method: str
    about: str
    source: str
    job: dict[str, Any]
    measure: tuple[dict[str, Any], ...]


def recipe_names(method: str = "") -> list[str]:
    """All recipes, or those of one method."""
    names = [entry.name.removesuffix(".toml") for entry in files(__name__).iterdir() if entry.name.endswith(".toml")]
    return sorted(name for name in names if name.startswith(method))


def load_recipe(name: str) -> Recipe:
    """The recipe called ``METHOD-NAME``.

    Raises:
        MetarepError: there is none of that name; the nearest is named, and all of its method, if it has one.
    """
    if name not in recipe_names():
        method, _, _ = name.partition("-")
        raise unknown("recipe", name, recipe_names(f"{method}-") or recipe_names())
    content = tomllib.loads((files(__name__) / f"{name}.toml").read_text())
    job = {key: content[key] for key in JOB if key in content}
    extra = content.keys() - job.keys() - {"about", "source", "measure"}
    if extra:
        raise MetarepError(f"recipe {name} has unknown entries: {', '.join(sorted(extra))}")
    method = name.partition("-")[0]
    return Recipe(name, method, content["about"], content["source"], job, tuple(content.get("measure", ())))
