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


def test_files_stand_beside_the_weights(weights: Path) -> None:
    files = export.run(weights=str(weights), include=["torchscript", "onnx"], imgsz=64, dynamic=True)
    assert files == [weights.with_suffix(".torchscript"), weights.with_suffix(".onnx")]
    assert all(file.stat().st_size > 10_000 for file in files)


def test_the_exit_status_tells_of_a_format_that_cannot_be_made(weights: Path) -> None:
    line = [
        sys.executable,
        "export.py",
        "--weights",
        str(weights),
        "--img",
        "64",
        "--include",
        "engine",
        "onnx",
    ]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120)

    assert done.returncode == 1
    assert "ERROR: engine export failure: --include engine needs an NVIDIA GPU" in done.stderr
    assert "Traceback" not in done.stderr
    assert weights.with_suffix(".onnx").exists()
    assert "difference" in done.stdout


def test_help_and_mistakes_are_answered_before_pytorch_is_loaded() -> None:
    code = (
        "import sys\nfrom utils.export.export_options import parse_options\n"
        "import export\ntry:\n    parse_options(['--include', 'onx'])\nexcept ValueError:\n    pass\n"
        "print(sorted({'torch', 'numpy', 'cv2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n"
