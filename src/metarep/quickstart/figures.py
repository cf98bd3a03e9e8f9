"""The figures of the page: the chart of shots, the solved tasks, the maps."""

from html import escape

from metarep.quickstart.charts import Point, Series, map_chart, shots_chart
from metarep.quickstart.examples import SolvedTask
from metarep.quickstart.findings import Findings
from metarep.quickstart.words import count, word


def shots_section(found: Findings) -> str:
    ways = found.columns[-1][0]
    lines, references, methods = [], 0, 0
    for row in found.methods():
        if row["family"] == "reference":
            mark, references = f"r{references}", references + 1
        else:
            mark, methods = f"s{methods % 6}", methods + 1
        own = sorted(
            (int(other["shots"]), other["accuracy"], other["ci95"])
            for other in found.content["rows"]
            if (other["method"], other["ways"]) == (row["method"], str(ways))
        )
        lines.append(Series(row["method"], mark, [Point(*point) for point in own]))
    swatch = '<svg class="series {}" viewBox="0 0 26 10" aria-hidden="true"><polyline points="0,5 26,5"/></svg>'
    legend = "".join(f"<li>{swatch.format(line.mark)}{escape(line.name)}</li>" for line in lines)
    return (
        "<section><h2>Accuracy against shots</h2>"
        f"<p>What more examples of each class are worth, in {ways}-way tasks.</p>"
        f'<figure><ul class="legend">{legend}</ul>{shots_chart(lines)}<figcaption>Percent of queries right, on a '
        "scale where halving the errors is about as long a step everywhere; whiskers are 95 % intervals over tasks. "
        "Point at a dot for its value.</figcaption></figure></section>"
    )


def examples_section(found: Findings) -> str:
    best = found.content["best"]
    cards = "".join(_task(task, best, "ink" if found.drawings else "photo") for task in found.examples)
    return (
        f"<section><h2>{count(len(found.examples), 'task').capitalize()}, solved</h2><p>The framed row on top is the "
        f"support: all that is known of the classes. Below each stand queries of that class, as {escape(best)} "
        "judges them: ✓ right; ✕ wrong, with the class it was taken for in the corner. The tasks are the first "
        f'of their seed, not chosen.</p><div class="tasks">{cards}</div></section>'
    )


def _task(task: SolvedTask, best: str, kind: str) -> str:
    ways = len(task.names)
    cells = [
        f'<div class="cell support"><img class="{kind}" src="{picture}" alt="support: {escape(name, quote=True)}" '
        f'title="{escape(name, quote=True)}"></div>'
        for name, picture in zip(task.names, task.support, strict=True)
    ]
    by_way = [[query for query in task.queries if query.way == way] for way in range(ways)]
    for line in zip(*by_way, strict=True):
        for query in line:
            name, guess = task.names[query.way], query.guesses[best]
            right = guess == query.way
            said = f"{name}: right" if right else f"{name}: taken for {task.names[guess]}"
            inset = (
                "" if right else f'<span class="taken"><img class="{kind}" src="{task.support[guess]}" alt=""></span>'
            )
            cells.append(
                f'<div class="cell is-{"right" if right else "wrong"}"><img class="{kind}" src="{query.picture}" '
                f'alt="{escape(said, quote=True)}" title="{escape(said, quote=True)}">{inset}'
                f'<span class="mark" aria-hidden="true">{"✓" if right else "✕"}</span></div>'
            )
    total = len(task.queries)
    score = ", ".join(f"{escape(name)} {task.right(name)} of {total}" for name in task.queries[0].guesses)
    grid = f'<div class="grid-of-ways" style="grid-template-columns:repeat({ways},1fr)">{"".join(cells)}</div>'
    return f'<figure class="task">{grid}<figcaption>{score}</figcaption></figure>'


def maps_section(found: Findings) -> str:
    figures = "".join(
        f"<figure><figcaption>{escape(drawn.learner)}: {100 * drawn.share:.0f} % of the spread lies in this plane"
        f"</figcaption>{map_chart(drawn, drawings=found.drawings)}</figure>"
        for drawn in found.maps
    )
    classes = len(found.maps[0].classes)
    return (
        f"<section><h2>A map of the representation</h2><p>Images of {word(classes)} of the unseen classes, a dot each, "
        "where the encoder puts them and where their pixels do, seen from the two directions of largest spread "
        "(principal components). Each colour is a class; its picture stands at its middle. Point at one to see it "
        f'alone.</p><div class="maps">{figures}</div></section>'
    )
