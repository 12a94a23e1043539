"""Download the shards that an epoch needs next, while the model trains on the present ones.

A separate process does it: a thread might hold a lock at the moment when the loader forks its workers, and
block them.
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

_AHEAD = 2  # shards to download beyond those in use


class ShardPrefetcher:
    """Subprocess that downloads shards ahead of the batches that use them.

    Args:
        images: images of the dataset.
        order: (N,) image indices in the order of the epoch.
        start: position in `order` where the epoch starts; shards that are only used before it are ignored.
        reach: how many positions ahead a batch may look for images to combine with its own.
    """

    def __init__(self, images: ShardTable, order: np.ndarray, start: int = 0, reach: int = 0) -> None:
        self._reach = reach
        self._requested = 0  # shards
        numbers, first = np.unique(images.shard[order[start:]], return_index=True)
        by_use = np.argsort(first)
        self._first = first[by_use] + start  # position in `order` where each shard is needed first
        shards = [images.shards[number] for number in numbers[by_use]]
        with tempfile.NamedTemporaryFile("w", suffix=".json", delete=False, encoding="utf-8") as file:
            json.dump([[asdict(shard.info), shard.sha256] for shard in shards], file)
        self._child = subprocess.Popen(
            [sys.executable, "-m", "utils.data.shards.prefetch_shards", file.name],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            text=True,
        )
        self.advance(start)

    def advance(self, position: int) -> None:
        """Request the shards that are needed from this position of the order on."""
        wanted = int(np.searchsorted(self._first, position + self._reach, side="right")) + _AHEAD
        pipe = self._child.stdin
        if wanted <= self._requested or pipe is None:
            return
        self._requested = wanted
        with suppress(BrokenPipeError):  # a download failed; the loader raises the error
            pipe.write(f"{wanted}\n")  # a few bytes for each shard: the pipe is never full
            pipe.flush()

    def close(self) -> None:
        """Stop downloading."""
        self._child.terminate()
        with suppress(BrokenPipeError):
            self._child.communicate()


def main() -> None:
    """Download the shards listed in a file; each line of stdin says how many of them to have."""
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(0))  # removes a partial download
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    LOG.disabled = True  # the process that needs a shard reports what went wrong
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
