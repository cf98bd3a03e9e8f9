"""Lake's 20 one-shot runs, the original evaluation of Omniglot: an error rate over 400 answers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from metarep.data.datasets.omniglot_runs import Runs, load_runs
from metarep.data.datasets.options import Options
from metarep.data.drawing.answer_sheet import answer_sheet
from metarep.encoders.finite import refuse_lost_rows
from metarep.encoders.modes import evaluating
from metarep.experiments.measurement.interval import interval
from metarep.experiments.measurement.results import commit
from metarep.experiments.measurement.rows import trained_columns
from metarep.learners import Learner
from metarep.machine.device import hardware
from metarep.weights.checkpoint import Checkpoint

RUNS = "omniglot-runs"  # the name of the data set


@dataclass(frozen=True)
class RunsReport:
    """The error rate of a learner on Lake's one-shot runs, in percent.

    People have an error of 4.5 %, Bayesian program learning 3.3 %, and guesses 95 % (Lake et al., Human-level concept
    learning through probabilistic program induction, Science 2015).

    Args:
        error: mean over the runs, in percent.
        ci95: half the width of its 95 % interval over runs, in percent.
        runs: number of runs, 20. Each is one task within an alphabet.
        ways: classes of a run, 20, with one support image and one query image each.
        protocol: ``inductive`` or ``transductive``.
        learner: the learner that was adapted to each run.
    """

    error: float
    ci95: float
    runs: int
    ways: int
    protocol: str
    learner: str

    def __str__(self) -> str:
        return (
            f"{self.ways}-way 1-shot within alphabet: error {self.error:.2f} ± {self.ci95:.2f} % "
            f"({self.runs} official runs, 1 query a class, {self.protocol}, {self.learner})"
        )

    def as_dict(self) -> dict[str, float | int | str]:
        """The fields by name."""
        return dict(self.__dict__)


def error_rate(learner: Learner, runs: Runs) -> RunsReport:
    """Measure the error rate of a learner on Lake's one-shot runs.

    Every test drawing is classified by itself; the answers are not matched one to one to the classes.

    Args:
        learner: the learner, on its device.
        runs: the drawings and the tasks.

    Raises:
        DataError: a drawing has NaN or infinite features.
    """
    guess = answers(learner, runs)
    errors = (guess != runs.query_y).double().mean(-1) * 100
    return RunsReport(*interval(errors), len(errors), runs.support.shape[1], learner.protocol, learner.called)


def answers(learner: Learner, runs: Runs) -> Int[Tensor, "run query"]:
    """The class that a learner gives to each test drawing, on the CPU.

    Args:
        learner, runs: see :func:`error_rate`.
    """
    device = learner.device
    with torch.no_grad(), evaluating(learner):
        rows = learner.prepare(runs.bank.images.to(device))
        refuse_lost_rows(rows, learner.encoder, "image {}".format)
        state = learner.adapt(rows[runs.support.to(device)], runs.support_y.to(device), runs.support.shape[1])
        return learner.logits(state, rows[runs.query.to(device)]).argmax(-1).cpu()


def draw_errors(learner: Learner, runs: Runs, path: Path) -> int:
    """Draw every wrong answer as a PNG: the test drawing, the class that was given, and the right one.

    Args:
        learner, runs: see :func:`error_rate`.
        path: the file; not written if all answers are right.

    Returns:
        The number of wrong answers.
    """
    guess = answers(learner, runs)
    wrong = (guess != runs.query_y).nonzero().tolist()
    drawings, sheet = runs.bank.images, []
    for run, item in wrong:
        given, right = int(guess[run, item]), int(runs.query_y[run, item])
        query = drawings[runs.query[run, item]], f"run {run + 1}, item {item + 1}"
        taken = drawings[runs.support[run, given]], f"taken for {given + 1}"
        sheet.append((query, taken, (drawings[runs.support[run, right]], f"is {right + 1}")))
    if sheet:
        answer_sheet(sheet, path)
    return len(wrong)


def runs_row(
    trained: Checkpoint,
    learner: Learner,
    folder: Path,
    *,
    size: int,
    data_dir: Path | None,
    **more: Any,  # noqa: ANN401
) -> dict[str, Any]:
    """Measure a trained run on Lake's runs, and draw its errors as ``wrong.png`` in the run folder.

    Args:
        trained: the run; it must not have seen the characters of the runs.
        learner: the learner that was trained, or another one on its encoder.
        folder: the run folder.
        size: side of the images in pixels.
        data_dir: see :func:`metarep.data.datasets.load_dataset`.
        more: values of other columns.

    Returns:
        The row of the results table: its accuracy is 100 minus the error rate.
    """
    runs = load_runs(Options(size=size, data_dir=data_dir))
    trained.refuse_keys([key for keys in runs.keys for key in keys], RUNS)
    report = error_rate(learner, runs)
    draw_errors(learner, runs, folder / "wrong.png")
    return {
        **trained_columns(trained),
        "learner": report.learner,
        "data": RUNS,
        "split": "test",
        "normalisation": learner.normalisation,
        "ways": report.ways,
        "shots": 1,
        "queries": 1,
        "protocol": report.protocol,
        "tasks": report.runs,
        "seeds": 1,
        "accuracy": 100 - report.error,
        "ci95": report.ci95,
        "hardware": hardware(),
        "commit": commit(),
        **more,
    }
