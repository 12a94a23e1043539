"""Cases of the kernel study: a design and a kernel, as a single module, in VAN-Tiny, or in YOLOv5."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from utils.base.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor, nn

PARTS = ("module", "van", "yolo")
KERNELS = (7, 11, 23, 35, 53)
CHANNELS = (64, 128, 256, 512)
SIZES = (80, 40, 20)  # sides of the three maps of YOLOv5 for an image of 640 pixels
# Names in yaml rows and in the paper, in the order of its figure.
DESIGNS = {"LKATrivial": "LKA-trivial", "LSKATrivial": "LSKA-trivial", "LKA": "LKA", "LSKA": "LSKA"}
NONE = "none"  # design of YOLOv5 without attention
VAN_SIDE, YOLO_SIDE = 224, 640
YOLO_MODELS = ("yolov5n", "yolov5s")


@dataclass(frozen=True)
class Case:
    """One configuration to measure."""

    part: str
    model: str
    design: str
    k: int  # 0 without attention
    channels: int  # of a single module; 0 for models
    side: int  # of the input, pixels

    @property
    def title(self) -> str:
        """Name of the group of cases that differ only in design and kernel."""
        width = f", {self.channels} channels" if self.channels else ""
        return f"{self.model}{width}, {self.side} x {self.side}"


def find_design(text: str) -> str:
    """Find a design by its name in a yaml or in the paper, ignoring case: `lka-trivial` is LKATrivial.

    Raises:
        ValueError: no design has that name.
    """
    for name in DESIGNS:
        if name.lower() == text.lower().replace("-", ""):
            return name
    raise ValueError(f"{text} is not one of {', '.join(DESIGNS)}")


def make_groups(
    parts: Iterable[str],
    designs: Sequence[str],
    kernels: Sequence[int],
    channels: Sequence[int],
    sizes: Sequence[int],
) -> list[list[Case]]:
    """Make all cases, in groups that are measured together.

    Raises:
        ConfigError: a design does not exist for a kernel.
    """
    check_kernels(designs, kernels)
    pairs = [(design, k) for design in designs for k in kernels]
    groups = []
    for part in parts:
        if part == "module":
            models = [("module alone", width, side) for width in channels for side in sizes]
        elif part == "van":
            models = [("VAN-Tiny", 0, VAN_SIDE)]
        else:
            models = [(model, 0, YOLO_SIDE) for model in YOLO_MODELS]
        plain = [(NONE, 0)] if part == "yolo" else []
        groups += [
            [Case(part, model, design, k, width, side) for design, k in (*plain, *pairs)]
            for model, width, side in models
        ]
    return groups


def check_kernels(designs: Sequence[str], kernels: Sequence[int]) -> None:
    """Raise ConfigError for a kernel that a design does not exist for."""
    import torch

    from models.attention.lska import make_gate

    for design in designs:
        for k in kernels:
            try:
                with torch.device("meta"):
                    make_gate(design, 1, k)
            except ConfigError as error:
                raise ConfigError(
                    f"--kernels {k}: {DESIGNS[design]} does not exist for it ({error})"
                ) from error


def build(case: Case) -> nn.Module:
    """Build the model of a case, initialized as in the papers."""
    from models.attention.lska import make_gate
    from models.attention.van import VAN
    from models.yolo import DetectionModel

    if case.part == "module":
        return make_gate(case.design, case.channels, case.k, init="paper")
    if case.part == "van":
        return VAN("tiny", case.k, case.design)
    return DetectionModel(yolo_config(case), strides=[8, 16, 32])


def yolo_config(case: Case) -> dict[str, Any]:
    """Return the config of YOLOv5 with the block of the case as a layer after SPPF, or without a block."""
    from models.yolo import read_config

    if case.design == NONE:
        return read_config(f"{case.model}.yaml")[0]
    config, _ = read_config(f"{case.model}-LSKA.yaml")
    config["backbone"][-1] = [-1, 1, case.design, [case.k, {"init": "paper"}]]
    return config


def input_shape(case: Case, batch: int = 1) -> tuple[int, int, int, int]:
    """Return the input shape (B, C, H, W) of a case."""
    return batch, case.channels or 3, case.side, case.side


def output_tensors(output: Any) -> list[Tensor]:
    """Return the tensors in the nested output of a model."""
    from torch import Tensor

    if isinstance(output, Tensor):
        return [output]
    return [tensor for item in output for tensor in output_tensors(item)]
