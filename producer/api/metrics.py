"""What Prometheus scrapes of the ingress; a user, job or URL is never a label."""

from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics, generate_latest

disable_created_metrics()  # type: ignore[no-untyped-call]  # when a counter was made tells nobody anything


class Metrics:
    """The ingress' own registry."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "api_requests_total",
            "Requests answered, by status.",
            ("code",),
            namespace="image_uploads",
            registry=self._registry,
        )
        build = Gauge(
            "build_info", "Which release this is.", ("version",), namespace="image_uploads", registry=self._registry
        )
        build.labels(version("image-uploads-worker")).set(1)

    def answered(self, code: int) -> None:
        """A request was answered with this status."""
        self._requests.labels(str(code)).inc()

    def exposition(self) -> bytes:
        """All of it in the Prometheus text format."""
        return generate_latest(self._registry)
