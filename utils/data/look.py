"""Look at the pictures of a folder and their label files; processes share the work where there is much."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

from utils.data.image_lists import label_path
from utils.data.images import check_image
from utils.data.label_cache import Scan
from utils.data.packed import PathTable
from utils.data.verdict import Verdict, judge, pack

CHUNK = 500  # pictures that one worker looks at
_MANY = 10_000  # from here on processes are worth their start: most of the work holds Python's lock


def look_at_all(images: PathTable) -> Iterator[Scan]:
    """What is found about pictures, `CHUNK` of them at a time, in their order."""
    chunks = [range(first, min(first + CHUNK, len(images))) for first in range(0, len(images), CHUNK)]
    paths = ([images.root + images.place(index) for index in chunk] for chunk in chunks)
    pool = _hire(len(images))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL's opinions about odd Exif data and huge pictures
        try:
            yield from pool.map(_look_at_some, paths)
        finally:
            pool.shutdown(cancel_futures=True)  # Ctrl-C must not wait for the rest


def _hire(pictures: int) -> Executor:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if pictures < _MANY or cores == 1 or sys.platform != "linux":  # elsewhere each imports everything anew
        return ThreadPoolExecutor(2)  # one waits for the disk while the other computes
    return ProcessPoolExecutor(cores, multiprocessing.get_context("fork"), _leave_ctrl_c_alone)


def _leave_ctrl_c_alone() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the pool
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _look_at_some(images: Sequence[str]) -> Scan:
    return pack([_look_at(Path(image)) for image in images])


def _look_at(image: Path) -> Verdict:
    return judge(str(image), lambda: check_image(image), lambda: _text(label_path(image)))


def _text(labels: Path) -> str | None:
    try:
        return labels.read_text(encoding="utf-8-sig", errors="replace")
    except FileNotFoundError:
        return None
