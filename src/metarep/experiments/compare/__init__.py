"""Compare: train methods alike, measure them and other runs on the same test tasks, and write a page."""

from metarep.experiments.compare.compare import Compared, compare
from metarep.experiments.compare.plan import Comparison

__all__ = ["Compared", "Comparison", "compare"]
