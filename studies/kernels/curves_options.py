"""Options of studies/curves.py."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from studies.kernels.cases import CHANNELS, DESIGNS, KERNELS, PARTS, SIZES, find_design
from utils.base.errors import ConfigError
from utils.base.options import Options, flag
from utils.base.paths import ROOT, relative_to_cwd

_cases = partial(flag, group="cases")
_how = partial(flag, group="measurement")
_output = partial(flag, group="output")


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
