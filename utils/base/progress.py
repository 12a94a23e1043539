"""Progress of long loops: a tqdm bar on a terminal, a plain line at the end elsewhere."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator, Sized
from typing import Any, Generic, TypeVar

from utils.base.log import LOG

T = TypeVar("T")


class Bar(Generic[T]):
    """Iterate over `items` and show `text`: a tqdm bar on a terminal, elsewhere the last text as one line.

    Logs of background runs so contain one line for each loop.
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

    def say(self, text: str) -> None:
        """Change the text of the bar."""
        self.text = text
        if self._tqdm is not None:
            self._tqdm.set_description_str(text)


def _length(items: Iterable[Any]) -> int | None:
    return len(items) if isinstance(items, Sized) else None
