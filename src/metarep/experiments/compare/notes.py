"""The last sections of the page: how the figures were measured, all settings, and the commands that repeat them."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metarep.data.datasets import about
from metarep.experiments.compare.entrants import FEATURES
from metarep.experiments.page.words import listed
from metarep.weights.frozen import FROZEN
from metarep.weights.hub.contents import SETTINGS

REFERENCES = {
    "references": "class means (cosine) of raw pixels, and of an encoder with random weights for each seed",
    "memory": "the most that a training took, in addition to what the process held before",
}


def how_measured(content: Mapping[str, Any]) -> dict[str, Any]:
    """The protocol, the data, the tasks and the trainings, for the section on measurements."""
    plan, rows, runs = content["plan"], content["rows"], content["runs"]
    packages = ", ".join(f"{name} {version}" for name, version in content["environment"]["packages"].items())
    protocols = sorted({row["protocol"] for row in rows})
    norms = listed(sorted({row["normalisation"] for row in rows if row["normalisation"] != "none"}) or ["no"])
    given = {row["run"] for row in runs if row["family"] == FEATURES}
    facts = {name: "arrays that were given" if given else about(name.partition(":")[0]) for name in plan["data"]}
    facts |= {
        f"classes of {name}": "; ".join(
            f"{part} {each['classes']:,}, with {each['images']:,} images (labels {each['digest']})"
            for part, each in parts.items()
        )
        for name, parts in content["data"].items()
        if parts
    }
    facts["protocol"] = f"{listed(protocols)}; normalisation by {norms} statistics; the test split is touched only here"
    if any(part.get("grouped") for parts in content["data"].values() for part in parts.values()):
        facts["groups"] = "support and query images of a class never share a group (a typeface)"
    facts |= {
        "intervals": "of accuracies: 1.96 standard errors over tasks, of the mean over seeds; of differences: "
        "Student's t over tasks, and over seeds where there are several",
        "significance": f"at 0.05 after Holm's correction for all {len(content['differences']):,} pairs of this page",
        **({} if given else REFERENCES),
        "hardware": rows[0]["hardware"],
        "versions": f"Python {content['environment']['python']}, {packages}",
        "time": f"{content['seconds']:,.0f} s of the last call, in which finished parts were not repeated",
    }
    if plan["budget"] is not None:
        facts["budget"] = (
            f"{plan['budget']:g} s of steps and validations. The first steps of each method were timed before its "
            "training, and the number of steps follows; all seeds have the same. The seconds in the tables are measured"
        )
    tasks = {(row["data"], row["ways"], row["shots"]): row for row in runs}
    return {
        "facts": facts,
        "tasks": [(f"{data}, {ways}-way {shots}-shot", row) for (data, ways, shots), row in tasks.items()],
        "trainings": [_training(content, each) for each in content["trainings"]],
    }


def _training(content: Mapping[str, Any], trained: Mapping[str, Any]) -> dict[str, Any]:
    budget = content["plan"]["budget"]
    off = budget is not None and abs(trained["seconds"] / budget - 1) > 0.25
    return {
        "name": f"{trained['method']}, {trained['data']}, seed {trained['seed']}",
        "steps": f"{trained['kept_step']:,} of {trained['steps']:,}",
        "seconds": f"{trained['seconds']:,.1f}",
        "off": off,
        "memory": "–" if trained["memory"] is None else f"{trained['memory'] / 2**20:,.0f}",
        "precision": trained["precision"],
        "validation": trained["accuracy"],
        "on": trained["validated_on"],
        "settings": _settings(Path(trained["run"])),
    }


def _settings(run: Path) -> str:
    """The settings in a run folder as lines of text."""
    path = run / SETTINGS
    record = json.loads(path.read_text()) if path.exists() else {}
    lines = []
    for part in ("settings", "train", "encoder"):
        own = record.get(part) or {}
        given = (f"{name}={'none' if value is None else value}" for name, value in own.items())
        lines.append(f"{part}: {', '.join(given) or 'defaults'}")
    return "\n".join(lines)


def commands(content: Mapping[str, Any]) -> list[str]:
    """The command that makes this page again, and one that measures each run alone."""
    plan = content["plan"]
    features = any(row["family"] == FEATURES for row in content["runs"])
    flags = [*plan["runs"], *([] if features else ["--data", ",".join(plan["data"])])]
    flags += [flag for learner in plan["learners"] for flag in ("--learner", learner)]
    given = plan["task_file"] is not None
    flags += ["--balance", plan["balance"]] if plan["balance"] != "balanced" and not given else []
    flags += ["--methods", ",".join(plan["methods"])] if plan["methods"] else []
    flags += [] if given else ["--ways", ",".join(plan["ways"]), "--shots", ",".join(plan["shots"])]
    flags += ["--budget", f"{plan['budget']:g}s"] if plan["budget"] is not None else []
    flags += ["--recipes"] if plan["recipes"] else []
    flags += ["--seeds", str(plan["seeds"])] if plan["methods"] else []
    drawn = ["--tasks", str(plan["tasks"]), "--task-seed", str(plan["task_seed"])]
    flags += ["--tasks", plan["task_file"]] if given else drawn
    for name in ("size", "train_on") if given else ("queries", "size", "train_on"):
        flags += [f"--{name.replace('_', '-')}", str(plan[name])] if plan[name] is not None else []
    for name, value in (plan["encoder"] or {}).items():
        flags += [f"--{'encoder' if name == 'name' else name}", str(value)]
    again = shlex.join(["metarep", "compare", *flags, "--out", content["out"]])
    return [again, *_alone(content)]


def _alone(content: Mapping[str, Any]) -> list[str]:
    """A command for one run that is measured alone: the first one that is a folder."""
    run = next((row for row in content["runs"] if row["run"]), None)
    if run is None:
        return []
    features = run["family"] == FEATURES
    flags = [] if features else ["--data", run["data"]]
    flags += ["--size", run["size"]] if run["family"] == FROZEN else []
    flags += ["--learner", content["plan"]["learners"][0]] if content["plan"]["learners"] else []
    drawn = ["--ways", run["ways"], "--shots", run["shots"], "--queries", run["queries"]]
    drawn += ["--tasks", run["tasks"], "--seed", content["plan"]["task_seed"]]
    flags += ["--tasks", content["plan"]["task_file"]] if content["plan"]["task_file"] else drawn
    of = ["--features", run["run"]] if features else [run["run"]]
    return [shlex.join(["metarep", "evaluate", *of, *map(str, flags)])]
