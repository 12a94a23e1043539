"""NCNN, converted by pnnx: a folder with model.ncnn.param, model.ncnn.bin and metadata.yaml."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from torch import Tensor, nn

from utils.base.errors import ConfigError, DataError
from utils.base.formats import FORMATS
from utils.export.export_settings import ExportSettings, atomic_folder, move, write_metadata
from utils.export.pytorch import trace


def export_ncnn(model: nn.Module, images: Tensor, path: Path, settings: ExportSettings) -> None:
    """Trace `model` and convert the trace; weights are FP32, or FP16 with `--half`.

    Raises:
        ConfigError: pnnx is missing, or the batch has several images.
        DataError: pnnx failed.
    """
    if len(images) != 1:
        raise ConfigError("--include ncnn: NCNN takes one image at a time, use --batch-size 1")
    try:
        import pnnx
    except ImportError as error:
        raise ConfigError(f"--include ncnn needs: {FORMATS['ncnn'].install}") from error
    with tempfile.TemporaryDirectory(prefix="ncnn-") as work:
        trace(model, images.contiguous()).save(f"{work}/model.pt")
        shape = ",".join(map(str, images.shape))
        command = [pnnx.EXEC_PATH, "model.pt", f"inputshape=[{shape}]", f"fp16={int(settings.half)}"]
        done = subprocess.run(command, cwd=work, capture_output=True, text=True, errors="replace")
        files = [Path(work, f"model.ncnn.{kind}") for kind in ("param", "bin")]
        if done.returncode or not all(file.is_file() for file in files):
            raise DataError(f"pnnx failed: {(done.stderr or done.stdout).strip()[-300:]}")
        with atomic_folder(path) as folder:
            for file in files:
                move(file, folder / file.name)
            write_metadata(folder / "metadata.yaml", settings.metadata(images))
