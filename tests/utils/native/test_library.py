"""The compiled kernels: made once, kept where nobody else can write, and never needed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from models.attention.lska import LSKA
from utils.native import library as module
from utils.native.library import library


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("YOLOV5_CONFIG_DIR", str(tmp_path / "cache"))
    library.cache_clear()
    yield
    library.cache_clear()


def kept(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").rglob("*.so"))


def test_it_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert library() is not None
    (file,) = kept(tmp_path)
    made = file.stat().st_mtime_ns
    monkeypatch.setattr(module, "_compile", None)
    library.cache_clear()

    assert library() is not None
    assert kept(tmp_path) == [file] and file.stat().st_mtime_ns == made


def test_another_source_is_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = module._digest("/bin/sh")
    monkeypatch.setattr(module, "SOURCES", module.SOURCES[:1])

    assert module._digest("/bin/sh") != before


@pytest.mark.parametrize("case", ["no compiler", "a compiler that fails", "switched off"])
def test_without_it_the_plain_operators_run(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block, x = LSKA(16, 11, init="paper"), torch.rand(1, 16, 9, 9)
    with torch.no_grad():
        known = block(x)
    library.cache_clear()
    if case == "switched off":
        monkeypatch.setenv("YOLOV5_NATIVE", "0")
    else:
        monkeypatch.setenv("CC", "no-such-cc" if case == "no compiler" else "false")
        monkeypatch.setenv("YOLOV5_CONFIG_DIR", str(tmp_path / "other"))

    assert library() is None
    with torch.no_grad():
        assert torch.allclose(block(x), known, atol=1e-6)
    assert not list((tmp_path / "other").rglob("*.so*"))


def test_a_folder_that_others_can_write_is_not_trusted(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "native"
    folder.mkdir(parents=True)
    folder.chmod(0o777)

    assert library() is not None
    assert not kept(tmp_path)


def test_a_damaged_file_does_no_harm(tmp_path: Path) -> None:
    assert library() is not None
    (file,) = kept(tmp_path)
    file.unlink()  # it is in use: writing into it would pull the code from under this process
    file.write_bytes(b"not a library")
    library.cache_clear()

    assert library() is not None


def test_a_cache_that_is_a_file_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")

    assert library() is not None
