"""Too little memory: one line with the batch and image size to try."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from models.weights import model_record, save_checkpoint
from models.yolo import DetectionModel
from tests.utils.train.small import small_set
from utils.base.errors import OutOfMemory, memory_errors
from utils.base.paths import ROOT
from utils.data.images import read_image
from utils.data.shapes import NAMES

# Runs a script in a process that may use `megabytes` more than it does once everything is imported.
LIMITED = """
import importlib, resource, sys
from utils.base.script import main

def run():
    for name in ("utils.train.trainer", "utils.val.measure", "utils.predict.detector", "torchvision"):
        importlib.import_module(name)
    script = importlib.import_module(sys.argv[2])
    sizes = (line.split() for line in open("/proc/self/status"))
    used = next(int(words[1]) for words in sizes if words[0] == "VmSize:")
    resource.setrlimit(resource.RLIMIT_AS, ((used + int(sys.argv[1]) * 1024) * 1024,) * 2)
    sys.argv = sys.argv[2:]
    script.main()

main(run)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit of the memory of a process")
@pytest.mark.parametrize("script", ["train", "val", "detect"])
def test_a_script_without_memory_names_the_sizes_to_try(script: str, tmp_path: Path) -> None:
    data = small_set(tmp_path / "data")
    weights = tmp_path / "small.pt"
    save_checkpoint(weights, {"model": model_record(DetectionModel("yolov5n.yaml", nc=len(NAMES)))})
    flags = ["--weights", weights, "--img", 8192, "--batch-size", 2]
    flags += ["--device", "cpu", "--project", tmp_path / "runs"]
    flags += {
        "train": ["--data", data, "--workers", 0, "--epochs", 1, "--loggers", "none", "--noplots"],
        "val": ["--data", data, "--workers", 0],
        "detect": ["--source", tmp_path / "data" / "set" / "images" / "val"],
    }[script]
    command = [sys.executable, "-c", LIMITED, "200", script, *map(str, flags)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    advice = "try --batch-size 1 or --imgsz 5792 ("
    assert done.stderr.splitlines()[-1].startswith(
        f"ERROR: out of memory at batch size 2 and 8192 px: {advice}"
    )


@pytest.mark.parametrize(
    ("batch_size", "imgsz", "advice"),
    [
        (16, (640,), "at batch size 16 and 640 px: try --batch-size 8 or --imgsz 448 ("),
        (1, (640, 384), "at batch size 1 and 640x384 px: try --imgsz 448 256 ("),
        (1, (640, 32), "at batch size 1 and 640x32 px: try --imgsz 448 32 ("),
        (3, (), "at batch size 3: try --batch-size 1 ("),
        (1, (32,), "at batch size 1 and 32 px: close other programs ("),
    ],
)
def test_sizes_to_try(batch_size: int, imgsz: tuple[int, ...], advice: str) -> None:
    with pytest.raises(OutOfMemory) as caught, memory_errors(batch_size, imgsz):
        raise MemoryError
    assert advice in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
        RuntimeError("std::bad_alloc"),
        RuntimeError("can't start new thread"),
        OSError(12, "Cannot allocate memory"),
        cv2.error("OpenCV: error: (-4:Insufficient memory) Failed to allocate 9 bytes"),
    ],
)
def test_what_libraries_say(error: Exception) -> None:
    with pytest.raises(OutOfMemory), memory_errors(2, (64,)):
        raise error
    with pytest.raises(KeyError), memory_errors(2, (64,)):
        raise KeyError("memory")


def test_an_image_that_memory_does_not_suffice_for_is_not_called_corrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scan would leave it out of the training, and remember that in its cache."""
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))

    def decode(*_: object) -> None:
        raise cv2.error("(-4:Insufficient memory) Failed to allocate 192 bytes")

    monkeypatch.setattr(cv2, "imdecode", decode)
    with pytest.raises(MemoryError):
        read_image(tmp_path / "a.png")
