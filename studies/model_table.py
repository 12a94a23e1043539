"""The README's table of models: `python -m studies.model_table`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.yolo import DetectionModel

PLACES = {"-LSKA": "after SPPF", "-SPPFLSKA": "in SPPF", "-backbone-C3LSKA": "backbone"}
PLACES |= {"-neck-C3LSKA": "neck", "-head-LSKA": "before Detect"}


def table(imgsz: int = 640) -> str:
    """Parameters and GFLOPs of every scale, and what each place of attention adds, as markdown."""
    lines = [
        "| model | parameters | GFLOPs | " + " | ".join(f"LSKA {place}" for place in PLACES.values()) + " |",
        "|---|---|---|" + "---|" * len(PLACES),
    ]
    for scale in "nsmlx":
        plain = _hollow(f"yolov5{scale}.yaml")
        base = plain.gflops(imgsz)
        cells = [f"yolov5{scale}", f"{_millions(plain):.2f} M", f"{base:.1f}"]
        for suffix in PLACES:
            model = _hollow(f"yolov5{scale}{suffix}.yaml")
            parameters = 100 * (_millions(model) / _millions(plain) - 1)
            work = 100 * (model.gflops(imgsz) / base - 1)
            cells.append(f"+{parameters:.1f} % / +{work:.1f} %")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _hollow(cfg: str) -> DetectionModel:
    import torch

    from models.yolo import DetectionModel

    with torch.device("meta"):
        return DetectionModel(cfg)


def _millions(model: DetectionModel) -> float:
    return sum(p.numel() for p in model.parameters()) / 1e6


if __name__ == "__main__":
    print(table())
