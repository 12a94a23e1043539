"""Class names, and names for the files of a run."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path


class UniqueNames:
    """Names taken in this run. Who asks for one again gets it with a number: `cat`, `cat2`, `cat3`."""

    def __init__(self, reserved: Iterable[str] = ()) -> None:
        self._reserved = {os.path.normcase(name) for name in reserved}  # never made by adding a number
        self._taken: set[str] = set()
        self._next: dict[str, int] = {}

    def unique(self, name: str, ending: str = "") -> str:
        """`name` + `ending`, with a number in between if it is taken."""
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
        """The same for a path: the number goes before its suffix."""
        return Path(self.unique(str(path.with_suffix("")), path.suffix))


def unique_stems(files: Sequence[Path]) -> list[str]:
    """A stem for each file: its own, or with a number where an earlier file has the same."""
    stems = [file.stem for file in files]
    names = UniqueNames(reserved=stems)
    return [names.unique(stem) for stem in stems]


def class_names(names: object) -> dict[int, str]:
    """Class names as files hold them, a list or a mapping with int or text keys, as {0: "person", ...}.

    Raises:
        ValueError: they are neither, or a key is not a number.
    """
    if isinstance(names, dict):
        return {int(index): str(name) for index, name in names.items()}
    if isinstance(names, list | tuple):
        return {index: str(name) for index, name in enumerate(names)}
    raise ValueError(f"names are neither a list nor a mapping: {names!r:.80}")


def safe_name(name: str) -> str:
    """A class's name as the name of a folder."""
    return re.sub(r'[<>:"/\\|?*\x00-\x1f]', "_", name).strip(". ") or "unnamed"
