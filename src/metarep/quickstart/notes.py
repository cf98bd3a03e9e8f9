"""The end of the page: how the numbers were taken, how to take them again, and where to go from here."""

import shlex
from html import escape
from pathlib import Path
from typing import Any

from metarep.datasets import about
from metarep.quickstart.words import listed, shape_name
from metarep.recipes import recipe_names


def how_measured(content: dict[str, Any]) -> str:
    """Protocol, tasks, trainings, machine, and the commands that give the numbers again."""
    rows, data, trainings = content["rows"], content["data"], content["trainings"]
    first, best = rows[0], next(each for each in trainings if each["method"] == content["best"])
    norms = listed(sorted({row["normalisation"] for row in rows if row["family"] != "reference"}))
    apart = "; support and query images of a class never share a group (a typeface)" if data["test"]["grouped"] else ""
    resumed = sum(each["seconds"] for each in trainings) > content["seconds"]
    earlier = "; trainings were taken over from an earlier run" if resumed else ""
    packages = ", ".join(f"{name} {version}" for name, version in content["environment"]["packages"].items())
    facts = {
        "data": f"{data['name']}: {about(data['name'].partition(':')[0])}",
        "classes": "; ".join(
            f"{part} {each['classes']:,}, of {each['images']:,} images (labels {each['digest']})"
            for part, each in data.items()
            if part != "name"
        ),
        "protocol": f"{first['protocol']}: a query's answer never depends on other queries; normalisation by {norms} "
        f"statistics{apart}; the test split is touched only here",
        "interval": "1.96 standard errors over tasks; it says nothing of other seeds of the training",
        "choice": f"of steps, and of the method in the headline: on validation ({content['best']}, "
        f"{_validated(best)}{' of ' * bool(best['validated_on'])}{best['validated_on']})",
        "references": "nearest class mean (cosine) of raw pixels, and of the same encoder with random weights",
        "seed": f"{content['seed']} for weights and batches",
        "hardware": first["hardware"],
        "versions": f"Python {content['environment']['python']}, {packages}",
        "time": f"{content['seconds']:,.0f} s from loading to the last measurement{earlier}",
    }
    described = "".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in facts.items())
    return (
        f"<section><h2>How it was measured</h2><dl>{described}</dl>{_tasks(rows)}{_trainings(trainings)}"
        "<p>The same again, and one number alone:</p>"
        f"<pre>{escape(_again(content))}\n{escape(_alone(first))}</pre></section>"
    )


def what_next(content: dict[str, Any]) -> str:
    """Commands worth typing now."""
    best, run = content["best"], shlex.quote(_run_of(content, content["best"]))
    ways = min(20, content["data"]["test"]["classes"])
    tries = {
        "Harder tasks, on the encoder that is trained already": f"metarep evaluate {run} --ways {ways} --shots 1,5",
        "Another learner on the same representation": f"metarep evaluate {run} --learner linear --shots 5",
        "Your own images, a folder a class": f"metarep train {best} --data folder:PHOTOS --size 84",
        "What else there is to train": "metarep methods",
    }
    if f"{best}-omniglot" in recipe_names():
        tries["The field's classic, to its published numbers (20 minutes)"] = f"metarep train {best} --recipe omniglot"
    listing = "".join(f"<p>{escape(why)}:</p><pre>{escape(command)}</pre>" for why, command in tries.items())
    return f'<section class="next"><h2>What to try next</h2>{listing}</section>'


def _tasks(rows: list[dict[str, Any]]) -> str:
    shapes = {(int(row["ways"]), int(row["shots"])): row for row in rows}
    body = "".join(
        f'<tr><td class="whole">{shape_name(*shape)}</td><td class="number">{row["tasks"]:,}</td>'
        f'<td class="number">{row["queries"]}</td><td class="number"><code>{escape(row["digest"])}</code></td></tr>'
        for shape, row in sorted(shapes.items())
    )
    return (
        '<div class="scroll"><table class="small"><thead><tr><th>tasks</th><th class="number">how many</th>'
        '<th class="number">queries a class</th><th class="number">digest</th></tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _validated(training: dict[str, Any]) -> str:
    accuracy = training["validation_accuracy"]
    return "none" if accuracy is None else f"{accuracy:.1f} %"


def _trainings(trainings: list[dict[str, Any]]) -> str:
    body = "".join(
        f"<tr><td>{escape(each['method'])}<small>{escape(each['paper'])}</small></td>"
        f'<td class="number">{each["kept_step"]:,} of {each["train"]["steps"]:,}</td>'
        f'<td class="number">{each["train"]["lr"]:g}</td><td class="number">{escape(each["precision"])}</td>'
        f'<td class="number">{_validated(each)}</td></tr>'
        for each in trainings
    )
    return (
        '<div class="scroll"><table class="small"><thead><tr><th>training</th><th class="number">step kept</th>'
        '<th class="number">learning rate</th><th class="number">precision</th><th class="number">validation</th></tr>'
        f"</thead><tbody>{body}</tbody></table></div>"
    )


def _again(content: dict[str, Any]) -> str:
    flags = ["--data", content["data"]["name"]] if content["data"]["name"] != "glyphs" else []
    flags += ["--seed", str(content["seed"])] if content["seed"] else []
    return shlex.join(["metarep", "quickstart", *flags, "--out", str(Path(content["report"]).parent)])


def _alone(row: dict[str, Any]) -> str:
    flags = ["--ways", row["ways"], "--shots", row["shots"], "--queries", row["queries"], "--tasks", row["tasks"]]
    return shlex.join(["metarep", "evaluate", row["run"], *map(str, flags)])


def _run_of(content: dict[str, Any], method: str) -> str:
    return next(each["run"] for each in content["trainings"] if each["method"] == method)
