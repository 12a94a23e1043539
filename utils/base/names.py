"""Class names, and unique names for the files of a run."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from utils.base.errors import ConfigError


class UniqueNames:
    """Names that are unique in one run: a name asked for again gets a number (`cat`, `cat2`, `cat3`).

    Args:
        reserved: names that are never made by adding a number, as they will be asked for later.
    """

    def __init__(self, reserved: Iterable[str] = ()) -> None:
        self._reserved = {os.path.normcase(name) for name in reserved}
        self._taken: set[str] = set()
        self._next: dict[str, int] = {}

    def unique(self, name: str, ending: str = "") -> str:
        """Return `name` + `ending`, with a number in between if it is taken."""
        whole = os.path.normcase(name + ending)
        if whole not in self._taken:
            self._taken.add(whole)
            return name + ending
        number = self._next.get(whole, 2)
        while (key := os.path.normcase(f"{name}{number}{ending}")) in self._taken or key in self._reserved:
            number += 1
        self._next[whole] = number + 1
        self._taken.add(key)
        return f"{name}{number}{ending}"

    def unique_path(self, path: Path) -> Path:
        """Return `path`, with a number before its suffix if it is taken."""
        return Path(self.unique(str(path.with_suffix("")), path.suffix))


def unique_stems(files: Sequence[Path]) -> list[str]:
    """Return a stem for each file: its own, or with a number where an earlier file has the same."""
    stems = [file.stem for file in files]
    names = UniqueNames(reserved=stems)
    return [names.unique(stem) for stem in stems]


def class_names(names: object) -> dict[int, str]:
    """Return class names, read from a list or a mapping with int or text keys, as {0: "person", ...}.

    Raises:
        ValueError: they are neither, or a key is not a number.
    """
    if isinstance(names, dict):
        return {int(index): str(name) for index, name in names.items()}
    if isinstance(names, list | tuple):
        return {index: str(name) for index, name in enumerate(names)}
    raise ValueError(f"names are neither a list nor a mapping: {names!r:.80}")


def describe_classes(classes: Iterable[float], names: Mapping[int, str]) -> str:
    """Return how many objects there are of each class, such as `4 persons, 1 bus`."""
    counts = sorted(Counter(map(int, classes)).items())
    words = (f"{count} {names.get(index, index)}{'s' if count > 1 else ''}" for index, count in counts)
    return ", ".join(words) or "(no detections)"


def counted(count: int, noun: str) -> str:
    """Return such as `1 image` and `2 images`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def check_nc(nc: object, count: int, yaml: Path, what: str = "names: lists {} classes") -> None:
    """Check that `nc:` of a yaml, if it is given, is the number of names.

    Args:
        nc: a number, also as text.
        count: number of names.
        yaml: for messages.
        what: says where the names are, with {} for their number.

    Raises:
        ConfigError: it is not.
    """
    if isinstance(nc, str) and nc.strip().isdecimal():
        nc = int(nc)
    if nc is None or (nc == count and not isinstance(nc, bool)):
        return
    what = what.replace("{}", str(count))
    if isinstance(nc, bool) or not isinstance(nc, int | float):
        raise ConfigError(f"{yaml}: nc: {nc!r} is not a number; expected nc: {count}, as {what}")
    raise ConfigError(f"{yaml}: nc: {nc}, but {what}; correct one of them")


def safe_name(name: str) -> str:
    """Return a class name as the name of a folder."""
    return re.sub(r'[<>:"/\\|?*\x00-\x1f]', "_", name).strip(". ") or "unnamed"
