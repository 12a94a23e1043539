"""Flags of benchmarks.py. Needs nothing but the standard library, so that `--help` is fast."""

from __future__ import annotations

from dataclasses import dataclass

from utils.base.formats import FORMATS, known_format
from utils.base.options import Options, flag
from utils.base.paths import ROOT, relative_to_cwd


@dataclass(frozen=True)
class BenchmarkOptions(Options):
    """Options of benchmarks.py."""

    prog = "benchmarks.py"
    description = """Export a model to every format and compare size, accuracy and speed. The accuracy of a
segmentation model is that of its masks, that of a classification model top-1 and top-5."""

    weights: str = flag("yolov5s.pt", "checkpoint path")
    data: str = flag(
        factory=lambda: relative_to_cwd(ROOT / "data" / "coco128.yaml"),
        help="dataset yaml or class folders, for validation and to calibrate --int8; by default that of the "
        "model's val script",
    )
    imgsz: int = flag(
        640,
        "image size (pixels); of a classification model that of its training",
        aliases=("--img", "--img-size"),
        between=(1, None),
    )
    batch_size: int = flag(1, "batch size", between=(1, None))
    device: str = flag("cpu", "cpu, or a CUDA device such as 0")
    include: list[str] = flag(list(FORMATS), "formats to compare with PyTorch")
    half: bool = flag(False, "FP16; formats that lack it are skipped")
    int8: bool = flag(False, "also INT8, for formats that have it")
    test: bool = flag(False, "export only, without validation")
    pt_only: bool = flag(False, "validate the checkpoint only")
    hard_fail: float | bool = flag(
        False,
        "exit with status 1 if a format fails; with a number, also if its (mask) mAP50-95 or top-1 is lower",
        const=True,
        between=(0, 1),
    )
    csv: str = flag("", "csv file to write the table to")

    def check(self) -> None:
        """Resolve the names of formats."""
        include = list(dict.fromkeys(known_format(name).name for name in self.include))
        object.__setattr__(self, "include", include)
