"""Run files with PyPI's yolov5, in an environment of its own.

`test_yolov5_file.py` starts it, with a folder that has task.json and images.npy. The output of each file goes
to NAME.npz: that of the network, and the boxes of photos for the first ones.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import yolov5
from yolov5.models import common
from yolov5.models.experimental import attempt_load


def main(folder: Path) -> None:
    """Do the task of a folder."""
    task = json.loads((folder / "task.json").read_text())
    images = torch.from_numpy(np.load(folder / "images.npy"))
    results: dict[str, dict[str, np.ndarray]] = {file: {} for file in task["files"]}
    for file in task["files"][: task["boxes"]]:  # before the paste: these need none
        found = yolov5.load(file, device="cpu")(task["photos"], size=640)
        results[file] = {f"boxes_{index}": boxes.numpy() for index, boxes in enumerate(found.xyxy)}
    sys.modules["models"], sys.modules["models.common"] = yolov5.models, common
    exec(compile(Path(task["paste"]).read_text(), task["paste"], "exec"), vars(common))
    for file, arrays in results.items():
        with torch.no_grad():
            output = attempt_load(file, device="cpu")(images)
        parts = output if isinstance(output, tuple | list) else [output]
        tensors = [part.numpy() for part in parts if isinstance(part, torch.Tensor)]
        np.savez(Path(file).with_suffix(".npz"), *tensors, **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
