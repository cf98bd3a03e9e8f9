"""Quickstart: train one method of each family on the embedded data, compare them, and write a page to show."""

from metarep.experiments.quickstart.job import quickstart
from metarep.experiments.quickstart.plan import PLAN, Entry, Plan

__all__ = ["PLAN", "Entry", "Plan", "quickstart"]
