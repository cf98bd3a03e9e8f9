"""Normalisation: whose statistics a batch-norm layer uses, made explicit.

``running``: those gathered in training, constants at test time; features can be cached.
``support``: the mean and variance of a task's support images at the current weights, differentiated through, for
support and query alike; a query's features never depend on other queries.
``transductive``: the query batch's own, as in most of the literature; every query sees the others.
"""

from typing import Literal

from metarep.normalisation.explicit import ExplicitNorm
from metarep.normalisation.kinds import norm_parameters
from metarep.normalisation.plain import InPlainArithmetic, PlainNorm
from metarep.normalisation.replica import Replica, replica
from metarep.normalisation.statistics import Statistics, batch_norms, follow, running_statistics, update_running
from metarep.normalisation.told import Moments, OtherRowsError, Told

Normalisation = Literal["running", "support", "transductive"]

__all__ = [
    "ExplicitNorm",
    "InPlainArithmetic",
    "Moments",
    "Normalisation",
    "OtherRowsError",
    "PlainNorm",
    "Replica",
    "Statistics",
    "Told",
    "batch_norms",
    "follow",
    "norm_parameters",
    "replica",
    "running_statistics",
    "update_running",
]
