"""Stride and class names that an exported model brings along, as the formats keep them."""

from __future__ import annotations

import ast
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils.base.errors import DataError
from utils.base.yaml_io import read_yaml

MAX_STRIDE = 32  # of a model whose file does not say


@dataclass(frozen=True)
class Metadata:
    """What a file says of its model."""

    stride: int = MAX_STRIDE
    names: dict[int, str] = field(default_factory=dict)
    suppressed: bool = False  # its output is what is left after suppression: (B, K, 6) xyxy, score, class
    imgsz: tuple[int, int] | None = None  # the only (height, width) that it takes
    batch: int | None = None

    @staticmethod
    def of(facts: Mapping[str, Any], file: object) -> Metadata:
        """From a mapping; values may be text.

        Raises:
            DataError: they are not what they should be.
        """
        try:
            values = {key: _value(value) for key, value in facts.items()}
            size, batch = values.get("imgsz"), values.get("batch")
            return Metadata(
                int(values.get("stride", MAX_STRIDE)),
                names_by_index(values.get("names", {})),
                bool(values.get("nms", False)),
                (int(size[0]), int(size[1])) if size else None,
                int(batch) if batch else None,
            )
        except (SyntaxError, TypeError, ValueError, IndexError) as error:
            raise DataError(f"{file}: stride or names in its metadata are damaged ({error})") from error


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
        return Metadata.of(literal(text), path)
    except (zipfile.BadZipFile, IndexError, UnicodeDecodeError, SyntaxError, ValueError) as error:
        raise DataError(f"{path}: its metadata are damaged ({error})") from error


def literal(text: str) -> Any:
    """A text's value: JSON, or Python's way to write numbers, texts, lists and dicts."""
    try:
        return json.loads(text)
    except ValueError:
        return ast.literal_eval(text)


def names_by_index(names: object) -> dict[int, str]:
    """Names as a file holds them (list, or dict with int or text keys) -> {0: "person", ...}."""
    if isinstance(names, dict):
        return {int(index): str(name) for index, name in names.items()}
    if isinstance(names, list | tuple):
        return {index: str(name) for index, name in enumerate(names)}
    raise ValueError(f"names are neither a list nor a mapping: {names!r:.80}")


def _value(value: Any) -> Any:
    return literal(value) if isinstance(value, str) else value
