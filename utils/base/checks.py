"""What options of several scripts have in common: loose values brought into form, bad ones refused."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from utils.base.errors import ConfigError


class Checked:
    """Options that know how to refuse a value."""

    def _require(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            flag, value = "--" + name.replace("_", "-"), getattr(self, name)
            given = " ".join(map(str, value)) if isinstance(value, list) else value
            raise ConfigError(f"{flag} {given}: expected {expected}")


def listed(value: Any) -> list[Any]:
    """A list of what is one already, or of one value, or of none."""
    if value is None:
        return []
    return list(value) if isinstance(value, Iterable) and not isinstance(value, str) else [value]


def height_width(imgsz: Any) -> tuple[int, int]:
    """Both sides of an image, given as one or two numbers.

    Raises:
        ConfigError: neither.
    """
    sides = [int(side) for side in listed(imgsz)]
    if len(sides) not in (1, 2) or min(sides) < 1:
        raise ConfigError(f"--imgsz {' '.join(map(str, sides))}: expected one or two sizes in pixels (h w)")
    return sides[0], sides[-1]
