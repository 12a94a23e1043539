"""Scripts import only what they use: start-up is part of every run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.models.backends.files import checkpoint
from tests.utils.sources.test_source import make_image_file
from utils.base.paths import ROOT

SERVICES = ("tensorboard", "wandb", "comet_ml", "clearml", "mlflow")
NEVER = ("pandas", "seaborn", "scipy", "torchvision", "requests", *SERVICES)


def loaded(code: str, *watched: str) -> list[str]:
    """Return which of the modules `watched` a new process has imported after it ran `code`."""
    code += f"\nimport sys; print('loaded:', *[name for name in {watched} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()[1:]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return the data yaml of two labelled images."""
    for name in "ab":
        file = make_image_file(tmp_path / "images" / f"{name}.jpg", 64, 64)
        label = tmp_path / "labels" / f"{file.stem}.txt"
        label.parent.mkdir(exist_ok=True)
        label.write_text("0 0.5 0.5 0.5 0.5\n")
    yaml = tmp_path / "d.yaml"
    yaml.write_text(f"path: {tmp_path}\ntrain: images\nval: images\nnames: [cell, red plate]\n")
    return yaml


@pytest.mark.parametrize("script", ["train", "val", "detect", "export", "compare", "graft", "visualize"])
def test_help_imports_only_the_standard_library(script: str) -> None:
    code = f"""
import runpy, sys
sys.argv = ['{script}.py', '--help']
try: runpy.run_path('{script}.py', run_name='__main__')
except SystemExit as end: assert end.code == 0
"""
    assert not loaded(code, "torch", "numpy", "cv2", "yaml", "PIL", "tqdm", "matplotlib", *NEVER)


def test_detection_imports_no_plots_and_no_loggers(tmp_path: Path) -> None:
    file = make_image_file(tmp_path / "a.jpg")
    code = (
        f"import detect; detect.run(weights=r'{checkpoint()}', source=r'{file}', imgsz=64, save_crop=True, "
    )
    code += f"save_txt=True, project=r'{tmp_path}', device='cpu')"
    assert not loaded(code, "matplotlib", "PIL", "utils.loggers", "onnx", "onnxruntime", *NEVER)


def test_validation_without_plots_imports_none(data: Path) -> None:
    code = f"import val; val.run(weights=r'{checkpoint()}', data=r'{data}', imgsz=64, task='speed', "
    code += "device='cpu', workers=0)"
    assert not loaded(code, "matplotlib", "onnx", "onnxruntime", *NEVER)


def test_training_without_plots_imports_none(data: Path) -> None:
    code = f"import train; train.run(weights=r'{checkpoint()}', data=r'{data}', imgsz=64, epochs=1, "
    code += (
        f"batch_size=2, noplots=True, workers=0, device='cpu', project=r'{data.parent}', noautoanchor=True)"
    )
    assert not loaded(code, "matplotlib", "onnx", "onnxruntime", *NEVER)


def test_export_imports_only_the_format_that_it_writes(tmp_path: Path) -> None:
    weights = tmp_path / "a.pt"
    weights.write_bytes(checkpoint().read_bytes())
    code = f"import export; export.run(weights=r'{weights}', include=['torchscript'], imgsz=64, device='cpu')"
    assert not loaded(code, "matplotlib", "onnx", "onnxruntime", *NEVER)
