"""What the scripts of classification refuse, each in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import detect
import train as train_detector
import val as val_detector
from classify import predict, val
from models.weights import model_record, save_checkpoint
from models.yolo import make_model
from segment import predict as segment_predict
from tests.utils.sources.test_source import make_image_file
from tests.utils.tasks.classify.folders import make_folders
from tests.utils.train.small import CONFIG, SEGMENT_CONFIG
from utils.base.errors import ConfigError, YoloError
from utils.base.paths import ROOT
from utils.train.run_dir import TrainResult


@pytest.fixture(scope="module")
def of_task(tmp_path_factory: pytest.TempPathFactory, trained: TrainResult) -> dict[str, Path]:
    """Weights of each task."""
    folder = tmp_path_factory.mktemp("weights")
    found = {"classify": Path(str(trained.best))}
    for task, config in (("detect", CONFIG), ("segment", SEGMENT_CONFIG)):
        found[task] = folder / f"{task}.pt"
        save_checkpoint(found[task], {"model": model_record(make_model(config))})
    return found


@pytest.mark.parametrize(
    ("task", "words"),
    [("detect", r"detect\.pt is a detection model, .*: use val\.py"),
     ("segment", r"segment\.pt is a segmentation model, .*: use segment/val\.py")],
)  # fmt: skip
def test_val_refuses_other_models(
    task: str, words: str, of_task: dict[str, Path], home: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=words):
        val.run(weights=of_task[task], data=home / "set", device="cpu", project=tmp_path)


@pytest.mark.parametrize(
    ("task", "words"),
    [("detect", r"detect\.pt is a detection model, .*: use detect\.py"),
     ("segment", r"segment\.pt is a segmentation model, .*: use segment/predict\.py")],
)  # fmt: skip
def test_predict_refuses_other_models(
    task: str, words: str, of_task: dict[str, Path], tmp_path: Path
) -> None:
    image = make_image_file(tmp_path / "one.png")
    with pytest.raises(ConfigError, match=words):
        predict.run(weights=of_task[task], source=image, device="cpu", project=tmp_path)


def test_other_scripts_refuse_classifiers(of_task: dict[str, Path], tmp_path: Path) -> None:
    image, weights = make_image_file(tmp_path / "one.png"), of_task["classify"]
    for run in (detect.run, segment_predict.run):
        with pytest.raises(ConfigError, match=r"is a classification model, .*: use classify/predict\.py"):
            run(weights=weights, source=image, device="cpu", project=tmp_path)
    data = tmp_path / "data.yaml"
    (tmp_path / "images").mkdir()
    make_image_file(tmp_path / "images/one.png")
    data.write_text(
        yaml.safe_dump({"path": str(tmp_path), "train": "images", "val": "images", "names": ["a"]})
    )
    with pytest.raises(ConfigError, match=r"is a classification model, .*: use classify/val\.py"):
        val_detector.run(weights=weights, data=data, device="cpu", project=tmp_path)
    with pytest.raises(YoloError, match=r"classif.*classify/train\.py"):
        train_detector.run(
            weights=str(weights), data=str(data), device="cpu", imgsz=64, epochs=1, project=str(tmp_path)
        )


def script_lines(script: str, *flags: object) -> tuple[int, list[str]]:
    """Run a script; return its exit status, and the lines that it writes to stderr but for progress."""
    done = subprocess.run(
        [sys.executable, str(ROOT / script), *map(str, flags)], capture_output=True, text=True, timeout=60
    )
    assert "Traceback" not in done.stderr + done.stdout
    return done.returncode, [line for line in done.stderr.splitlines() if line.strip()]


@pytest.mark.parametrize(
    ("script", "words", "status", "line"),
    [
        ("train", ["--data", "nowhere"], 2, "--data nowhere: no such folder"),
        ("train", ["--data", "{set}", "--model", "nowhere.pt"], 2, "nowhere.pt"),
        ("train", ["--data", "{set}", "--model", "resnet19"], 2, "did you mean"),
        ("train", ["--data", "{set}", "--cutoff", "3"], 2, "--cutoff"),
        ("train", ["--epochs", "0"], 2, "--epochs 0"),
        ("train", ["--hyp", "a.yaml"], 2, "--hyp"),
        ("train", ["--data", "{empty}"], 1, "no usable images"),
        ("val", ["--weights", "nowhere.pt", "--data", "{set}"], 2, "nowhere.pt"),
        ("val", ["--weights", "{best}", "--data", "nowhere"], 2, "--data nowhere: no such folder"),
        ("val", ["--weights", "{best}", "--data", "{empty}"], 2, "is not a class of the model"),
        ("val", ["--conf-thres", "0.5"], 2, "--conf-thres"),
        ("predict", ["--weights", "{best}", "--source", "nowhere.jpg"], 2, "nowhere.jpg"),
        ("predict", ["--weights", "{set}"], 2, "--weights"),
        ("predict", ["--classes", "0"], 2, "--classes"),
    ],
)
def test_bad_input_gives_one_line(
    script: str, words: list[str], status: int, line: str, home: Path, trained: TrainResult, tmp_path: Path
) -> None:
    empty = make_folders(tmp_path / "empty", train={"a": 1, "b": 0}, val={"a": 1})
    filled = [word.format(set=home / "set", best=trained.best, empty=empty) for word in words]
    more: list[object] = ["--project", tmp_path / "runs", "--device", "cpu"]
    if script == "train":
        more += ["--workers", "0", "--imgsz", "32"]
        more += [] if "--model" in filled else ["--model", trained.best]
    found, lines = script_lines(f"classify/{script}.py", *filled, *more)
    assert found == status, lines
    errors = [text for text in lines if line in text]
    assert len(errors) == 1, lines
    assert not (tmp_path / "runs").exists(), "no folder is made for a run that fails at its start"


@pytest.mark.parametrize("script", ["train", "val", "predict"])
def test_help_lists_the_flags_of_classification(script: str) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / f"classify/{script}.py"), "--help"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "--imgsz" in done.stdout
    assert not any(flag in done.stdout for flag in ("--iou-thres", "--single-cls", "--rect", "--max-det"))
