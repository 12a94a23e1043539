"""PaddlePaddle by X2Paddle: a folder with the program, its numbers, and stride and names (.yaml)."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from torch import Tensor, nn

from utils.base.errors import ConfigError
from utils.base.formats import FORMATS
from utils.export.export_options import ExportOptions
from utils.export.output import whole_folder, write_metadata


def export(model: nn.Module, images: Tensor, path: Path, options: ExportOptions) -> None:
    """Convert `model`, traced on `images`.

    Raises:
        ConfigError: a package is missing.
    """
    try:
        from x2paddle.convert import pytorch2paddle
    except ImportError as error:
        raise ConfigError(f"--include paddle needs: {FORMATS['paddle'].install}") from error
    with tempfile.TemporaryDirectory(prefix="paddle-") as work:
        pytorch2paddle(module=model, save_dir=work, jit_type="trace", input_examples=[images.contiguous()],
                       disable_feedback=True)  # fmt: skip
        with whole_folder(path) as folder:
            for file in Path(work, "inference_model").iterdir():
                shutil.copyfile(file, folder / file.name)
            write_metadata(
                folder / f"{path.name.removesuffix('_paddle_model')}.yaml", options.metadata(images)
            )
