"""Counters for Prometheus, in its text format 0.0.4.

Written here because the few lines that are needed cost less than a dependency, and because the official
client keeps its numbers in one global registry, where two servers of one process would mix theirs.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Counter:
    """Counts by the values of its labels."""

    def __init__(self, name: str, about: str, labels: Sequence[str]) -> None:
        self.name, self.about, self.labels = name, about, tuple(labels)
        self._counts: dict[tuple[str, ...], int] = {}
        self._lock = threading.Lock()

    def add(self, *values: str) -> None:
        """Count one."""
        with self._lock:
            self._counts[values] = self._counts.get(values, 0) + 1

    def lines(self) -> Iterator[str]:
        """The exposition, line by line."""
        yield from _head(self.name, self.about, "counter")
        with self._lock:
            counts = sorted(self._counts.items())
        yield from (f"{self.name}{_labels(self.labels, values)} {count}" for values, count in counts)


class Histogram:
    """How values of a model are spread over buckets, each of which counts all that are not above it."""

    def __init__(self, name: str, about: str, bounds: Sequence[float]) -> None:
        self.name, self.about, self.bounds = name, about, tuple(bounds)
        self._buckets: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}
        self._lock = threading.Lock()

    def observe(self, model: str, value: float) -> None:
        """Count one value."""
        with self._lock:
            buckets = self._buckets.setdefault(model, [0] * (len(self.bounds) + 1))
            buckets[bisect_left(self.bounds, value)] += 1
            self._sums[model] = self._sums.get(model, 0.0) + value

    def lines(self) -> Iterator[str]:
        """The exposition, line by line."""
        yield from _head(self.name, self.about, "histogram")
        with self._lock:
            found = [(model, list(buckets), self._sums[model]) for model, buckets in self._buckets.items()]
        for model, buckets, total in sorted(found):
            count = 0
            for bound, more in zip((*map(str, self.bounds), "+Inf"), buckets, strict=True):
                count += more
                yield f"{self.name}_bucket{_labels(('model', 'le'), (model, bound))} {count}"
            own = _labels(("model",), (model,))
            yield f"{self.name}_sum{own} {total:.6f}"
            yield f"{self.name}_count{own} {count}"


class Metrics:
    """Everything that `/metrics` shows."""

    def __init__(self) -> None:
        self.requests = Counter(
            "yolov5_requests_total", "Requests for detections, answered or refused.", ("model", "status")
        )
        self.seconds = Histogram("yolov5_request_seconds", "Seconds from request to answer.", _SECONDS)
        self.batches = Histogram("yolov5_batch_size", "Images that were looked at together.", _SIZES)
        self._queues: dict[str, Callable[[], int]] = {}

    def watch_queue(self, model: str, length: Callable[[], int]) -> None:
        """Ask `length` for the queue of a model whenever the numbers are read."""
        self._queues[model] = length

    def text(self) -> str:
        """All numbers, as Prometheus reads them."""
        parts = [*self.requests.lines(), *self.seconds.lines(), *self.batches.lines()]
        name = "yolov5_queue_length"
        parts += _head(name, "Images that wait for their model.", "gauge")
        parts += [f"{name}{_labels(('model',), (model,))} {ask()}" for model, ask in self._queues.items()]
        return "\n".join(parts) + "\n"


def _head(name: str, about: str, kind: str) -> list[str]:
    return [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]


def _labels(names: Sequence[str], values: Sequence[str]) -> str:
    pairs = (f'{name}="{_escape(value)}"' for name, value in zip(names, values, strict=True))
    return "{" + ",".join(pairs) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
