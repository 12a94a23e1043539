"""The layer table of a model, and where its time goes. Serves `python models/yolo.py`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from utils.base.log import LOG
from utils.base.script import main as run_script
from utils.base.script import parser

if TYPE_CHECKING:
    from torch import Tensor

    from models.yolo import DetectionModel


def parse_opt() -> argparse.Namespace:
    """Read the command line of models/yolo.py."""
    p = parser("Print a model's layers, size and work.", prog="models/yolo.py")
    p.add_argument("--cfg", default="yolov5s.yaml", help="model yaml, by path or bare name")
    p.add_argument("--imgsz", "--img", "--img-size", type=int, default=640, help="side of the image, pixels")
    p.add_argument("--batch-size", type=int, default=1, help="images at once, for --line-profile")
    p.add_argument("--device", default="cpu", help="cpu, mps, or a GPU number, for --line-profile")
    p.add_argument("--line-profile", action="store_true", help="time and GFLOPs layer by layer")
    p.add_argument("--test", action="store_true", help="build every yaml below models/")
    return p.parse_args()


def main() -> None:
    """Run the script."""
    run_script(lambda: run(**vars(parse_opt())))


def run(cfg: str, imgsz: int, batch_size: int, device: str, line_profile: bool, test: bool) -> None:
    """Print the table and the summary, before and after fusing."""
    import torch

    from models.config import config_names
    from models.yolo import DetectionModel
    from utils.base.device import select_device

    if test:
        for name in config_names():
            with torch.device("meta"):
                LOG.info(f"{name}: {DetectionModel(name).info(imgsz)}")
        return
    if line_profile:
        model = DetectionModel(cfg).to(select_device(device)).eval()
        print_profile(model, torch.rand(batch_size, model.yaml["ch"], imgsz, imgsz, device=device or "cpu"))
    else:
        with torch.device("meta"):  # sizes need no weights
            model = DetectionModel(cfg)
        print_layers(model)
    LOG.info(model.info(imgsz))
    LOG.info(f"Fused {model.fuse().info(imgsz)}")


def print_layers(model: DetectionModel) -> None:
    """One row a layer: where it reads, how often it repeats, parameters, class, arguments."""
    LOG.info(f"{'':>3}{'from':>18}{'n':>3}{'params':>10}  {'module':<40}{'arguments':<30}")
    for layer in model.model:
        row: Any = layer
        LOG.info(f"{row.i:>3}{row.f!s:>18}{row.repeats:>3}{row.np:10.0f}  {row.type:<40}{row.args:<30}")


def print_profile(model: DetectionModel, images: Tensor, repeats: int = 10) -> None:
    """One row a layer: median milliseconds over `repeats` passes, GFLOPs, parameters."""
    times = layer_times(model, images, repeats)
    work = layer_gflops(model, images)
    LOG.info(f"{'time (ms)':>10}{'GFLOPs':>10}{'params':>10}  module")
    for layer, ms, gflops in zip(model.model, times, work, strict=True):
        row: Any = layer
        LOG.info(f"{ms:10.2f}{gflops:10.2f}{row.np:10.0f}  {row.i} {row.type}")
    LOG.info(f"{sum(times):10.2f}{sum(work):10.2f}{'':10}  total, batch {len(images)}")


def layer_times(model: DetectionModel, images: Tensor, repeats: int) -> list[float]:
    """Median milliseconds of each layer."""
    import torch

    from utils.base.timing import now

    runs: list[list[float]] = []
    stamps: list[float] = []
    hooks = [
        layer.register_forward_hook(lambda *_: stamps.append(now(images.device))) for layer in model.model
    ]
    with torch.inference_mode():
        for _ in range(repeats + 1):
            stamps.append(now(images.device))
            model(images)
            runs.append([1e3 * (b - a) for a, b in zip(stamps, stamps[1:], strict=False)])
            stamps.clear()
    for hook in hooks:
        hook.remove()
    return torch.tensor(runs[1:]).median(0).values.tolist()  # the first pass warms up


def layer_gflops(model: DetectionModel, images: Tensor) -> list[float]:
    """GFLOPs of each layer for these images."""
    from utils.ops.flops import macs_by_module

    counted = macs_by_module(model, images.to("meta"))
    return [2e-9 * sum(counted.get(module, 0.0) for module in layer.modules()) for layer in model.model]
