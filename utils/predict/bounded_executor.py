"""Have work done by threads behind the caller's back: soon, and never much of it at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from types import TracebackType

from utils.base.log import LOG
from utils.base.script import one_line
from utils.sources.prefetch import finished


class Background:
    """Jobs without a result; a context manager that ends when all of them are done.

    An error of a job is raised by a later `do`, or at the end; if the block ends with an exception of its
    own, it is logged instead.

    Args:
        pool: threads; with one of them the jobs are done in their order. None: the caller does them, now.
        most: jobs that may be unfinished; then the caller waits.
    """

    def __init__(self, pool: Executor | None, most: int) -> None:
        self._pool = pool
        self._most = most
        self._unfinished: deque[Future[None]] = deque()

    def do(self, job: Callable[[], None]) -> None:
        """Have a job done; wait while too many are unfinished."""
        if self._pool is None:
            job()
            return
        while self._unfinished and (len(self._unfinished) >= self._most or self._unfinished[0].done()):
            finished(self._unfinished.popleft()).result()
        self._unfinished.append(self._pool.submit(job))

    def __enter__(self) -> Background:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        failures = [failure for job in self._unfinished if (failure := finished(job).exception())]
        if failures and kind is None:
            raise failures[0]
        for failure in failures[:1]:
            LOG.error(one_line(failure))
