"""Metrics: counters and histograms of one server, in Prometheus's text format."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from metarep.machine.device import resident_bytes

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
IMAGES = (1, 2, 4, 8, 16, 32, 64)
MEMORY = ("process_resident_memory_bytes", "resident memory of the server")


class Metrics:
    """Counters and histograms since the start of the server. Any thread may write.

    Each server has a registry of its own, so that two servers in one process do not share counters.

    Args:
        shared: the folder in which the workers of one server keep their numbers; any of them answers with the sums of
            all. Prometheus's environment variable ``PROMETHEUS_MULTIPROC_DIR`` must name it before this module is
            imported. None for a server that is one process.

    >>> metrics = Metrics()
    >>> metrics.count("metarep_learned_total", 3)
    >>> [line for line in metrics.text({}).splitlines() if line.startswith("metarep_learned_total")]
    ['metarep_learned_total 3.0']
    """

    def __init__(self, shared: Path | None = None) -> None:
        self.shared = shared
        self._all: dict[str, Counter | Histogram] = {
            "metarep_requests_total": Counter(
                "metarep_requests", "requests answered", ("route", "method", "status"), registry=None
            ),
            "metarep_predictions_total": Counter(
                "metarep_predictions", "images classified, by whether their class is known", ("known",), registry=None
            ),
            "metarep_label_answers_total": Counter(
                "metarep_label_answers",
                "images answered by a model of several labels, by whether none, one or several were said",
                ("labels",),
                registry=None,
            ),
            "metarep_learned_total": Counter("metarep_learned", "images added to the model", registry=None),
            "metarep_request_seconds": Histogram(
                "metarep_request_seconds",
                "seconds from a request's head to the end of its response",
                ("route",),
                buckets=SECONDS,
                registry=None,
            ),
            "metarep_batch_images": Histogram(
                "metarep_batch_images", "images encoded in one batch", buckets=IMAGES, registry=None
            ),
        }

        if shared:
            self._memory, self._workers = (
                Gauge(*each, registry=None, multiprocess_mode="livesum")
                for each in (MEMORY, ("metarep_workers", "processes that answer requests"))
            )
            self.beat()

    def beat(self) -> None:
        """Write the memory of this worker, so that the others can add it; called about once a second."""
        self._memory.set(resident_bytes())
        self._workers.set(1)

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add ``amount`` to a counter.

        Args:
            name: the counter's full name, such as ``metarep_requests_total``.
            amount: at least 0.
            labels: the value of each of its labels.
        """
        counter = self._all[name]
        assert isinstance(counter, Counter)
        (counter.labels(**labels) if labels else counter).inc(amount)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add one value to a histogram; the arguments are as for :meth:`count`."""
        histogram = self._all[name]
        assert isinstance(histogram, Histogram)
        (histogram.labels(**labels) if labels else histogram).observe(value)

    def text(self, gauges: Mapping[str, tuple[str, float]]) -> str:
        """Return all counters and histograms, and the given gauges, in Prometheus's text format.

        Args:
            gauges: the help text and the current value of each gauge, by its name.
        """
        registry = CollectorRegistry()
        if self.shared:
            MultiProcessCollector(registry, str(self.shared))
            registry.register(_Snapshot([], gauges))
        else:
            registry.register(_Snapshot([*self._all.values()], {**gauges, MEMORY[0]: (MEMORY[1], resident_bytes())}))
        return generate_latest(registry).decode()


class _Snapshot(Collector):
    """The metrics of a server at one moment, without the series that say when each metric was created."""

    def __init__(self, metrics: list[Counter | Histogram], gauges: Mapping[str, tuple[str, float]]) -> None:
        self.metrics, self.gauges = metrics, gauges

    def collect(self) -> Iterator[Metric]:
        for each in self.metrics:
            for metric in each.collect():
                metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
                yield metric
        for name, (text, value) in self.gauges.items():
            yield GaugeMetricFamily(name, text, value=value)
