"""Metrics: counters and histograms of one server, in Prometheus's text format."""

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
IMAGES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counts what happened since the server was started. Any thread may write.

    Each server has a registry of its own, so that two in one process do not add to the same numbers.
    """

    def __init__(self) -> None:
        self._all: dict[str, Counter | Histogram] = {
            "metarep_requests_total": Counter(
                "metarep_requests", "requests answered", ("route", "method", "status"), registry=None
            ),
            "metarep_predictions_total": Counter(
                "metarep_predictions", "images that were answered, by what was said", ("known",), registry=None
            ),
            "metarep_learned_total": Counter("metarep_learned", "images that were learned", registry=None),
            "metarep_request_seconds": Histogram(
                "metarep_request_seconds",
                "seconds from a request's head to its answer",
                ("route",),
                buckets=SECONDS,
                registry=None,
            ),
            "metarep_batch_images": Histogram(
                "metarep_batch_images", "images encoded together", buckets=IMAGES, registry=None
            ),
        }

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter."""
        counter = self._all[name]
        assert isinstance(counter, Counter)
        (counter.labels(**labels) if labels else counter).inc(amount)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add a value to a histogram."""
        histogram = self._all[name]
        assert isinstance(histogram, Histogram)
        (histogram.labels(**labels) if labels else histogram).observe(value)

    def text(self, gauges: Mapping[str, tuple[str, float]]) -> str:
        """Everything counted, and gauges that are measured now: help and value by name."""
        registry = CollectorRegistry()
        registry.register(_Snapshot([*self._all.values()], gauges))
        return generate_latest(registry).decode()


class _Snapshot(Collector):
    """What a server shows at one moment; without the time at which each series was created."""

    def __init__(self, counted: list[Counter | Histogram], gauges: Mapping[str, tuple[str, float]]) -> None:
        self.counted, self.gauges = counted, gauges

    def collect(self) -> Iterator[Metric]:
        for each in self.counted:
            for metric in each.collect():
                metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
                yield metric
        for name, (text, value) in self.gauges.items():
            yield GaugeMetricFamily(name, text, value=value)
