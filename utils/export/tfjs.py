"""TensorFlow.js by Google's converter, a program of its own: `pipx install tensorflowjs` keeps it apart."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from torch import Tensor, nn

from utils.base.errors import ConfigError, DataError
from utils.export.export_options import ExportOptions
from utils.export.output import whole_folder, write_metadata
from utils.export.tensorflow import export_pb


def export(model: nn.Module, images: Tensor, path: Path, options: ExportOptions) -> None:
    """Freeze the graph and convert it.

    Raises:
        ConfigError: there is no converter on the PATH.
        DataError: it failed.
    """
    converter = shutil.which("tensorflowjs_converter")
    if converter is None:
        raise ConfigError(
            "--include tfjs needs tensorflowjs_converter: "
            "pipx install tensorflowjs, pipx inject tensorflowjs 'ydf<0.13'"
        )
    with tempfile.TemporaryDirectory(prefix="tfjs-") as work, whole_folder(path) as folder:
        frozen = Path(work, "model.pb")
        export_pb(model, images, frozen, options)
        command = [converter, "--input_format=tf_frozen_model", "--output_node_names=output0"]
        done = subprocess.run([*command, str(frozen), str(folder)], capture_output=True, text=True)
        if done.returncode or not (folder / "model.json").is_file():
            raise DataError(f"tensorflowjs_converter failed: {(done.stderr or done.stdout).strip()[-300:]}")
        write_metadata(folder / "metadata.yaml", options.metadata(images))
