"""The layer table of a model, and the time and GFLOPs of each layer: the script models/yolo.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from utils.base import script
from utils.base.log import LOG
from utils.base.options import Options, build_parser, flag, parse_options

if TYPE_CHECKING:
    from torch import Tensor, nn

_model = partial(flag, group="model")
_timed = partial(flag, group="with --line-profile")


@dataclass(frozen=True)
class ModelOptions(Options):
    """Options of models/yolo.py, which prints a model."""

    prog = "models/yolo.py"
    description = "Print the layers, parameters and GFLOPs of a model."

    cfg: str = _model("yolov5s.yaml", "model yaml, by path or bare name")
    imgsz: int = _model(640, "image size (pixels)", aliases=("--img", "--img-size"), between=(1, None))
    test: bool = _model(False, "build the models of all yamls below models/")
    line_profile: bool = _model(False, "print the time and GFLOPs of each layer")
    batch_size: int = _timed(1, "batch size", between=(1, None))
    device: str = _timed("cpu", "cpu, mps, or a CUDA device such as 0")


def check_flags() -> None:
    """Parse the flags before the heavy imports: --help and invalid flags end the process here."""
    script.wait_passively()
    build_parser(ModelOptions).parse_args()


def main(build: Callable[..., Any]) -> None:
    """Run the script with the flags of the command line.

    Args:
        build: makes a model from a yaml's name: `make_model`.
    """
    script.main(lambda: print_model(parse_options(ModelOptions), build))


def print_model(options: ModelOptions, build: Callable[..., Any]) -> None:
    """Print the layers and size of a model, before and after fusing."""
    import torch

    from models.config import config_names
    from utils.base.device import select_device

    if options.test:
        for name in config_names():
            with torch.device("meta"):
                LOG.info(f"{name}: {build(name).summary(options.imgsz)}")
        return
    if options.line_profile:
        device = select_device(options.device)
        model = build(options.cfg).to(device).eval()
        shape = (options.batch_size, model.yaml["ch"], options.imgsz, options.imgsz)
        print_profile(model, torch.rand(shape, device=device))
    else:
        with torch.device("meta"):  # sizes need no weights
            model = build(options.cfg)
        print_layers(model)
    LOG.info(model.summary(options.imgsz))
    LOG.info(f"Fused {model.fuse().summary(options.imgsz)}")


def print_layers(model: nn.Module) -> None:
    """Print a row per layer: index, sources, repeats, parameters, class, arguments."""
    LOG.info(f"{'':>3}{'from':>18}{'n':>3}{'params':>10}  {'module':<40}{'arguments':<30}")
    for row in _layers(model):
        LOG.info(f"{row.i:>3}{row.f!s:>18}{row.repeats:>3}{row.np:10.0f}  {row.type:<40}{row.args:<30}")


def print_profile(model: nn.Module, images: Tensor, repeats: int = 10) -> None:
    """Print a row per layer: median milliseconds of `repeats` passes, GFLOPs, parameters."""
    times = layer_times(model, images, repeats)
    work = layer_gflops(model, images)
    LOG.info(f"{'time (ms)':>10}{'GFLOPs':>10}{'params':>10}  module")
    for row, ms, gflops in zip(_layers(model), times, work, strict=True):
        LOG.info(f"{ms:10.2f}{gflops:10.2f}{row.np:10.0f}  {row.i} {row.type}")
    LOG.info(f"{sum(times):10.2f}{sum(work):10.2f}{'':10}  total, batch {len(images)}")


def layer_times(model: nn.Module, images: Tensor, repeats: int) -> list[float]:
    """Return the median milliseconds of each layer."""
    import torch

    from utils.base.timing import now

    runs: list[list[float]] = []
    stamps: list[float] = []
    hooks = [
        layer.register_forward_hook(lambda *_: stamps.append(now(images.device))) for layer in _layers(model)
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


def layer_gflops(model: nn.Module, images: Tensor) -> list[float]:
    """Return the GFLOPs of each layer for these images."""
    from utils.ops.flops import macs_by_module

    counted = macs_by_module(model, images.to("meta"))
    return [2e-9 * sum(counted.get(module, 0.0) for module in layer.modules()) for layer in _layers(model)]


def _layers(model: nn.Module) -> list[Any]:
    """Return the layers, one per row of the yaml; each has the attributes i, f, type, np, repeats, args."""
    return list(model.get_submodule("model").children())
