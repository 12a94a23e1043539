"""Exporters: one file a format, all with the same signature; this table says who makes what."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from utils.base.formats import FORMATS

if TYPE_CHECKING:
    from utils.export.options import Exporter

_MODULES = {"torchscript": "utils.export.torchscript", "onnx": "utils.export.onnx"}


def exporter(name: str) -> Exporter | None:
    """The function `export(model, images, path, options)` of a format, or None if it is not ready yet."""
    if not FORMATS[name].ready:
        return None
    function: Exporter = import_module(_MODULES[name]).export
    return function
