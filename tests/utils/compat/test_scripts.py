"""Scripts in the manner of those that people have written against YOLOv5, of every age, run unchanged.

Each leaves its boxes in `result`; they must be those of our own API for the same image.
"""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import torch

from models.weights import load_for_inference
from tests.models.backends.files import checkpoint, tiny_model
from utils.base.paths import ROOT
from utils.data.letterbox import letterbox, to_tensor
from utils.ops.boxes import scale_boxes
from utils.ops.nms import non_max_suppression

SCRIPTS = Path(__file__).parent / "scripts"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image as PNG, which all readers decode to the same pixels."""
    path = tmp_path_factory.mktemp("images of scripts") / "shapes.png"
    cv2.imwrite(str(path), cv2.imread(str(ROOT / "data/images/shapes-1.jpg")))
    return path


@pytest.fixture(scope="module")
def pickled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that holds the model itself, as those of the original do."""
    path = tmp_path_factory.mktemp("weights") / "pickled.pt"
    torch.save({"epoch": -1, "model": tiny_model(), "ema": None, "optimizer": None}, path)
    return path


@pytest.fixture(scope="module")
def boxes(image: Path) -> torch.Tensor:
    """The detections of our own API, best first."""
    pixels = cv2.imread(str(image))
    boxed = letterbox(pixels, 64)[0]
    model = load_for_inference(checkpoint(), CPU)
    (found,) = non_max_suppression(model(to_tensor([boxed], CPU))[0], 0.001, 0.45)
    scale_boxes(boxed.shape[:2], found[:, :4], pixels.shape[:2]).round_()
    assert 5 < len(found) < 300
    return found


@pytest.mark.parametrize("script", sorted(path.stem for path in SCRIPTS.glob("*.py")))
def test_a_script_finds_the_boxes_of_our_own_api(
    script: str,
    image: Path,
    pickled: Path,
    boxes: torch.Tensor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["--weights", str(checkpoint()), "--source", str(image)]
    if "sys.argv[6]" in (SCRIPTS / f"{script}.py").read_text():
        arguments += ["--pickled", str(pickled)]
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    result = torch.tensor(runpy.run_path(str(SCRIPTS / f"{script}.py"))["result"])

    assert result.shape == boxes.shape
    order = [rows[:, 4].sort(descending=True, stable=True).indices for rows in (result, boxes)]
    result, expected = result[order[0]], boxes[order[1]]
    assert (result[:, 4] - expected[:, 4]).abs().max() < 1e-5
    assert (result[:, :4] - expected[:, :4]).abs().max() <= 1  # one rounds a half to the other side
    assert (result[:, 5] == expected[:, 5]).all()


PREFIXED = """
import sys
sys.path[:0] = [{parent!r}, *{checkout!r}]
from yolov5 import train, val, detect, export
from yolov5.models.common import DetectMultiBackend
from yolov5.models.experimental import attempt_load
from yolov5.models.yolo import Detect, Model
from yolov5.utils.general import cv2, non_max_suppression, scale_coords
from yolov5.utils.datasets import LoadImages
from yolov5.utils.plots import Annotator
import yolov5.utils.torch_utils
from yolov5 import train, val
import utils.general, models.yolo, utils.plots
assert utils.general.non_max_suppression is non_max_suppression and models.yolo.Model is Model
assert utils.plots.Annotator is Annotator
model = attempt_load({weights!r}, map_location="cpu")
assert isinstance(model.model[-1], Detect) and isinstance(model, Model)
assert isinstance(Model(model.yaml).model[-1], Detect)
for path, im, im0, cap in LoadImages({image!r}, img_size=64):
    print(len(non_max_suppression(DetectMultiBackend({weights!r})(
        yolov5.utils.torch_utils.torch.from_numpy(im)[None] / 255), 0.001)[0]))
"""


@pytest.mark.parametrize("on_path", [True, False])
def test_a_checkout_in_a_folder_is_imported_with_its_prefix(
    on_path: bool, image: Path, boxes: torch.Tensor, tmp_path: Path
) -> None:
    (tmp_path / "yolov5").symlink_to(ROOT, target_is_directory=True)
    code = PREFIXED.format(
        parent=str(tmp_path),
        checkout=[str(tmp_path / "yolov5")] * on_path,
        weights=str(checkpoint()),
        image=str(image),
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert output.returncode == 0, output.stderr
    assert output.stdout.split()[-1] == str(len(boxes))


def test_another_package_of_the_same_name_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "utils").mkdir()
    (tmp_path / "utils/__init__.py").write_text("")
    (tmp_path / "yolov5").symlink_to(ROOT, target_is_directory=True)
    code = "from yolov5.utils.general import check_img_size"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.stderr.splitlines()[-1].startswith(
        f"ImportError: yolov5.utils: another package called utils stands before {ROOT}"
    )
