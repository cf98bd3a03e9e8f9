"""Lake's 20 one-shot runs: their own evaluation, an error rate over 400 answers."""

import math
from dataclasses import dataclass

import torch

from metarep.data.datasets.omniglot_runs import Runs
from metarep.encoders.finite import refuse_lost_rows
from metarep.experiments.evaluation import evaluating
from metarep.learners import Learner


@dataclass(frozen=True)
class RunsReport:
    """Errors in percent. People make 4.5, Bayesian program learning 3.3, chance 95 (Lake et al., Science 2015).

    Args:
        error: mean over the 20 runs.
        ci95: half the width of its 95 % interval over runs.
        runs, ways: 20 and 20, within one alphabet, one support image a class, one query a class.
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
        return dict(self.__dict__)


def error_rate(learner: Learner, runs: Runs) -> RunsReport:
    """Classify the test drawings of every run from its training drawings; each on its own, never as a matching."""
    device = learner.device
    with torch.no_grad(), evaluating(learner):
        rows = learner.prepare(runs.bank.images.to(device))
        refuse_lost_rows(rows, learner.encoder, "image {}".format)
        state = learner.adapt(rows[runs.support.to(device)], runs.support_y.to(device), runs.support.shape[1])
        guess = learner.logits(state, rows[runs.query.to(device)]).argmax(-1).cpu()
    errors = (guess != runs.query_y).double().mean(-1) * 100
    ci95 = 1.96 * errors.std().item() / math.sqrt(len(errors))
    return RunsReport(errors.mean().item(), ci95, len(errors), runs.support.shape[1], learner.protocol, learner.called)
