"""The compiled kernels: compiled once, stored where no other user can write, and optional."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from models.attention.lska import LSKA
from utils.native import library as module
from utils.native.library import library


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("YOLOV5_CONFIG_DIR", str(tmp_path / "cache"))
    module._library.cache_clear()
    yield
    module._library.cache_clear()


def kept(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").rglob("*.so"))


def test_it_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert library() is not None
    (file,) = kept(tmp_path)
    made = file.stat().st_mtime_ns
    monkeypatch.setattr(module, "_compile", None)
    module._library.cache_clear()

    assert library() is not None
    assert kept(tmp_path) == [file] and file.stat().st_mtime_ns == made


def test_a_changed_source_is_compiled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = module._digest(["/bin/sh"])
    monkeypatch.setattr(module, "SOURCES", module.SOURCES[:1])

    assert module._digest(["/bin/sh"]) != before


@pytest.mark.parametrize("case", ["no compiler", "a compiler that fails", "switched off"])
def test_without_it_pytorchs_operators_run(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block, x = LSKA(16, 11, init="paper"), torch.rand(1, 16, 9, 9)
    with torch.no_grad():
        known = block(x)
    module._library.cache_clear()
    if case == "switched off":
        monkeypatch.setenv("YOLOV5_NATIVE", "0")
    else:
        monkeypatch.setenv("CC", "no-such-cc" if case == "no compiler" else "false")
        monkeypatch.setenv("YOLOV5_CONFIG_DIR", str(tmp_path / "other"))

    assert library() is None
    with torch.no_grad():
        assert torch.allclose(block(x), known, atol=1e-6)
    assert not list((tmp_path / "other").rglob("*.so*"))


def test_a_folder_that_others_can_write_to_is_not_used(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "native"
    folder.mkdir(parents=True)
    folder.chmod(0o777)

    assert library() is not None
    assert not kept(tmp_path)


def test_a_damaged_file_is_replaced(tmp_path: Path) -> None:
    assert library() is not None
    (file,) = kept(tmp_path)
    file.unlink()  # this process has it loaded, so it must not be overwritten
    file.write_bytes(b"not a library")
    module._library.cache_clear()

    assert library() is not None


def test_a_file_in_place_of_the_cache_folder_is_tolerated(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")

    assert library() is not None


def test_without_a_home_it_is_compiled_in_a_temporary_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(module, "cache_folder", nowhere)

    assert library() is not None


def test_a_compiler_with_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "cc -DNOTHING=1")

    assert library() is not None
    assert len(kept(tmp_path)) == 1


def test_concurrent_threads_compile_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[int] = []
    load = module._load
    monkeypatch.setattr(module, "_load", lambda: (loads.append(1), load())[1])

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: library(), range(4)))

    assert len(loads) == 1
    assert all(kernels is found[0] for kernels in found)
