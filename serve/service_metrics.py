"""Prometheus metrics of the server."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

MEDIA_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The metrics at `/metrics`, in a registry of their own: several servers can run in one process."""

    def __init__(self) -> None:
        disable_created_metrics()  # no `*_created` timestamps beside each metric
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "yolov5_requests_total",
            "Detection requests by model and HTTP status.",
            ("model", "status"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "yolov5_request_seconds",
            "Seconds from request to response, of successful requests.",
            ("model",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.batches = Histogram(
            "yolov5_batch_size", "Images per batch.", ("model",), buckets=_SIZES, registry=self.registry
        )
        self.queue = Gauge(
            "yolov5_queue_length", "Images waiting for their model.", ("model",), registry=self.registry
        )

    def watch_queue(self, model: str, length: Callable[[], int]) -> None:
        """Report `length()` as the queue length of `model` whenever the metrics are read."""
        self.queue.labels(model).set_function(length)

    def text(self) -> bytes:
        """Return all metrics in Prometheus's text format 0.0.4."""
        return generate_latest(self.registry)
