"""The report: one page that needs nothing beside itself. All text from outside is escaped where it enters."""

from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from metarep import __version__
from metarep.files import replacing
from metarep.quickstart.figures import examples_section, maps_section, shots_section
from metarep.quickstart.findings import Findings, Row
from metarep.quickstart.notes import how_measured, what_next
from metarep.quickstart.words import count, duration, listed, percent, shape_name, word


def write_report(path: Path, found: Findings) -> None:
    """Write the page, whole or not at all."""
    here = files("metarep.quickstart")
    first = next(iter(found.content["rows"]))
    page = Template((here / "page.html").read_text("utf-8")).substitute(
        title=escape(f"metarep quickstart: {found.content['best']} on {found.content['data']['name']}"),
        style=(here / "page.css").read_text("utf-8"),
        headline=headline(found),
        lede=_lede(found),
        sections="\n".join(
            [
                _results(found),
                shots_section(found),
                examples_section(found),
                maps_section(found),
                how_measured(found.content),
                what_next(found.content),
            ]
        ),
        footer=f"Written by metarep {__version__} "
        f"on {escape(found.content['date'])}, on {escape(first['hardware'])}. "
        "This page is one file and fetches nothing; all numbers are in <code>results.json</code> beside it.",
    )
    with replacing(path) as partial:
        partial.write_text(page, "utf-8")


def headline(found: Findings) -> str:
    """What was learned, on what, and the best result against raw pixels, in a sentence."""
    content = found.content
    ways, shots = found.columns[0]
    best, pixels = (found.row(name, ways, shots) for name in (content["best"], "raw pixels"))
    training = next(each for each in content["trainings"] if each["method"] == content["best"])
    test = f"{word(ways)} classes it has never seen{_named(content['data']['test'])}"
    examples = "one example" if shots == 1 else f"{word(shots)} examples"
    return (
        f"{duration(training['seconds']).capitalize()} of learning from "
        f"{content['data']['train']['classes']:,} classes{_named(content['data']['train'])}, and "
        f"{escape(content['best'])} tells {test} apart from {examples} each: <b>{percent(best)}</b> right, "
        f'where raw pixels reach <span class="plain">{percent(pixels)}</span>.'
    )


def _named(facts: Row) -> str:
    return f" ({escape(listed(facts['kinds'], 3))})" if facts["kinds"] else ""


def _lede(found: Findings) -> str:
    (ways, shots), data = found.columns[0], found.content["data"]
    shown = "one image" if shots == 1 else f"{word(shots)} images"
    methods = count(len(found.content["trainings"]), "method")
    return (
        f"A task shows {shown} of each of {word(ways)} classes and asks which of them new images belong to. The "
        f"encoders learned from other classes only. Below, {methods} and two references face the same tasks, drawn "
        f"from {data['test']['classes']:,} classes that no training has touched."
    )


def _results(found: Findings) -> str:
    rows = found.methods()
    heads = "".join(
        f'<th class="number">{shape_name(ways, shots).replace(" ", "<br>")}</th>' for ways, shots in found.columns
    )
    columns = [{row["method"]: found.row(row["method"], *shape) for row in rows} for shape in found.columns]
    floors = [max(row["accuracy"] - row["ci95"] for row in column.values()) for column in columns]
    body = []
    for place, row in enumerate(rows):
        own = row["family"] != "reference"
        last_own = own and place + 1 < len(rows) and rows[place + 1]["family"] == "reference"
        cells = [_cell(column[row["method"]], floor) for column, floor in zip(columns, floors, strict=True)]
        what = f"{row['family']} · {row['learner']}" if own else f"nothing learned · {row['learner']}"
        seconds = f"{row['train_seconds']:.0f} s" if own else "–"
        body.append(
            f'<tr class="{"" if own else "reference"}{" parting" if last_own else ""}"><td>{escape(row["method"])}'
            f'<small>{escape(what)}</small></td>{"".join(cells)}<td class="number">{seconds}</td></tr>'
        )
    chances = listed(
        [f"{100 / ways:.0f} % of the time in {ways} ways" for ways in sorted({w for w, _ in found.columns})]
    )
    return (
        '<section><h2>Results</h2><div class="scroll"><table><thead><tr><th>method<br>family · learner</th>'
        f'{heads}<th class="number">training</th></tr></thead><tbody>{"".join(body)}</tbody></table></div>'
        f'<p class="note">Percent of queries right, with the 95 % interval over {rows[0]["tasks"]:,} tasks. Bold: the '
        f"best of a column, and all whose interval reaches its own. A guess is right {chances}.</p></section>"
    )


def _cell(row: Row, floor: float) -> str:
    best = " best" if row["accuracy"] + row["ci95"] >= floor else ""
    return f'<td class="number{best}">{row["accuracy"]:.1f} <span class="ci">± {row["ci95"]:.1f}</span></td>'
