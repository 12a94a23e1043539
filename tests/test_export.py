from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import export
from tests.models.backends.files import checkpoint
from utils.base.paths import ROOT


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return Path(shutil.copy(checkpoint(), tmp_path / "my model.pt"))


def test_files_are_written_next_to_the_weights(weights: Path) -> None:
    files = export.run(weights=str(weights), include=["torchscript", "onnx"], imgsz=64, dynamic=True)
    assert files == [weights.with_suffix(".torchscript"), weights.with_suffix(".onnx")]
    assert all(file.stat().st_size > 10_000 for file in files)


def test_the_exit_status_is_1_if_a_format_fails(weights: Path) -> None:
    command = [sys.executable, "export.py", "--weights", str(weights), "--img", "64"]
    command += ["--include", "engine", "onnx"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)

    assert done.returncode == 1
    assert "ERROR: engine export failure: --include engine needs an NVIDIA GPU" in done.stderr
    assert "Traceback" not in done.stderr
    assert weights.with_suffix(".onnx").exists()
    assert "difference" in done.stdout


def test_invalid_flags_are_reported_before_pytorch_is_loaded() -> None:
    code = (
        "import sys, export\nsys.argv[1:] = ['--include', 'onx']\n"
        "try:\n    export.main()\nexcept ValueError:\n    pass\n"
        "print(sorted({'torch', 'numpy', 'cv2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n"
