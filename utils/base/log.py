"""Console output: the logger, and progress bars of long loops."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sized
from typing import Any, Generic, TypeVar

LOG = logging.getLogger("yolov5")
# In URLs: user:password@, also with slashes in the password, and parameters such as ?password=...
_CREDENTIALS = re.compile(r"(?<=://)(?:[^/\s]*|[^/\s:@]*:[^\s@]*)@")
_SECRETS = re.compile(r"(?<=[?&])((?:pwd|pass(?:word|wd)?|token|key|secret|sig(?:nature)?)=)[^&\s'\"]+", re.I)


def without_credentials(text: str) -> str:
    """Return a text without the user names and passwords of its URLs."""
    return _SECRETS.sub(r"\1***", _CREDENTIALS.sub("***@", text)) if "://" in text else text


def _hide_credentials(record: logging.LogRecord) -> bool:
    """Replace user names and passwords in URLs, as logs are kept and shared."""
    message = record.getMessage()
    if (hidden := without_credentials(message)) != message:
        record.msg, record.args = hidden, ()
    return True


LOG.addFilter(_hide_credentials)
_STYLES = {"blue": "\033[34m", "bold": "\033[1m", "red": "\033[31m", "yellow": "\033[33m", "end": "\033[0m"}


def color(text: str, *styles: str) -> str:
    """Wrap `text` in ANSI styles when stdout is a terminal and NO_COLOR is not set."""
    if not sys.stdout.isatty() or "NO_COLOR" in os.environ:
        return text
    return "".join(_STYLES[style] for style in styles) + text + _STYLES["end"]


class _Console(logging.Handler):
    """Handler that writes to the current sys.stdout and sys.stderr, so that redirection works."""

    def emit(self, record: logging.LogRecord) -> None:
        alarming = record.levelno >= logging.WARNING
        stream = sys.stderr if alarming else sys.stdout
        prefix = f"{record.levelname}: " if alarming else ""
        try:
            stream.write(f"{prefix}{record.getMessage()}\n")
            stream.flush()
        except BrokenPipeError:  # `... | head` has closed the pipe: continue without output
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def set_up_console(level: int = logging.INFO) -> None:
    """Attach the console handler to the logger; scripts call this, importing our modules does not.

    Of the processes that torchrun starts, only rank 0 logs; the others log errors only.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and os.environ.get("RANK", "0") != "0":
        level = max(level, logging.ERROR)
    if not LOG.handlers:
        LOG.addHandler(_Console())
        LOG.propagate = False
    LOG.setLevel(level)


T = TypeVar("T")


class Bar(Generic[T]):
    """Progress bar over `items` with a `text`: tqdm on a terminal, elsewhere only the last text as one line.

    The log of a background run therefore has one line per loop.
    """

    def __init__(self, items: Iterable[T], text: str = "", total: int | None = None) -> None:
        self.items = items
        self.text = text
        self.total = total if total is not None else _length(items)
        self._tqdm: Any = None

    def __iter__(self) -> Iterator[T]:
        if not sys.stderr.isatty() or not LOG.isEnabledFor(logging.INFO):
            yield from self.items
            if self.text:
                LOG.info(self.text)
            return
        from tqdm import tqdm

        layout = "{desc} {bar:10} {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}]"
        with tqdm(self.items, desc=self.text, total=self.total, bar_format=layout) as self._tqdm:
            yield from self._tqdm

    def set_text(self, text: str) -> None:
        """Change the text of the bar."""
        self.text = text
        if self._tqdm is not None:
            self._tqdm.set_description_str(text)


def _length(items: Iterable[Any]) -> int | None:
    return len(items) if isinstance(items, Sized) else None
