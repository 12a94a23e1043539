"""Measure a finished run: best.pt and last.pt on each split, written to its measured.json.

`python -m studies.compare.measure_run FOLDER` does it in a process of its own.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.base import script
from utils.base.errors import ConfigError, DataError
from utils.base.options import changed
from utils.base.paths import atomic_write

if TYPE_CHECKING:
    from utils.val.accumulator import EvalResult

MEASURED = "measured.json"


def measure_run(folder: Path) -> None:
    """Measure the run in `folder` as val.py does, at its image size.

    Raises:
        DataError: the folder holds no finished run.
    """
    from models.weights import read_checkpoint
    from utils.train.train_options import parse_options
    from utils.val.measure import measure
    from utils.val.val_options import options_from

    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    trained = parse_options(run["train"])
    opt = options_from(
        {
            "data": trained.data,
            "imgsz": trained.imgsz,
            "batch_size": trained.batch_size * 2,
            "single_cls": trained.single_cls,
            "device": _device(folder),
            "workers": trained.workers,
        }
    )
    found: dict[str, Any] = {}
    for name in ("best", "last"):
        path = folder / "weights" / f"{name}.pt"
        if not path.is_file():
            raise DataError(f"{path}: the training left no such file")
        for split in run["splits"]:
            result = measure(changed(opt, weights=path, task=split))
            found.setdefault(name, {})[split] = _figures(result)
    last = read_checkpoint(folder / "weights" / "last.pt")
    content = {
        "label": run["label"],
        "seed": run["seed"],
        "key": run["key"],
        "figures": found,
        "epochs": _epochs(folder),
        "identity": last.metadata.get("git"),
        "versions": last.metadata.get("versions"),
        **model_size(folder / "weights" / "best.pt", trained.imgsz),
    }
    with atomic_write(folder / MEASURED, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)


def _device(folder: Path) -> str:
    file = folder / "device.txt"
    return file.read_text().strip() if file.is_file() else ""


def _figures(result: EvalResult) -> dict[str, Any]:
    """What is kept of a measurement; AP at all IoU and at 0.5 by class, those without labels left out."""
    classes = result.class_ap
    return {
        "P": result.mp,
        "R": result.mr,
        "mAP50": result.map50,
        "mAP": result.map,
        "AP": {name: float(ap.mean()) for name, ap in classes.items()},
        "AP50": {name: float(ap[0]) for name, ap in classes.items()},
    }


def _epochs(folder: Path) -> list[dict[str, float]]:
    """Both mAPs after each epoch, from results.csv."""
    with (folder / "results.csv").open(newline="") as file:
        rows = [{key.strip(): float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    return [
        {
            "epoch": row["epoch"],
            "mAP50": row["metrics/mAP_0.5"],
            "mAP": row["metrics/mAP_0.5:0.95"],
            "loss": row["train/box_loss"] + row["train/obj_loss"] + row["train/cls_loss"],
        }
        for row in rows
    ]


def model_size(weights: Path, imgsz: int) -> dict[str, float]:
    """Parameters, and GFLOPs at the least possible image size from `imgsz` on."""
    from models.weights import build_model, read_checkpoint
    from utils.data.letterbox import check_img_size

    model = build_model(read_checkpoint(weights))
    side = check_img_size(imgsz, stride=int(model.stride.max()))
    parameters = sum(p.numel() for p in model.parameters())
    return {"parameters": parameters, "gflops": round(model.gflops(side), 4)}


def main() -> None:
    """Measure the folder that the command line names."""
    if len(sys.argv) != 2:
        raise ConfigError("usage: python -m studies.compare.measure_run FOLDER")
    measure_run(Path(sys.argv[1]))


if __name__ == "__main__":
    script.main(main)
