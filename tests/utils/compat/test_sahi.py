"""SAHI, a library for small objects in large images, uses our models as those of YOLOv5."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.known import SHARED, needs_shared
from utils.base.paths import ROOT

CODE = """
import json, sys
import torch
from sahi import AutoDetectionModel
from sahi.predict import get_sliced_prediction
weights, image = sys.argv[1:]
settings = dict(model_type="yolov5", confidence_threshold=0.3, device="cpu")
hub = torch.hub.load({root!r}, "custom", path=weights, source="local", _verbose=False)
found = []
for given in (dict(model=hub), dict(model_path=weights)):
    model = AutoDetectionModel.from_pretrained(**given, **settings)
    sliced = get_sliced_prediction(image, model, 512, 512, overlap_height_ratio=0.2, overlap_width_ratio=0.2)
    found.append(sorted(item.category.name for item in sliced.object_prediction_list))
import yolov5, yolov5.models.common, models.common
assert yolov5.models.common is models.common and yolov5.train.run
print(json.dumps(found))
"""


@pytest.mark.slow
@needs_shared
def test_sahi_detects_in_slices_with_a_hub_model_and_with_the_package_yolov5(tmp_path: Path) -> None:
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(tmp_path / "sahi")]
    if subprocess.run([*install, "sahi==0.11.22"], capture_output=True, check=False).returncode:
        pytest.skip("SAHI cannot be installed here")
    paths = [str(ROOT), str(ROOT / "extras/yolov5")]
    code = f"import sys; sys.path.append({str(tmp_path / 'sahi')!r})\n" + CODE.format(root=str(ROOT))
    output = subprocess.run(
        [sys.executable, "-c", code, str(SHARED / "weights/yolov5n.pt"), str(SHARED / "data/bus.jpg")],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert output.returncode == 0, output.stderr
    by_hub, by_package = json.loads(output.stdout.splitlines()[-1])
    assert by_hub == by_package and by_hub.count("person") >= 3 and "bus" in by_hub
