"""Exporters: one file a format, all with the same signature `export(model, images, path, options)`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from utils.export.export_options import Exporter

_MODULES = {"saved_model": "tensorflow", "pb": "tensorflow"}  # others are called as their format


def exporter(name: str) -> Exporter:
    """The function that writes a format."""
    module = import_module(f"utils.export.{_MODULES.get(name, name)}")
    function: Exporter = getattr(module, "export_pb" if name == "pb" else "export")
    return function
