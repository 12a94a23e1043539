"""What a report shows beside its figures: the command line, and example pictures; kept for `--report`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.base.errors import DataError
from utils.base.paths import atomic_write

KEPT = "report.json"


@dataclass(frozen=True)
class Example:
    """A picture with the boxes of several sources side by side."""

    title: str
    panels: tuple[tuple[str, np.ndarray], ...]  # label, picture (h, w, 3) uint8 BGR


@dataclass(frozen=True)
class Gallery:
    """The parts of a report that do not come from its csv files."""

    command: tuple[str, ...] = ()  # for the reader to repeat
    examples: tuple[Example, ...] = ()

    def write(self, folder: Path) -> None:
        """Write report.json, and the pictures into `folder`/examples."""
        from utils.plots.picture import write_picture

        examples = []
        for number, example in enumerate(self.examples, 1):
            panels = []
            for index, (label, picture) in enumerate(example.panels):
                name = f"examples/{number}-{index}.jpg"
                write_picture(folder / name, picture)
                panels.append({"label": label, "file": name})
            examples.append({"title": example.title, "panels": panels})
        with atomic_write(folder / KEPT, "w", encoding="utf-8") as file:
            json.dump({"command": self.command, "examples": examples}, file, indent=1)


def read_gallery(folder: Path) -> Gallery:
    """Read what `Gallery.write` wrote; an empty one if nothing was.

    Raises:
        DataError: report.json or a picture is damaged.
    """
    from utils.data.images import read_image

    file = folder / KEPT
    if not file.is_file():
        return Gallery()
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        examples = tuple(
            Example(
                str(one["title"]),
                tuple((str(panel["label"]), read_image(folder / panel["file"])) for panel in one["panels"]),
            )
            for one in content["examples"]
        )
        return Gallery(tuple(map(str, content["command"])), examples)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file}: damaged ({error!r}); delete it to do without its pictures") from error
