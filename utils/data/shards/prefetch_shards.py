"""Download the shards that an epoch is about to need, while it trains on those before.

A process of its own does it: a thread might hold a lock while the loader forks its workers, and so stop them.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np

from utils.base.errors import YoloError
from utils.base.log import LOG
from utils.base.paths import ROOT
from utils.data.shards.store import ShardInfo, local_copy
from utils.data.shards.table import ShardTable

_AHEAD = 2  # shards beyond those in use


class ShardPrefetcher:
    """Keep some shards ahead of the batches.

    Args:
        images: of the training.
        order: of the epoch, numbers of images.
        start: place in the order where the epoch is begun; what was needed before it is left alone.
        reach: how many places further a batch may look for images to combine with its own.
    """

    def __init__(self, images: ShardTable, order: np.ndarray, start: int = 0, reach: int = 0) -> None:
        self._start, self._reach, self._told = start, reach, 0
        numbers, first = np.unique(images.shard[order[start:]], return_index=True)
        by_use = np.argsort(first)
        self._first = first[by_use] + start  # place in the order where each shard is first needed
        shards = [images.shards[number] for number in numbers[by_use]]
        with tempfile.NamedTemporaryFile("w", suffix=".json", delete=False, encoding="utf-8") as file:
            json.dump([[asdict(shard.info), shard.sha256] for shard in shards], file)
        self._child = subprocess.Popen(
            [sys.executable, "-m", "utils.data.shards.prefetch_shards", file.name],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            text=True,
        )
        self.reach(start)

    def reach(self, place: int) -> None:
        """The images before this place of the order are done."""
        wanted = int(np.searchsorted(self._first, place + self._reach, side="right")) + _AHEAD
        pipe = self._child.stdin
        if wanted <= self._told or pipe is None:
            return
        self._told = wanted
        with suppress(BrokenPipeError):  # it has met an error, which whoever needs the shard will tell
            pipe.write(f"{wanted}\n")  # few bytes for each shard: the pipe is never full
            pipe.flush()

    def close(self) -> None:
        """Download no more."""
        self._child.terminate()
        with suppress(BrokenPipeError):
            self._child.communicate()


def main() -> None:
    """Download the shards of a list up to the number that each line of standard input says."""
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(0))  # half a file is removed on the way out
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    LOG.disabled = True  # what it cannot download is told by whoever needs it
    file = Path(sys.argv[1])
    shards = json.loads(file.read_text(encoding="utf-8"))
    file.unlink()
    done = 0
    with suppress(YoloError):
        for line in sys.stdin:
            for info, sha256 in shards[done : int(line)]:
                local_copy(ShardInfo(**info), sha256)
            done = max(done, int(line))


if __name__ == "__main__":
    main()
