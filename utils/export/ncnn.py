"""NCNN by pnnx: a folder with model.ncnn.param, model.ncnn.bin and metadata.yaml."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from torch import Tensor, nn

from utils.base.errors import ConfigError, DataError
from utils.base.formats import FORMATS
from utils.export.export_options import ExportOptions
from utils.export.output import move, whole_folder, write_metadata
from utils.export.torchscript import traced


def export(model: nn.Module, images: Tensor, path: Path, options: ExportOptions) -> None:
    """Trace `model` and convert the trace; weights stay in 32 bits unless `--half`.

    Raises:
        ConfigError: a package is missing, or more than one image at a time is asked for.
        DataError: pnnx failed.
    """
    if len(images) != 1:
        raise ConfigError("--include ncnn: NCNN takes one image at a time, use --batch-size 1")
    try:
        import pnnx
    except ImportError as error:
        raise ConfigError(f"--include ncnn needs: {FORMATS['ncnn'].install}") from error
    with tempfile.TemporaryDirectory(prefix="ncnn-") as work:
        traced(model, images.contiguous()).save(f"{work}/model.pt")
        shape = ",".join(map(str, images.shape))
        command = [pnnx.EXEC_PATH, "model.pt", f"inputshape=[{shape}]", f"fp16={int(options.half)}"]
        done = subprocess.run(command, cwd=work, capture_output=True, text=True, errors="replace")
        made = [Path(work, f"model.ncnn.{kind}") for kind in ("param", "bin")]
        if done.returncode or not all(file.is_file() for file in made):
            raise DataError(f"pnnx failed: {(done.stderr or done.stdout).strip()[-300:]}")
        with whole_folder(path) as folder:
            for file in made:
                move(file, folder / file.name)
            write_metadata(folder / "metadata.yaml", options.metadata(images))
