"""Normalisation: batch norm layers whose batch statistics are chosen explicitly.

``running``: the running statistics from training, which are constants at test time, so features can be cached.
``support``: the mean and variance of the task's support images under the current weights, for support and query images.
They are differentiated through. A query's features never depend on other queries.
``transductive``: the batch statistics of the queries, as in most of the literature. Each query depends on the others.
"""

from typing import Literal

from metarep.normalisation.explicit import ExplicitNorm
from metarep.normalisation.kinds import norm_parameters
from metarep.normalisation.plain import InPlainArithmetic, PlainNorm
from metarep.normalisation.replica import Replica, replica
from metarep.normalisation.statistics import Statistics, batch_norms, follow, running_statistics, update_running
from metarep.normalisation.told import Moments, OtherRowsError, PassStatistics

Normalisation = Literal["running", "support", "transductive"]

__all__ = [
    "ExplicitNorm",
    "InPlainArithmetic",
    "Moments",
    "Normalisation",
    "OtherRowsError",
    "PassStatistics",
    "PlainNorm",
    "Replica",
    "Statistics",
    "batch_norms",
    "follow",
    "norm_parameters",
    "replica",
    "running_statistics",
    "update_running",
]
