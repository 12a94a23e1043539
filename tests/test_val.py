from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import export
import val
from tests.known import SHARED, golden, needs_shared, pattern_image
from tests.models.backends.files import NAMES, checkpoint, exported
from utils.base.errors import ConfigError
from utils.base.paths import ROOT
from utils.val import measure as measuring
from utils.val import study, validate
from utils.val.accumulator import EvalResult
from utils.val.val_options import options_from, parse_options


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three images, of which two have an object, as the val split."""
    for index in range(3):
        folder = tmp_path / "set one" / "images" / "val"
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{index}.png"), pattern_image(48, 64, 30 * index))
        labels = tmp_path / "set one" / "labels" / "val"
        labels.mkdir(parents=True, exist_ok=True)
        (labels / f"{index}.txt").write_text("1 0.5 0.5 0.25 0.5\n" if index else "")
    return write_yaml(tmp_path, NAMES)


def write_yaml(folder: Path, names: dict[int, str]) -> Path:
    path = folder / "data.yaml"
    path.write_text(
        json.dumps(
            {"path": str(folder / "set one"), "train": "images/val", "val": "images/val", "names": names}
        )
    )  # json is yaml
    return path


def options(data: Path, **more: Any) -> dict[str, Any]:
    small = {"weights": str(checkpoint()), "imgsz": 64, "batch_size": 2, "workers": 0, "device": "cpu"}
    return {**small, "data": str(data), "project": str(data.parent / "runs"), **more}


def measure(data: Path, **more: Any) -> EvalResult:
    """Measure without writing files."""
    return measuring.measure(options_from(options(data, **more)))


def name_of(case: dict[str, Any]) -> str:
    extra = [key for key in ("augment", "single_cls") if case.get(key)]
    return "-".join([case["task"], f"batch{case['batch']}", *extra])


@needs_shared
@pytest.mark.parametrize("case", golden("val_bccd")["runs"], ids=name_of)
def test_metrics_equal_the_original(case: dict[str, Any]) -> None:
    result = measuring.measure(
        options_from(
            {
                "weights": SHARED / "weights" / "bccd_yolov5n.pt",
                "data": SHARED / "data" / "bccd.yaml",
                "task": case["task"],
                "imgsz": case["imgsz"],
                "batch_size": case["batch"],
                "augment": case.get("augment", False),
                "single_cls": case.get("single_cls", False),
                "device": "cpu",
                "workers": 0,
            }
        )
    )
    assert result.results[:4] == pytest.approx(
        [case[key] for key in ("P", "R", "mAP50", "mAP50_95")], abs=1e-4
    )
    assert result.maps == pytest.approx(case["per_class_mAP50_95"], abs=1e-4)
    assert result.losses == (0, 0, 0)


def test_a_run_writes_plots_labels_and_json(data: Path, tmp_path: Path) -> None:
    result = val.run(**options(data, save_txt=True, save_conf=True, save_json=True, conf_thres=0.0))

    assert (result.seen, result.instances) == (3, 2)
    folder = tmp_path / "runs" / "exp"
    rows = json.loads((folder / "tiny_predictions.json").read_text())
    assert {row["image_id"] for row in rows} == {0, 1, 2}
    lines = (folder / "labels" / "0.txt").read_text().splitlines()
    assert len(lines) == sum(row["image_id"] == 0 for row in rows)
    assert len(lines[0].split()) == 6
    assert {"val_batch1_pred.jpg", "PR_curve.png"} <= {file.name for file in folder.iterdir()}


def test_each_run_has_a_new_folder(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders: list[str] = []

    def measured(opt: object, folder: Path) -> None:
        (folder / "a file").touch()
        folders.append(folder.name)

    monkeypatch.setattr(validate, "measure", measured)
    for again in (False, False, True):
        val.run(**options(data, exist_ok=again))
    assert folders == ["exp", "exp2", "exp"]


@needs_shared
def test_exported_files_have_the_metrics_of_the_checkpoint(tmp_path: Path) -> None:
    weights = Path(shutil.copy(SHARED / "weights" / "bccd_yolov5n.pt", tmp_path))
    images = sorted((SHARED / "data" / "bccd" / "images" / "val").glob("*.jpg"))[:10]
    (tmp_path / "ten.txt").write_text("\n".join(map(str, images)))
    names = {0: "Platelets", 1: "RBC", 2: "WBC"}
    data = tmp_path / "ten.yaml"
    data.write_text(json.dumps({"path": str(tmp_path), "train": "ten.txt", "val": "ten.txt", "names": names}))
    files = export.run(weights=weights, include=["torchscript", "onnx"], imgsz=160)

    square = measure(data, weights=weights, imgsz=160, batch_size=4, task="speed")  # as for exported files
    found = [measure(data, weights=file, imgsz=160, batch_size=4) for file in files]

    assert square.map > 0.2
    assert [result.results for result in found] == [pytest.approx(square.results, abs=2e-3)] * 2


def test_task_speed_measures_each_file_and_writes_nothing(data: Path, tmp_path: Path) -> None:
    result = val.run(**options(data, task="speed", weights=[str(checkpoint()), str(exported("onnx"))]))
    assert min(result.speeds) > 0
    assert not list(tmp_path.glob("runs/*"))


def test_single_cls_accepts_another_number_of_classes(data: Path) -> None:
    other = write_yaml(data.parent, {0: "a", 1: "b", 2: "c"})
    with pytest.raises(ConfigError, match=r"has 2 classes, --data .* has 3"):
        measure(other)
    assert measure(other, single_cls=True).names == {0: "item"}


def test_other_names_of_classes_give_a_warning(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    measure(write_yaml(data.parent, {0: "cell", 1: "mouse"}))
    assert "class 1 is red plate in the weights, mouse in --data" in caplog.text


def test_a_missing_split_is_an_error(data: Path) -> None:
    with pytest.raises(ConfigError, match=r"--task test: .*data.yaml has no key 'test'"):
        measure(data, task="test")


def test_images_without_labels_give_zeros(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    for file in data.parent.rglob("*.txt"):
        file.unlink()
    result = measure(data)
    assert (result.seen, result.map) == (3, 0)
    assert "no labels found" in caplog.text


def test_several_checkpoints_form_an_ensemble(data: Path) -> None:
    assert measure(data, weights=[str(checkpoint())] * 2).map == pytest.approx(measure(data).map)


def test_task_study_measures_all_sizes(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "SIZES", (32, 64))
    val.run(**options(data, task="study"))
    folder = tmp_path / "runs" / "exp"
    assert np.loadtxt(folder / "study_data_tiny.txt").shape == (2, 10)
    assert (folder / "study.zip").exists()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--img 320 --batch 8", {"imgsz": 320, "batch_size": 8}),
        ("--imgsz 320", {"imgsz": 320}),
        ("--img-size 320 --task speed", {"imgsz": 320, "task": "speed"}),
        ("--weights a.pt b.pt", {"weights": ["a.pt", "b.pt"]}),
        ("--data x/coco.yaml", {"save_json": True}),
        ("--save-hybrid", {"save_txt": True}),
        ("--conf 0.001 --iou 0.7 --max-det 50", {"iou_thres": 0.7, "max_det": 50}),
        ("--single-cls --augment --verbose --half --dnn", {"dnn": True, "half": True}),
        ("--save-txt --save-conf --save-json --exist-ok", {"save_conf": True}),
        ("--project p --name n --device cpu --workers 2", {"workers": 2}),
        ("", {"conf_thres": 0.001, "iou_thres": 0.6, "max_det": 300, "batch_size": 32, "match": "legacy"}),
    ],
)
def test_flags_of_the_original(line: str, expected: dict[str, object]) -> None:
    opt = parse_options(line.split())
    assert {key: getattr(opt, key) for key in expected} == expected


def test_a_high_confidence_threshold_gives_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    parse_options(["--conf-thres", "0.1"])
    assert "mAP will be too low" in caplog.text


@pytest.mark.parametrize("task", ["speed", "study"])
def test_a_task_without_files_says_so(task: str, caplog: pytest.LogCaptureFixture) -> None:
    parse_options(["--task", task, "--save-json"])
    assert f"--save-json: --task {task} writes no detections" in caplog.text
    caplog.clear()
    parse_options(["--task", task, "--data", "coco.yaml"])
    assert not caplog.text


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"img_sz": 320}, "no option 'img_sz'; did you mean imgsz"),
        ({"task": "vall"}, "--task vall: expected one of"),
        ({"batch_size": 0}, "--batch-size 0"),
        ({"conf_thres": 2}, "--conf-thres 2"),
    ],
)
def test_invalid_options_are_errors(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        options_from(keywords)


def test_importing_val_does_not_load_pytorch() -> None:
    code = "import sys, val; print(sorted({'torch', 'numpy', 'cv2'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n"


def test_a_failed_run_creates_no_folder(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        val.run(**options(data) | {"data": "nowhere.yaml"})
    assert not list(tmp_path.glob("runs/*"))
