"""The table of models in README.md: `python -m studies.model_table`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.yolo import DetectionModel

# Suffixes of yamls, and where they have attention.
POSITIONS = {
    "-LSKA": "after SPPF",
    "-SPPFLSKA": "in SPPF",
    "-backbone-C3LSKA": "backbone",
    "-neck-C3LSKA": "neck",
    "-head-LSKA": "before Detect",
}


def table(imgsz: int = 640) -> str:
    """Return parameters and GFLOPs of every scale, and what attention adds at each position, as markdown."""
    heads = " | ".join(f"LSKA {position}" for position in POSITIONS.values())
    lines = [f"| model | parameters | GFLOPs | {heads} |", "|---|---|---|" + "---|" * len(POSITIONS)]
    for scale in "nsmlx":
        plain = _build_on_meta(f"yolov5{scale}.yaml")
        base = plain.gflops(imgsz)
        cells = [f"yolov5{scale}", f"{_millions(plain):.2f} M", f"{base:.1f}"]
        for suffix in POSITIONS:
            model = _build_on_meta(f"yolov5{scale}{suffix}.yaml")
            parameters = 100 * (_millions(model) / _millions(plain) - 1)
            gflops = 100 * (model.gflops(imgsz) / base - 1)
            cells.append(f"+{parameters:.1f} % / +{gflops:.1f} %")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _build_on_meta(cfg: str) -> DetectionModel:
    import torch

    from models.yolo import DetectionModel

    with torch.device("meta"):
        return DetectionModel(cfg)


def _millions(model: DetectionModel) -> float:
    return sum(p.numel() for p in model.parameters()) / 1e6


if __name__ == "__main__":
    print(table())
