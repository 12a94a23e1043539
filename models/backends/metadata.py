"""Stride and class names that an exported model brings along, as the formats keep them."""

from __future__ import annotations

import ast
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils.base.errors import ConfigError, DataError
from utils.base.log import LOG
from utils.base.names import class_names
from utils.base.paths import find_file
from utils.base.yaml_io import read_yaml

MAX_STRIDE = 32  # of a model whose file does not say
_LARGEST = 1 << 16
_DAMAGE = (  # what values of the wrong kind, or far too many, raise
    *(SyntaxError, TypeError, ValueError, AttributeError, LookupError),
    *(OverflowError, RecursionError, MemoryError),
)


@dataclass(frozen=True)
class Metadata:
    """What a file says of its model."""

    stride: int = MAX_STRIDE
    names: dict[int, str] = field(default_factory=dict)
    suppressed: bool = False  # its output is what is left after suppression: (B, K, 6) xyxy, score, class
    imgsz: tuple[int, int] | None = None  # the only (height, width) that it takes
    batch: int | None = None
    least: float = 0.0  # where it is thinned out: the confidence below which boxes are gone

    @staticmethod
    def of(raw: Mapping[str, Any], file: object) -> Metadata:
        """From a mapping; values may be text.

        Raises:
            DataError: they are not what they should be.
        """
        try:
            values = {key: _value(value) for key, value in raw.items()}
            size, batch = values.get("imgsz"), values.get("batch")
            nms = values.get("nms") or None
            made = Metadata(
                int(values.get("stride", MAX_STRIDE)),
                class_names(values.get("names", {})),
                nms is not None,
                (int(size[0]), int(size[1])) if size else None,
                int(batch) if batch else None,
                float(nms["conf"]) if isinstance(nms, Mapping) else 0.0,
            )
            if not 1 <= made.stride <= _LARGEST or not all(1 <= n <= _LARGEST for n in made.numbers):
                raise ValueError(f"stride {made.stride}, size {made.imgsz}, batch {made.batch}")
            return made
        except _DAMAGE as error:
            words = str(error)[:100] or type(error).__name__
            raise DataError(f"{file}: stride or names in its metadata are damaged ({words})") from error

    @property
    def numbers(self) -> list[int]:
        """Sides and batch, as far as they are fixed."""
        return [*(self.imgsz or ()), *([self.batch] if self.batch is not None else [])]


def from_yaml(folder: Path) -> Metadata:
    """From the yaml file of a folder, if it has one."""
    files = sorted(folder.glob("*.yaml"))
    return Metadata.of(read_yaml(files[0]), files[0]) if files else Metadata()


def from_zip(path: Path) -> Metadata:
    """From a text file in a zip archive that a model file ends in, if it does."""
    if not zipfile.is_zipfile(path):
        return Metadata()
    try:
        with zipfile.ZipFile(path) as archive:
            text = archive.read(archive.namelist()[0]).decode()
        found = literal(text)
    except (*_DAMAGE, zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path}: its metadata are damaged ({type(error).__name__})") from error
    return Metadata.of(found, path)


def read_class_names(data: str) -> dict[int, str] | None:
    """Return the class names of a data yaml, for models that hold none; None where it cannot be found."""
    try:
        names = read_yaml(find_file(data, ("data",), (".yaml", ".yml"), "--data")).get("names")
    except ConfigError as error:
        LOG.warning(f"{error}; classes that the model does not name are shown as numbers")
        return None
    return class_names(names) if isinstance(names, list | dict) else None


def literal(text: str) -> Any:
    """A text's value: JSON, or Python's way to write numbers, texts, lists and dicts."""
    try:
        return json.loads(text)
    except ValueError:
        return ast.literal_eval(text)


def _value(value: Any) -> Any:
    return literal(value) if isinstance(value, str) else value
