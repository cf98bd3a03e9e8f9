"""What a comparison has found, and how: the content of ``results.json``, and all files that are written from it."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from metarep.experiments.compare.entrants import Entrant
from metarep.experiments.compare.findings import Findings
from metarep.experiments.compare.measurements import Measurement
from metarep.experiments.compare.plan import Comparison
from metarep.experiments.compare.report import Splits, write_report
from metarep.experiments.compare.tables import write_tables
from metarep.experiments.compare.trainings import Trained
from metarep.experiments.json_files import write_values
from metarep.machine.device import environment


def content_of(
    plan: Comparison,
    out: Path,
    findings: Findings,
    measured: Sequence[Measurement],
    trained: Sequence[Trained],
    facts: Mapping[str, Any],
    queries: Mapping[str, int],
    seconds: float,
) -> dict[str, Any]:
    """The values of a comparison by name.

    Args:
        plan: what was compared.
        out: the folder of the comparison.
        findings: the figures.
        measured: the measurements that they are made of.
        trained: what each training took.
        facts: for each data set, the numbers of classes and images of its parts.
        queries: for each data set, the number of queries of a class.
        seconds: how long it took.
    """
    return {
        "plan": plan.as_dict(),
        "entrants": [{"name": each.name, "family": each.family, "paper": each.paper} for each in findings.entrants],
        "rows": findings.rows(),
        "runs": [each.row for each in measured],
        "differences": findings.differences(),
        "ranks": findings.ranks,
        "ranking": _ranking(findings),
        "trainings": [each.__dict__ for each in trained],
        "data": facts,
        "settings": queries,
        "environment": environment(),
        "date": datetime.now(UTC).date().isoformat(),
        "seconds": seconds,
        "out": str(out),
    }


def write_all(
    out: Path,
    findings: Findings,
    content: dict[str, Any],
    shown: Mapping[str, tuple[Sequence[Entrant], Splits]],
) -> None:
    """Write ``results.json``, the tables and the page.

    Args:
        out: the folder of the comparison.
        findings: the figures.
        content: from :func:`content_of`.
        shown: see :func:`metarep.experiments.compare.report.write_report`.
    """
    write_values(out / "results.json", without_nan(content))
    write_tables(out, findings, content)
    write_report(out / "report.html", findings, content, shown)


def _ranking(findings: Findings) -> dict[str, Any] | None:
    """The ranks over data sets, by the names of the entrants."""
    ranking = findings.by_data
    if ranking is None:
        return None
    mean = {each.name: rank for each, rank in zip(findings.entrants, ranking.mean, strict=True)}
    return {"mean": mean, "data_sets": ranking.data_sets, "critical_difference": ranking.critical, "p": ranking.p}


def without_nan(content: Any) -> Any:  # noqa: ANN401 - anything JSON holds
    """The same values with None for NaN, which JSON cannot hold."""
    if isinstance(content, float):
        return None if math.isnan(content) else content
    if isinstance(content, dict):
        return {name: without_nan(value) for name, value in content.items()}
    return [without_nan(value) for value in content] if isinstance(content, list | tuple) else content
