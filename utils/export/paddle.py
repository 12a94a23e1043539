"""PaddlePaddle, converted by X2Paddle: a folder with the program, its weights and a yaml of metadata."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from torch import Tensor, nn

from utils.base.errors import ConfigError
from utils.base.formats import FORMATS
from utils.export.export_settings import ExportSettings, atomic_folder, write_metadata


def export_paddle(model: nn.Module, images: Tensor, path: Path, settings: ExportSettings) -> None:
    """Convert `model`, traced on `images`.

    Raises:
        ConfigError: X2Paddle is missing.
    """
    try:
        from x2paddle.convert import pytorch2paddle
    except ImportError as error:
        raise ConfigError(f"--include paddle needs: {FORMATS['paddle'].install}") from error
    with tempfile.TemporaryDirectory(prefix="paddle-") as work:
        pytorch2paddle(module=model, save_dir=work, jit_type="trace", input_examples=[images.contiguous()],
                       disable_feedback=True)  # fmt: skip
        with atomic_folder(path) as folder:
            for file in Path(work, "inference_model").iterdir():
                shutil.copyfile(file, folder / file.name)
            write_metadata(
                folder / f"{path.name.removesuffix('_paddle_model')}.yaml", settings.metadata(images)
            )
