"""Metadata of exported model files: stride, class names and sizes, in whatever form a format stores them."""

from __future__ import annotations

import ast
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils.base.errors import ConfigError, DataError, one_line
from utils.base.log import LOG
from utils.base.names import class_names
from utils.base.paths import find_file
from utils.base.yaml_io import read_yaml

TASKS = ("", "detect", "segment", "classify")
MAX_STRIDE = 32  # assumed where the file does not say
_LARGEST = 1 << 16
_CORRUPT = (  # raised by values of the wrong type or size
    *(SyntaxError, TypeError, ValueError, AttributeError, LookupError),
    *(OverflowError, RecursionError, MemoryError),
)


@dataclass(frozen=True)
class Metadata:
    """Metadata of an exported model.

    Attributes:
        stride: largest stride of the model.
        names: class names by index.
        has_nms: whether NMS is part of the model, whose output then is (B, K, 6) xyxy, confidence, class.
        imgsz: the only (height, width) that it accepts; None for any.
        batch: the only batch size that it accepts; None for any.
        nms_conf: confidence threshold of its NMS.
        task: detect, segment or classify; empty where the file does not say, as those of YOLOv5.
    """

    stride: int = MAX_STRIDE
    names: dict[int, str] = field(default_factory=dict)
    has_nms: bool = False
    imgsz: tuple[int, int] | None = None
    batch: int | None = None
    nms_conf: float = 0.0
    task: str = ""

    @staticmethod
    def of(raw: Mapping[str, Any], file: object) -> Metadata:
        """Read metadata from a mapping, whose values may be text; `file` is named in the error.

        Raises:
            DataError: a value of the wrong type or size.
        """
        try:
            values = {key: _value(value) for key, value in raw.items() if key != "task"}
            imgsz, batch = values.get("imgsz"), values.get("batch")
            task = str(raw.get("task", ""))
            if task not in TASKS:
                raise ValueError(f"task {task}")
            nms = values.get("nms") or None
            metadata = Metadata(
                int(values.get("stride", MAX_STRIDE)),
                class_names(values.get("names", {})),
                nms is not None,
                (int(imgsz[0]), int(imgsz[1])) if imgsz else None,
                int(batch) if batch else None,
                float(nms["conf"]) if isinstance(nms, Mapping) else 0.0,
                task,
            )
            sizes = [metadata.stride, *(metadata.imgsz or ())]
            if metadata.batch is not None:
                sizes.append(metadata.batch)
            if not all(1 <= size <= _LARGEST for size in sizes):
                raise ValueError(f"stride {metadata.stride}, size {metadata.imgsz}, batch {metadata.batch}")
            return metadata
        except _CORRUPT as error:
            reason = one_line(error)[:100]
            raise DataError(f"{file}: stride or names in its metadata are corrupt ({reason})") from error


def from_yaml(folder: Path) -> Metadata:
    """Read the metadata of a folder from the yaml file in it, if there is one."""
    files = sorted(folder.glob("*.yaml"))
    return Metadata.of(read_yaml(files[0]), files[0]) if files else Metadata()


def from_zip(path: Path) -> Metadata:
    """Read metadata from a zip archive with one text file, if one is appended to the model file.

    Raises:
        DataError: it is corrupt.
    """
    if not zipfile.is_zipfile(path):
        return Metadata()
    try:
        with zipfile.ZipFile(path) as archive:
            text = archive.read(archive.namelist()[0]).decode()
        content = parse_literal(text)
    except (*_CORRUPT, zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path}: its metadata are corrupt ({type(error).__name__})") from error
    return Metadata.of(content, path)


def read_class_names(data: str) -> dict[int, str] | None:
    """Return the class names of a data yaml, for models that hold none; None where it cannot be found."""
    try:
        names = read_yaml(find_file(data, ("data",), (".yaml", ".yml"), "--data")).get("names")
    except ConfigError as error:
        LOG.warning(f"{error}; classes that the model does not name are shown as numbers")
        return None
    return class_names(names) if isinstance(names, list | dict) else None


def parse_literal(text: str) -> Any:
    """Return the value of a text in JSON, or of a Python literal (numbers, strings, lists, dicts)."""
    try:
        return json.loads(text)
    except ValueError:
        return ast.literal_eval(text)


def _value(value: Any) -> Any:
    return parse_literal(value) if isinstance(value, str) else value
