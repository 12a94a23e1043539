"""Fetch the shards that an epoch is about to need, while it trains on those before.

A process of its own does it: a thread might hold a lock while the loader forks its workers, and so stop them.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict

import numpy as np

from utils.base.errors import YoloError
from utils.base.log import LOG
from utils.base.paths import ROOT
from utils.data.shards.store import ShardFacts, local_copy
from utils.data.shards.table import ShardTable

_AHEAD = 2  # shards beyond those in use


class FetchAhead:
    """Keep some shards ahead of the batches.

    Args:
        pictures: of the training.
        order: of the epoch, numbers of pictures.
    """

    def __init__(self, pictures: ShardTable, order: np.ndarray) -> None:
        numbers, first = np.unique(pictures.shard[order], return_index=True)
        by_use = np.argsort(first)
        self._first = first[by_use]  # place in the order where each shard is first needed
        self._shards = [pictures.shards[number] for number in numbers[by_use]]
        self._asked = 0
        self._child = subprocess.Popen(
            [sys.executable, "-m", "utils.data.shards.ahead"], cwd=ROOT, stdin=subprocess.PIPE, text=True
        )

    def reach(self, place: int) -> None:
        """The pictures before this place of the order are done."""
        wanted = int(np.searchsorted(self._first, place, side="right")) + _AHEAD
        pipe = self._child.stdin
        assert pipe is not None
        with suppress(BrokenPipeError):  # it has met an error, which whoever needs the shard will tell
            for shard in self._shards[self._asked : wanted]:
                pipe.write(json.dumps([asdict(shard.facts), shard.sha256]) + "\n")
            pipe.flush()
        self._asked = max(self._asked, wanted)

    def close(self) -> None:
        """Fetch no more."""
        self._child.terminate()
        with suppress(BrokenPipeError):
            self._child.communicate()


def main() -> None:
    """Fetch what the lines of standard input name, until they end or one cannot be had."""
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(0))  # half a file is removed on the way out
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    LOG.disabled = True  # what it cannot fetch is told by whoever needs it
    with suppress(YoloError):
        for line in sys.stdin:
            facts, sha256 = json.loads(line)
            local_copy(ShardFacts(**facts), sha256)


if __name__ == "__main__":
    main()
