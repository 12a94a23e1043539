"""The screen as a source: `screen [n]`, `screen l t w h`, `screen n l t w h` (pixels)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np

from utils.base.errors import ConfigError
from utils.sources.files import Fit, Frame

_PATTERN = re.compile(r"screen((?:\s+-?\d+)*)\s*", re.IGNORECASE)


def is_screen(source: str) -> bool:
    """Whether a source means the screen; `screenshot.png` or a folder `screens` do not."""
    return _PATTERN.fullmatch(source.strip()) is not None


class ScreenSource:
    """What a monitor shows, again and again, until somebody stops it."""

    live = True
    saves_images = True

    def __init__(self, source: str) -> None:
        self.source = source
        self.monitor, self.area = _parse(source)
        self.files = [Path(re.sub(r"\W+", "_", source.strip().lower()))]
        self.skipped = 0
        self._mss = _import_mss(source)

    def batches(self, fit: Fit, pool: Executor | None = None) -> Iterator[list[Frame]]:
        """Yield one image of the screen at a time.

        Raises:
            ConfigError: there is no such monitor, or no screen at all.
        """
        number = 0
        try:
            grabber = self._mss.mss()
        except self._mss.exception.ScreenShotError as error:
            raise ConfigError(f"--source {self.source}: no screen to look at ({error})") from error
        with grabber:
            region = self._region(grabber.monitors)
            while True:
                image = np.array(grabber.grab(region), np.uint8)[..., :3].copy()  # BGRA -> BGR
                number += 1
                yield [Frame(self.files[0], image, fit(image), "screen", frame_number=number)]

    def _region(self, monitors: list[dict[str, int]]) -> dict[str, int]:
        if self.monitor >= len(monitors):  # 0 is all of them together
            raise ConfigError(f"--source {self.source}: monitors are 0-{len(monitors) - 1}")
        monitor = monitors[self.monitor]
        if self.area is None:
            return monitor
        left, top, width, height = self.area
        return {
            "left": monitor["left"] + left,
            "top": monitor["top"] + top,
            "width": width or monitor["width"],
            "height": height or monitor["height"],
        }


def _parse(source: str) -> tuple[int, tuple[int, int, int, int] | None]:
    """(monitor, area); without a number monitor 0, all monitors together."""
    match = _PATTERN.fullmatch(source.strip())
    numbers = [int(word) for word in match.group(1).split()] if match else []
    if len(numbers) in (0, 1):
        return (numbers[0] if numbers else 0), None
    if len(numbers) in (4, 5) and min(numbers[-2:]) >= 0:
        left, top, width, height = numbers[-4:]
        return (numbers[0] if len(numbers) == 5 else 0), (left, top, width, height)
    raise ConfigError(f"--source {source}: expected screen [n], screen l t w h, or screen n l t w h")


def _import_mss(source: str) -> Any:
    try:
        import mss
        import mss.exception
    except ImportError as error:
        raise ConfigError(f"--source {source}: the screen needs mss; pip install mss") from error
    return mss
