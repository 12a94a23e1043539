"""Transfer trained YOLOv5 weights into a config with other layers, such as one with attention.

python graft.py --weights yolov5n.pt --cfg yolov5n-LSKA.yaml --output yolov5n-LSKA.pt
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.base import script
from utils.base.errors import ConfigError, DataError
from utils.base.log import LOG
from utils.base.options import BLOCKS_HELP, Options, flag, options_from, parse_options


@dataclass(frozen=True)
class GraftOptions(Options):
    """Options of graft.py."""

    prog = "graft.py"
    description = "Transfer trained weights into a config with other layers, such as one with attention."

    weights: str = flag("yolov5s.pt", "trained weights: official, own, or of a VAN classifier")
    cfg: str = flag("", "model yaml to fill (required)")
    blocks: str = flag("", BLOCKS_HELP)
    output: str = flag("", "file to write; empty: <cfg name>.pt in the current folder")
    nc: int | None = flag(None, "number of classes; left out: that of the weights", between=(1, None))

    def check(self) -> None:
        """Check that there is something to fill, and a file to write."""
        if not self.cfg:
            raise ConfigError("--cfg is required: a model yaml such as yolov5s-LSKA.yaml")
        if self.path.is_dir():
            example = self.path / f"{Path(self.cfg).stem}.pt"
            raise ConfigError(f"--output {self.path}: a folder; give a file name such as {example}")

    @property
    def path(self) -> Path:
        """The file to write."""
        return Path(self.output or f"{Path(self.cfg).stem}.pt")


def graft_weights(options: GraftOptions) -> Path:
    """Graft, log the report and the difference of the outputs, and write the new checkpoint.

    Raises:
        ConfigError: the file to write exists, and comes from another program.
        DataError: none of the weights fits the config.
    """
    import torch

    from models.graft import graft, output_gap
    from models.official_weights import locate_weights
    from models.pickles import read_torch_file
    from models.user_blocks import load_blocks
    from models.weights import (
        VANCheckpoint,
        build_model,
        is_foreign,
        model_record,
        read_checkpoint,
        save_checkpoint,
    )
    from models.yolo import make_model

    load_blocks(options.blocks)
    checkpoint = read_checkpoint(locate_weights(options.weights))
    path = options.path
    if path.is_file() and is_foreign(read_torch_file(path)):
        raise ConfigError(
            f"--output {path}: exists, and another program has written it; give another file name"
        )
    model = make_model(options.cfg, ch=checkpoint.yaml.get("ch", 3), nc=options.nc or checkpoint.nc)
    report = graft(model, checkpoint)
    LOG.info(str(report))
    if len(report.moved) < 2:  # only the head's anchors or biases
        raise DataError(
            f"{options.weights}: no tensor fits {options.cfg}; both need the same scale (n, s, m, l, x)"
        )
    source = None if isinstance(checkpoint, VANCheckpoint) else build_model(checkpoint)
    if source is not None and (source.task, source.nc) == (model.task, model.nc):
        side = 2 * int(model.stride.max())
        image = torch.rand(1, model.yaml["ch"], side, side, generator=torch.Generator().manual_seed(0))
        gap = output_gap(source, model, image)
        LOG.info(f"Largest output difference to {checkpoint.path.name}: {gap:.2g}")
    save_checkpoint(path, {"epoch": -1, "model": model_record(model), "ema": None, "optimizer": None})
    LOG.info(f"Saved {path} ({path.stat().st_size / 1e6:.1f} MB)")
    return path


def run(**kwargs: Any) -> Path:
    """Graft with the flags of the command line as keywords, such as `cfg="yolov5s-LSKA.yaml"`.

    Returns:
        The file that was written.
    """
    return graft_weights(options_from(GraftOptions, kwargs))


def main() -> None:
    """Graft with the flags of the command line."""
    options = parse_options(GraftOptions)
    script.print_args("graft", options)
    graft_weights(options)


if __name__ == "__main__":
    script.main(main)
