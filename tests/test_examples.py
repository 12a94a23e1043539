"""The programs in examples/ give the same detections as detect.py."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import detect
import export
from models.backends import load_backend
from tests.known import SHARED, needs_shared
from tests.models.backends.files import CPU, checkpoint
from utils.base.paths import ROOT
from utils.data.images import read_image
from utils.data.letterbox import letterbox, to_tensor
from utils.ops.boxes import scale_boxes
from utils.ops.nms import non_max_suppression

pytest.importorskip("onnxruntime")

NODE = shutil.which("node")
FOLDER = ROOT / "examples" / "javascript"
IMAGES = sorted((ROOT / "data" / "images").glob("*.jpg"))
pytestmark = pytest.mark.skipif(
    NODE is None or not (FOLDER / "node_modules").is_dir(), reason="npm ci in examples/javascript was not run"
)


def node(*args: object) -> subprocess.CompletedProcess[str]:
    line = [str(NODE), *map(str, args)]
    return subprocess.run(line, cwd=FOLDER, capture_output=True, text=True, timeout=120)


def detect_with_node(model: Path, image: Path, conf: float, *flags: object) -> list[dict[str, Any]]:
    done = node("detect.mjs", model, image, "--conf", conf, *flags)
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)
    assert result["file"] == str(image)
    return list(result["boxes"])


def detect_with_python(model: Path, file: Path, conf: float, side: int) -> torch.Tensor:
    """Detect as detect.py does, before it rounds to whole pixels: (n, 6) xyxy in pixels, score, class."""
    backend, image = load_backend(model, CPU), read_image(file)
    fitted = letterbox(image, backend.imgsz or side, auto=False)[0]
    (rows,) = non_max_suppression(backend(to_tensor([fitted], CPU)), conf, 0.45, max_det=1000)
    scale_boxes(fitted.shape[:2], rows[:, :4], image.shape[:2])
    return rows


def detect_with_script(model: Path, image: Path, conf: float, side: int, folder: Path) -> torch.Tensor:
    """Run detect.py and read its label file, as `detect_with_python`."""
    detect.run(
        weights=str(model), source=str(image), imgsz=[side], conf_thres=conf, device="cpu", nosave=True,
        save_txt=True, save_conf=True, project=str(folder), name="python", exist_ok=True,
    )  # fmt: skip
    lines = np.loadtxt(folder / "python" / "labels" / f"{image.stem}.txt", ndmin=2)
    height, width = read_image(image).shape[:2]
    centre, size = lines[:, 1:3] * (width, height), lines[:, 3:5] * (width, height)
    rows = np.concatenate((centre - size / 2, centre + size / 2, lines[:, 5:], lines[:, :1]), 1)
    return torch.from_numpy(rows).float()


def assert_same(boxes: list[dict[str, Any]], expected: torch.Tensor, pixels: float = 0.1) -> None:
    """Assert that both have the same boxes, up to `pixels` and a score of 0.01, in any order."""
    assert len(boxes) == len(expected) > 0
    rows = torch.tensor([[*box["box"], box["score"], box["class"]] for box in boxes])
    scale = torch.tensor([pixels] * 4 + [0.01, 0.5])  # tolerance of each column
    gap = ((rows[:, None] - expected[None]) / scale).abs().amax(2)

    assert gap.amin(1).max() < 1
    assert gap.amin(0).max() < 1


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three exports of a small model."""
    folder = tmp_path_factory.mktemp("exported")
    for name, flags in {"plain": {}, "dynamic": {"dynamic": True}, "nms": {"nms": True}}.items():
        weights = folder / f"{name}.pt"
        shutil.copy(checkpoint(), weights)
        export.run(weights=str(weights), include=["onnx"], imgsz=[96, 128], conf_thres=0.01, **flags)
    return folder


@pytest.mark.parametrize("name", ["plain", "nms"])
def test_small_model_gives_the_same_detections(tiny: Path, name: str) -> None:
    boxes = detect_with_node(tiny / f"{name}.onnx", IMAGES[0], 0.02)

    assert {box["name"] for box in boxes} <= {"cell", "red plate"}
    assert_same(boxes, detect_with_python(tiny / f"{name}.onnx", IMAGES[0], 0.02, 96))


def test_dynamic_model_takes_any_size(tiny: Path) -> None:
    boxes = detect_with_node(tiny / "dynamic.onnx", IMAGES[0], 0.02, "--img", 160)

    assert_same(boxes, detect_with_python(tiny / "dynamic.onnx", IMAGES[0], 0.02, 160))


@needs_shared
@pytest.mark.parametrize("flags", [{}, {"nms": True}], ids=["plain", "nms"])
def test_official_model_gives_the_same_detections(tmp_path: Path, flags: dict[str, bool]) -> None:
    shutil.copy(SHARED / "weights" / "yolov5n.pt", tmp_path)
    (model,) = export.run(weights=str(tmp_path / "yolov5n.pt"), include=["onnx"], imgsz=[320], **flags)
    image = SHARED / "data" / "bus.jpg"
    boxes = detect_with_node(model, image, 0.25)

    assert boxes[0]["name"] in ("bus", "person")
    assert_same(boxes, detect_with_python(model, image, 0.25, 320))
    assert_same(boxes, detect_with_script(model, image, 0.25, 320, tmp_path), pixels=0.6)  # detect.py rounds


@pytest.mark.parametrize("size", [(64, 96), (97, 200), (480, 640), (333, 250), (1, 9)])
def test_input_is_bit_identical_to_that_of_opencv(tmp_path: Path, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(size)
    image, raw = tmp_path / "a.png", tmp_path / "a.raw"
    cv2.imwrite(str(image), rng.integers(0, 256, (*size, 3), dtype=np.uint8))
    code = f"""
import {{ writeFileSync }} from 'node:fs'
import {{ letterbox, readImage }} from './image.mjs'
writeFileSync({json.dumps(str(raw))}, letterbox(await readImage({json.dumps(str(image))}), 160, 224))
"""
    done = node("--input-type=module", "-e", code)
    assert done.returncode == 0, done.stderr
    made = np.fromfile(raw, np.float32).reshape(1, 3, 160, 224)
    fitted = letterbox(read_image(image), (160, 224), auto=False)[0]

    np.testing.assert_array_equal(made, to_tensor([fitted], CPU).numpy())


@pytest.mark.parametrize(
    ("args", "status", "message"),
    [
        ((), 2, "usage:"),
        (("a.onnx", "b.jpg", "--conf", "2"), 2, "--conf 2: expected a number from 0 to 1"),
        (("a.onnx", "b.jpg", "--img", "x"), 2, "--img x"),
        (("nowhere.onnx", "b.jpg"), 1, "nowhere.onnx"),
        (("detect.mjs", "b.jpg"), 1, "detect.mjs: not an ONNX file"),
    ],
)
def test_errors_are_one_line(args: tuple[str, ...], status: int, message: str) -> None:
    done = node("detect.mjs", *args)

    assert done.returncode == status
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_names_are_read_as_python_writes_them() -> None:
    names = {0: "cell", 1: "it's", 2: "a \"b\" 'c'"}
    code = "import { parseNames } from './metadata.mjs'; "
    code += f"console.log(JSON.stringify(parseNames({json.dumps(str(names))})))"

    assert json.loads(node("--input-type=module", "-e", code).stdout) == list(names.values())
