"""Options of studies/van_accuracy.py; needs only the standard library."""

from __future__ import annotations

from dataclasses import dataclass

from studies.kernels.cases import DESIGNS, KERNELS, find_design
from utils.base.options import Options, flag
from utils.base.paths import ROOT, relative_to_cwd

CONTEXT = "context"


@dataclass(frozen=True)
class AccuracyOptions(Options):
    """Options of studies/van_accuracy.py."""

    prog, description = "studies/van_accuracy.py", "Measure the accuracy of VAN-Tiny over kernel sizes."

    designs: list[str] = flag(list(DESIGNS), "designs of attention")
    kernels: list[int] = flag(list(KERNELS), "kernel sizes")
    seeds: list[int] = flag([0, 1, 2], "seeds, a training for each")
    data: str = flag(CONTEXT, f"class folders; {CONTEXT}: drawn images whose class needs context")
    per_class: int = flag(75, "training images of each class; 0: all", between=(0, None))
    epochs: int = flag(8, "epochs of each training", between=(1, None))
    imgsz: int = flag(64, "image size (pixels)", aliases=("--img", "--img-size"), between=(32, None))
    batch_size: int = flag(16, "batch size", between=(1, None))
    device: str = flag("", "cpu, mps, or a CUDA device such as 0; empty: the best available")
    workers: int = flag(1, "maximum number of dataloader workers", between=(0, None))
    plot_only: bool = flag(False, "train nothing: draw the results that exist")
    project: str = flag(
        factory=lambda: relative_to_cwd(ROOT / "runs" / "studies" / "van_accuracy"),
        help="folder for the results",
    )

    def check(self) -> None:
        """Accept the names of the designs in yaml rows and in the paper."""
        try:
            object.__setattr__(self, "designs", [find_design(name) for name in self.designs])
        except ValueError as error:
            self.require("designs", False, str(error))
        self.require("seeds", len(self.seeds) > 0, "at least one seed")
