"""A request that cannot be served, and why."""

from __future__ import annotations


class RequestError(Exception):
    """Ends a request with an HTTP status and one line for whoever sent it."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers or {}


def busy(what: str) -> RequestError:
    """503 with the hint to come back in a second: the requests under way are small."""
    return RequestError(503, f"{what}; try again in a moment", {"Retry-After": "1"})
