"""Normalisation: batch norm layers whose batch statistics are chosen explicitly.

``running``: the running statistics from training, which are constants at test time, so features can be cached.
``support``: the mean and variance of the task's support images under the current weights, for support and query images.
They are differentiated through. A query's features never depend on other queries.
``transductive``: the batch statistics of the queries, as in most of the literature. Each query depends on the others.
"""

from typing import Literal

from metarep.encoders.normalisation.explicit import ExplicitNorm
from metarep.encoders.normalisation.kinds import norm_parameters
from metarep.encoders.normalisation.pass_statistics import Moments, OtherRowsError, PassStatistics
from metarep.encoders.normalisation.plain import InPlainArithmetic, PlainNorm
from metarep.encoders.normalisation.replica import Replica, replica
from metarep.encoders.normalisation.statistics import (
    Statistics,
    average_running,
    batch_norms,
    follow,
    running_statistics,
    running_tensors,
    update_running,
)
from metarep.encoders.normalisation.synchronised import is_synchronised, synchronised

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
    "average_running",
    "batch_norms",
    "follow",
    "is_synchronised",
    "norm_parameters",
    "replica",
    "running_statistics",
    "running_tensors",
    "synchronised",
    "update_running",
]
