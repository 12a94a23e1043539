"""What the curves are made of: a design with a kernel, in a module alone, in VAN-Tiny, in YOLOv5."""

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
SIZES = (80, 40, 20)  # sides of YOLOv5's three maps for an image of 640 pixels
# In the order of the paper's figure; the names of yaml rows, and the paper's.
DESIGNS = {"LKATrivial": "LKA-trivial", "LSKATrivial": "LSKA-trivial", "LKA": "LKA", "LSKA": "LSKA"}
NONE = "none"  # the design of a YOLOv5 as it is
VAN_SIDE, YOLO_SIDE = 224, 640
YOLO_MODELS = ("yolov5n", "yolov5s")


@dataclass(frozen=True)
class Cell:
    """One thing to measure."""

    part: str
    model: str
    design: str
    k: int  # 0 without attention
    channels: int  # of the module alone; 0 elsewhere
    side: int  # of the input, pixels

    @property
    def title(self) -> str:
        """The group of cells that are compared with each other: all but design and kernel."""
        width = f", {self.channels} channels" if self.channels else ""
        return f"{self.model}{width}, {self.side} x {self.side}"


def find_design(text: str) -> str:
    """A design by its name in a yaml or in the paper, in any case: `lka-trivial` is LKATrivial.

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
) -> list[list[Cell]]:
    """All cells, in groups that are measured side by side.

    Raises:
        ConfigError: a kernel that a design cannot have.
    """
    check_kernels(designs, kernels)
    pairs = [(design, k) for design in designs for k in kernels]
    groups = []
    for part in parts:
        if part == "module":
            places = [("module alone", width, side) for width in channels for side in sizes]
        elif part == "van":
            places = [("VAN-Tiny", 0, VAN_SIDE)]
        else:
            places = [(model, 0, YOLO_SIDE) for model in YOLO_MODELS]
        plain = [(NONE, 0)] if part == "yolo" else []
        groups += [
            [Cell(part, model, design, k, width, side) for design, k in (*plain, *pairs)]
            for model, width, side in places
        ]
    return groups


def check_kernels(designs: Sequence[str], kernels: Sequence[int]) -> None:
    """Refuse kernels that a design cannot have."""
    import torch

    from models.attention.lska import make_gate

    for design in designs:
        for k in kernels:
            try:
                with torch.device("meta"):
                    make_gate(design, 1, k)
            except ConfigError as error:
                raise ConfigError(f"--kernels {k}: {DESIGNS[design]} does not have it ({error})") from error


def build(cell: Cell) -> nn.Module:
    """The model of a cell, freshly started as the papers do."""
    from models.attention.lska import make_gate
    from models.attention.van import VAN
    from models.yolo import DetectionModel

    if cell.part == "module":
        return make_gate(cell.design, cell.channels, cell.k, init="paper")
    if cell.part == "van":
        return VAN("tiny", cell.k, cell.design)
    return DetectionModel(yolo_config(cell), strides=[8, 16, 32])


def yolo_config(cell: Cell) -> dict[str, Any]:
    """A YOLOv5 with the cell's block as a layer of its own after SPPF, or without one."""
    from models.yolo import read_config

    if cell.design == NONE:
        return read_config(f"{cell.model}.yaml")[0]
    config, _ = read_config(f"{cell.model}-LSKA.yaml")
    config["backbone"][-1] = [-1, 1, cell.design, [cell.k, {"init": "paper"}]]
    return config


def input_shape(cell: Cell, batch: int = 1) -> tuple[int, int, int, int]:
    """(B, C, H, W) of what the cell's model takes."""
    return batch, cell.channels or 3, cell.side, cell.side


def outputs(made: Any) -> list[Tensor]:
    """The tensors that a model returns."""
    from torch import Tensor

    if isinstance(made, Tensor):
        return [made]
    return [tensor for part in made for tensor in outputs(part)]
