"""Formats that are programs by nature say so once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import models.backends
from models.backends import load_backend


def test_a_program_is_announced_once(monkeypatch: pytest.MonkeyPatch, logged: list[str]) -> None:
    models.backends._say_that_it_is_a_program.cache_clear()
    monkeypatch.setattr(models.backends, "_open", lambda *_, **__: Opened())
    for file in ("a.torchscript", "b.torchscript", "c.onnx", "d.engine"):
        load_backend(Path(file), torch.device("cpu"))
    said = [line for line in logged if "are programs" in line]
    assert said == [
        "TorchScript files are programs: open only those that you trust",
        "TensorRT files are programs: open only those that you trust",
    ]


class Opened:
    def set_missing_names(self, names: dict[int, str] | None) -> None:
        pass
