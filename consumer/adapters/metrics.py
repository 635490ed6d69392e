"""What Prometheus scrapes; a user, job or URL is never a label."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from consumer.core.ports import CleanupOutcome, Delivery, Stage
from consumer.core.records import Output
from schemas.events import CleanupTask
from schemas.reasons import Reason

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_AGES: Final = (0.1, 0.5, 1, 2, 5, 10, 30, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)

_SETTLED: Final = {
    "stored": ("",),
    "duplicate": ("",),
    "held": tuple(Reason),
    "retried": tuple(Reason),
    "failed": tuple(Reason),
}

disable_created_metrics()  # type: ignore[no-untyped-call]  # when a counter was made tells nobody anything


class Metrics:
    """The worker's own registry: see `Meter` for what the core tells it."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        prefix = "image_uploads"

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, namespace=prefix, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, namespace=prefix, registry=registry)

        self._received = counter("received_total", "Deliveries taken.")
        self._settled = counter("settled_total", "Deliveries acked, by what became of them.", "outcome", "reason")
        self._in_flight = gauge("in_flight", "Deliveries in work.")
        self._oldest = gauge("oldest_in_flight_seconds", "Age of the delivery that is longest in work.")
        self._stages = Histogram(
            "stage_duration_seconds",
            "Time per step of a delivery.",
            ("stage",),
            namespace=prefix,
            registry=registry,
            buckets=_SECONDS,
        )
        self._age = Histogram(
            "age_seconds", "From an event's time to its ack.", namespace=prefix, registry=registry, buckets=_AGES
        )
        self._stored_bytes = counter("stored_bytes_total", "Bytes of stored images.")
        self._last_stored = gauge("last_stored_timestamp_seconds", "When an image was stored last.")
        self._queue_messages = gauge("queue_messages", "Ready messages; each worker reports, so use max.", "queue")
        self._dependency_up = gauge("dependency_up", "Whether it answered lately.", "dependency")
        self._intake_paused = gauge("intake_paused", "Whether deliveries wait for the dependency.", "dependency")
        self._consumer_attached = gauge("consumer_attached", "Whether the broker delivers to this worker.")
        self._broker_reconnects = counter("broker_reconnects_total", "Connections made anew after a loss.")
        self._event_loop_lag = gauge("event_loop_lag_seconds", "How late the event loop was when last looked at.")
        self._cleanup_runs = counter("cleanup_runs_total", "Cleanups, by how they ended.", "outcome")
        self._cleanup_removed = counter("cleanup_removed_total", "Files and objects removed.", "task")
        self._cleanup_removed_bytes = counter("cleanup_removed_bytes_total", "Their bytes.", "task")
        self._cleanup_last_success = gauge("cleanup_last_success_timestamp_seconds", "When one succeeded last.")
        gauge("build_info", "Which release this is.", "version").labels(version("image-uploads-worker")).set(1)
        self._started: dict[Delivery, float] = {}
        self._oldest.set_function(self._oldest_s)
        self._in_flight.set_function(lambda: len(self._started))
        for outcome, reasons in _SETTLED.items():
            for reason in reasons:
                self._settled.labels(outcome, reason)  # or the first of its kind would not count as an increase
        for ended in ("succeeded", "failed", "rehearsed", "refused"):
            self._cleanup_runs.labels(ended)
        for task in ("temp", "expired"):
            self._cleanup_removed.labels(task)
            self._cleanup_removed_bytes.labels(task)
        # Looked up once: a label's look-up costs more than the counting.
        self._stage = {name: self._stages.labels(name) for name in ("fetch", "inspect", "store", "record", "announce")}

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        """The time spent inside counts towards the stage, if it succeeds."""
        started = time.perf_counter()
        yield
        self._stage[stage].observe(time.perf_counter() - started)

    def received(self, delivery: Delivery) -> None:
        """A delivery is in work from now on."""
        self._received.inc()
        self._started[delivery] = time.monotonic()

    def finished(self, delivery: Delivery) -> None:
        """It is no longer."""
        self._started.pop(delivery, None)

    def settled(self, outcome: str, reason: str) -> None:
        """A delivery was acked."""
        self._settled.labels(outcome, reason).inc()

    def stored(self, output: Output, age_s: float) -> None:
        """An image was stored `age_s` seconds after its event."""
        self._stored_bytes.inc(output.size_bytes)
        self._last_stored.set_to_current_time()
        self._age.observe(max(0.0, age_s))

    def attached(self, *, up: bool) -> None:
        """Whether the broker delivers to this worker."""
        self._consumer_attached.set(up)

    def reconnected(self) -> None:
        """A connection to the broker was made anew after a loss."""
        self._broker_reconnects.inc()

    def cleaned(self, task: CleanupTask, count: int, size_bytes: int) -> None:
        """A task of the cleanup has removed so many, of that size together."""
        self._cleanup_removed.labels(task).inc(count)
        self._cleanup_removed_bytes.labels(task).inc(size_bytes)

    def cleanup_ended(self, outcome: CleanupOutcome) -> None:
        """A cleanup has ended."""
        self._cleanup_runs.labels(outcome).inc()
        if outcome == "succeeded":
            self._cleanup_last_success.set_to_current_time()

    def queues(self, sizes: Mapping[str, int]) -> None:
        """The ready messages of each queue were counted; of others nothing is known."""
        self._queue_messages.clear()
        for queue, messages in sizes.items():
            self._queue_messages.labels(queue).set(messages)

    def dependency(self, dependency: str, *, up: bool) -> None:
        """Whether the dependency answered when it was last asked."""
        self._dependency_up.labels(dependency).set(up)

    def intake_paused(self, dependency: str, *, up: bool) -> None:
        """Whether deliveries wait for the dependency."""
        self._intake_paused.labels(dependency).set(up)

    def loop_lag(self, lag_s: float) -> None:
        """How late the event loop was."""
        self._event_loop_lag.set(lag_s)

    def exposition(self) -> bytes:
        """All of it in the Prometheus text format."""
        return generate_latest(self.registry)

    def _oldest_s(self) -> float:
        # Deliveries are kept in the order in which they came.
        first = next(iter(self._started.values()), None)
        return 0.0 if first is None else time.monotonic() - first
