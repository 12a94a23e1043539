"""Put trained YOLOv5 weights into a config with other layers, such as one with attention.

python graft.py --weights yolov5n.pt --cfg yolov5n-LSKA.yaml --output yolov5n-LSKA.pt
"""

from __future__ import annotations

import argparse
from pathlib import Path

from utils.base.script import main, parser, print_args


def parse_opt() -> argparse.Namespace:
    """Read the command line."""
    p = parser(__doc__.splitlines()[0], prog="graft.py")
    p.add_argument("--weights", default="yolov5s.pt", help="trained weights: official, own, or VAN's")
    p.add_argument("--cfg", required=True, help="model yaml to fill")
    p.add_argument("--output", default="", help="file to write; default: <cfg name>.pt in this folder")
    p.add_argument("--nc", type=int, help="classes; default: those of the weights")
    return p.parse_args()


def run(weights: str, cfg: str, output: str = "", nc: int | None = None) -> Path:
    """Graft, print the report and how far the outputs are apart, and write the new file."""
    import torch

    from models.graft import graft, output_gap
    from models.weights import build_model, locate_weights, model_record, read_checkpoint, save_checkpoint
    from models.yolo import DetectionModel
    from utils.base.errors import ConfigError, DataError
    from utils.base.log import LOG

    if nc is not None and nc < 1:
        raise ConfigError(f"--nc {nc}: a whole number from 1 on is needed")
    path = Path(output) if output else Path(f"{Path(cfg).stem}.pt")
    if path.is_dir():
        raise ConfigError(f"--output {path}: a folder; give a file name such as {path / Path(cfg).stem}.pt")
    checkpoint = read_checkpoint(locate_weights(weights))
    model = DetectionModel(cfg, ch=checkpoint.yaml.get("ch", 3), nc=nc or checkpoint.nc)
    report = graft(model, checkpoint)
    LOG.info(str(report))
    if len(report.moved) < 2:  # only the head's anchors or biases
        raise DataError(
            f"{weights}: nothing of it fits {cfg}; they must be of the same scale (n, s, m, l, x)"
        )
    if model.nc == checkpoint.nc and not checkpoint.classifier:
        side = 2 * int(model.stride.max())
        image = torch.rand(1, model.yaml["ch"], side, side, generator=torch.Generator().manual_seed(0))
        gap = output_gap(build_model(checkpoint), model, image)
        LOG.info(f"Largest output difference to {checkpoint.path.name}: {gap:.2g}")
    save_checkpoint(path, {"epoch": -1, "model": model_record(model), "ema": None, "optimizer": None})
    LOG.info(f"Saved {path} ({path.stat().st_size / 1e6:.1f} MB)")
    return path


def _run_script() -> None:
    opt = parse_opt()
    print_args("graft", opt)
    run(**vars(opt))


if __name__ == "__main__":
    main(_run_script)
