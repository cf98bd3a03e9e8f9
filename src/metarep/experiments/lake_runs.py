"""Lake's 20 one-shot runs, the original evaluation of Omniglot: an error rate over 400 answers."""

from dataclasses import dataclass

import torch

from metarep.data.datasets.omniglot_runs import Runs
from metarep.encoders.finite import refuse_lost_rows
from metarep.experiments.evaluation import evaluating
from metarep.experiments.interval import interval
from metarep.learners import Learner


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
    device = learner.device
    with torch.no_grad(), evaluating(learner):
        rows = learner.prepare(runs.bank.images.to(device))
        refuse_lost_rows(rows, learner.encoder, "image {}".format)
        state = learner.adapt(rows[runs.support.to(device)], runs.support_y.to(device), runs.support.shape[1])
        guess = learner.logits(state, rows[runs.query.to(device)]).argmax(-1).cpu()
    errors = (guess != runs.query_y).double().mean(-1) * 100
    return RunsReport(*interval(errors), len(errors), runs.support.shape[1], learner.protocol, learner.called)
