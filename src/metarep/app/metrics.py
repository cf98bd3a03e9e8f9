"""Metrics: counters and times of the server, in Prometheus's text format."""

import threading
from collections import defaultdict

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
IMAGES = (1, 2, 4, 8, 16, 32, 64)
Labels = tuple[tuple[str, str], ...]


class Metrics:
    """What happened since the server was started. Any thread may write."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, dict[Labels, float]] = defaultdict(lambda: defaultdict(float))
        self._buckets: dict[str, dict[Labels, list[float]]] = defaultdict(dict)
        self._edges = {"metarep_request_seconds": SECONDS, "metarep_batch_images": IMAGES}
        self._helps = {
            "metarep_requests_total": "requests answered",
            "metarep_request_seconds": "seconds from a request's head to its answer",
            "metarep_batch_images": "images encoded together",
            "metarep_predictions_total": "images that were answered, by what was said",
            "metarep_learned_total": "images that were learned",
        }

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        with self._lock:
            self._counts[name][tuple(labels.items())] += amount

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add a value to a histogram."""
        edges = self._edges[name]
        with self._lock:
            held = self._buckets[name].setdefault(tuple(labels.items()), [0.0] * (len(edges) + 2))
            for place, edge in enumerate(edges):
                held[place] += value <= edge
            held[-2] += 1
            held[-1] += value

    def text(self, gauges: dict[str, tuple[str, float]]) -> str:
        """All of it, and gauges that are measured now: help and value by name."""
        lines: list[str] = []
        with self._lock:
            for name, rows in sorted(self._counts.items()):
                lines += self._head(name, "counter")
                lines += [f"{name}{_braces(labels)} {value:.15g}" for labels, value in rows.items()]
            for name, held in sorted(self._buckets.items()):
                lines += self._head(name, "histogram")
                for labels, values in held.items():
                    for edge, value in zip((*map(str, self._edges[name]), "+Inf"), values, strict=False):
                        lines.append(f"{name}_bucket{_braces((*labels, ('le', edge)))} {value:.15g}")
                    lines.append(f"{name}_sum{_braces(labels)} {values[-1]:.6f}")
                    lines.append(f"{name}_count{_braces(labels)} {values[-2]:g}")
        for name, (text, value) in gauges.items():
            lines += [f"# HELP {name} {text}", f"# TYPE {name} gauge", f"{name} {value:.15g}"]
        return "\n".join(lines) + "\n"

    def _head(self, name: str, kind: str) -> list[str]:
        return [f"# HELP {name} {self._helps[name]}", f"# TYPE {name} {kind}"]


def _braces(labels: Labels) -> str:
    """Labels as the format wants them; all values are of our own making, so none needs quoting."""
    inside = ",".join(f'{name}="{value}"' for name, value in labels)
    return f"{{{inside}}}" if inside else ""
