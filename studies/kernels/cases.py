"""Options of studies/curves.py, and the cases that they select: designs, kernels, channels, image sizes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from utils.base.errors import ConfigError
from utils.base.options import Options, flag
from utils.base.paths import ROOT, relative_to_cwd

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
_cases = partial(flag, group="cases")
_how = partial(flag, group="measurement")
_output = partial(flag, group="output")


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

    from models.attention.gates import make_gate

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
    from models.attention.gates import make_gate
    from models.attention.van import VAN
    from models.yolo import DetectionModel

    if case.part == "module":
        return make_gate(case.design, case.channels, case.k, init="paper")
    if case.part == "van":
        return VAN("tiny", case.k, case.design)
    return DetectionModel(yolo_config(case))


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


@dataclass(frozen=True)
class CurvesOptions(Options):
    """Options of studies/curves.py."""

    prog = "studies/curves.py"
    description = (
        "Measure the cost of large kernels: parameters, multiply-adds, time and memory of the four designs."
    )

    part: list[str] = _cases(list(PARTS), "single module, or the module in VAN-Tiny or YOLOv5", choices=PARTS)
    designs: list[str] = _cases(list(DESIGNS), "designs of the attention")
    kernels: list[int] = _cases(list(KERNELS), "kernel sizes", between=(1, None))
    channels: list[int] = _cases(list(CHANNELS), "channels of single modules", between=(1, None))
    sizes: list[int] = _cases(list(SIZES), "sides of the maps of single modules", between=(1, None))
    budget: float = _how(2.0, "seconds for each design and kernel", between=(0, None))
    batch_size: int = _how(1, "batch size", between=(1, None))
    threads: int = _how(0, "CPU threads; 0: the default of torch", between=(0, None))
    device: str = _how("", "cpu, mps, or a CUDA device such as 0; empty: the best available")
    project: str = _output(
        factory=lambda: relative_to_cwd(ROOT / "runs" / "studies"),
        help="folder that contains the run folders",
    )
    name: str = _output("curves", "name of the run folder, numbered if it exists")
    exist_ok: bool = _output(False, "write into the run folder even if it exists")
    plot_only: str = _output("", "measure nothing, draw this table", metavar="CSV")

    def check(self) -> None:
        """Check the names of the designs."""
        assert self.design_names

    @property
    def design_names(self) -> list[str]:
        """Designs by their names in yamls.

        Raises:
            ConfigError: a design does not exist.
        """
        try:
            return [find_design(text) for text in self.designs]
        except ValueError as error:
            raise ConfigError(f"--designs: {error}") from error
