"""Limits of what files and streams of others may cost, in one place, and how to raise them.

Each is an environment variable: `YOLOV5_MAX_DEPTH=500 python val.py ...`. A message that names a limit says
so.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from utils.base.errors import ConfigError, DataError

_PREFIX = "YOLOV5_MAX_"


@dataclass(frozen=True)
class Limit:
    """A limit.

    Attributes:
        name: end of the environment variable.
        default: the highest value that is accepted without it.
        what: what is counted, in the plural.
    """

    name: str
    default: int
    what: str

    @property
    def variable(self) -> str:
        """The environment variable that replaces the default."""
        return f"{_PREFIX}{self.name}"

    @property
    def value(self) -> int:
        """The highest value that is accepted.

        Raises:
            ConfigError: the environment variable is no positive integer.
        """
        text = os.environ.get(self.variable, "").strip().replace("_", "")
        if not text:
            return self.default
        if not (text.isascii() and text.isdecimal() and len(text) < 19 and int(text)):
            raise ConfigError(f"{self.variable}: expected a positive integer, found {text[:40]!r}")
        return int(text)

    def check(self, count: int, where: str = "", part: int = 1) -> None:
        """Refuse more than the limit.

        Args:
            count: number to check.
            where: text before the message.
            part: the limit is divided by this.

        Raises:
            DataError: `count` is more.
        """
        most = self.value // part
        if count > most:
            start = f"{where}: " if where else ""
            raise DataError(
                f"{start}more than {most:,} {self.what}, found {count:,}; if you trust the file, "
                f"raise the limit with {self.variable}"
            )


DESCRIPTION = Limit("DESCRIPTION", 8 * 2**20, "bytes that describe the objects of a checkpoint")
DEPTH = Limit("DEPTH", 100, "levels of containers in each other")
LAYERS = Limit("LAYERS", 500, "layers, counting repeats")
PARAMETERS = Limit("PARAMETERS", 200_000_000, "parameters")
ACTIVATIONS = Limit("ACTIVATIONS", 25_000_000, "values that one layer returns for an image of 256 pixels")
CLASSES = Limit("CLASSES", 100_000, "classes")
YAML = Limit("YAML", 2**20, "bytes of a yaml")
PIXELS = Limit("PIXELS", 2**25, "pixels of an image or a frame of a video")
LARGE_FILES = 4  # a file that is as large as photos are may have so many times the pixels
IMAGE = Limit("IMAGE", 2**29, "bytes of an image file")
LABELS = Limit("LABELS", 2**24, "bytes of a label file")
DOWNLOAD = Limit("DOWNLOAD", 6 * 3600, "seconds of a download")
LIST = Limit("LIST", 2**30, "bytes of a list of images or of annotations")
