"""Edge TPU: the int8 TensorFlow Lite file, compiled by Google's edgetpu_compiler. Not run by our tests."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from torch import Tensor, nn

from utils.base.errors import ConfigError, DataError
from utils.export import tflite
from utils.export.export_options import ExportOptions
from utils.export.output import append_metadata, move


def export(model: nn.Module, images: Tensor, path: Path, options: ExportOptions) -> None:
    """Write the int8 file and compile it.

    Raises:
        ConfigError: no `--int8`, or no compiler.
        DataError: it failed.
    """
    if options.calibration_images is None:
        raise ConfigError("--include edgetpu needs --int8, and --data with images to calibrate with")
    compiler = shutil.which("edgetpu_compiler")
    if compiler is None:
        raise ConfigError("--include edgetpu needs edgetpu_compiler: https://coral.ai/docs/edgetpu/compiler")
    with tempfile.TemporaryDirectory(prefix="edgetpu-") as work:
        tflite.export(model, images, Path(work, "model.tflite"), options, scope=".*")  # it has no floats
        done = subprocess.run(
            [compiler, "-s", "-o", work, "model.tflite"], cwd=work, capture_output=True, text=True
        )
        made = Path(work, "model_edgetpu.tflite")
        if done.returncode or not made.is_file():
            raise DataError(f"edgetpu_compiler failed: {(done.stderr or done.stdout).strip()[-300:]}")
        append_metadata(made, options.metadata(images))
        move(made, path)
