"""The last sections of the page: how the numbers were measured, how to reproduce them, and what to try next."""

import shlex
from pathlib import Path
from typing import Any

from metarep.data.datasets import about
from metarep.experiments.page.words import listed, shape_name, validated
from metarep.experiments.recipes import recipe_names


def how_measured(content: dict[str, Any]) -> dict[str, Any]:
    """The values of the section on measurements: protocol, tasks, machine, and the commands that reproduce them."""
    rows, data, trainings = content["rows"], content["data"], content["trainings"]
    first, best = rows[0], next(each for each in trainings if each["method"] == content["best"])
    norms = listed(sorted({row["normalisation"] for row in rows if row["family"] != "reference"}))
    apart = "; support and query images of a class never share a group (a typeface)" if data["test"]["grouped"] else ""
    resumed = sum(each["seconds"] for each in trainings) > content["seconds"]
    earlier = "; trainings of an earlier run were used" if resumed else ""
    packages = ", ".join(f"{name} {version}" for name, version in content["environment"]["packages"].items())
    facts = {
        "data": f"{data['name']}: {about(data['name'].partition(':')[0])}",
        "classes": "; ".join(
            f"{part} {each['classes']:,}, with {each['images']:,} images (labels {each['digest']})"
            for part, each in data.items()
            if part != "name"
        ),
        "protocol": f"{first['protocol']}: a query's answer never depends on other queries; normalisation by {norms} "
        f"statistics{apart}; the test split is touched only here",
        "interval": "1.96 standard errors over tasks; it does not include the variation between seeds of the training",
        "choice": f"of steps, and of the method in the headline: on validation ({content['best']}, "
        f"{validated(best['validation_accuracy'])}{' of ' * bool(best['validated_on'])}{best['validated_on']})",
        "references": "nearest class mean (cosine) of raw pixels, and of the same encoder with random weights",
        "seed": f"{content['seed']} for weights and batches",
        "hardware": first["hardware"],
        "versions": f"Python {content['environment']['python']}, {packages}",
        "time": f"{content['seconds']:,.0f} s from loading to the last measurement{earlier}",
    }
    shapes = {(int(row["ways"]), int(row["shots"])): row for row in rows}
    return {
        "facts": facts,
        "tasks": [(shape_name(*shape), row) for shape, row in sorted(shapes.items())],
        "commands": [_again(content), _alone(first)],
    }


def what_next(content: dict[str, Any]) -> dict[str, str]:
    """Commands to try next, by their purpose."""
    best, run = content["best"], shlex.quote(_run_of(content, content["best"]))
    ways = min(20, content["data"]["test"]["classes"])
    tries = {
        "Harder tasks, on the encoder that is trained already": f"metarep evaluate {run} --ways {ways} --shots 1,5",
        "Another learner on the same representation": f"metarep evaluate {run} --learner linear --shots 5",
        "Your own images, a folder a class": f"metarep train {best} --data folder:PHOTOS --size 84",
        "What else there is to train": "metarep methods",
    }
    if f"{best}-omniglot" in recipe_names():
        tries["The field's classic, beside its published numbers (20 minutes)"] = f"metarep reproduce {best}-omniglot"
    return tries


def _again(content: dict[str, Any]) -> str:
    flags = ["--data", content["data"]["name"]] if content["data"]["name"] != "glyphs" else []
    flags += ["--seed", str(content["seed"])] if content["seed"] else []
    return shlex.join(["metarep", "quickstart", *flags, "--out", str(Path(content["report"]).parent)])


def _alone(row: dict[str, Any]) -> str:
    flags = ["--ways", row["ways"], "--shots", row["shots"], "--queries", row["queries"], "--tasks", row["tasks"]]
    return shlex.join(["metarep", "evaluate", row["run"], *map(str, flags)])


def _run_of(content: dict[str, Any], method: str) -> str:
    return next(each["run"] for each in content["trainings"] if each["method"] == method)
