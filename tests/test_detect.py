"""detect.py from source to files, with a stand-in for the model and with the official weights."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import detect
from models.weights import build_model, model_record, read_checkpoint, save_checkpoint
from tests.detecting import Blind, detect_in, frames_of, made
from tests.known import SHARED, golden, needs_shared
from tests.utils.sources.test_source import make_image_file, video
from utils.base.errors import ConfigError, DataError
from utils.base.options import parse_options
from utils.base.paths import ROOT
from utils.predict.detect_options import DetectOptions
from utils.predict.detector import detect as detect_with


def test_all_kinds_of_results_are_saved(tmp_path: Path, logged: list[str]) -> None:
    file = make_image_file(tmp_path / "in put" / "a é.jpg", 40, 60)
    summary = detect_in(file, tmp_path / "runs", save_txt=True, save_csv=True, save_crop=True, save_conf=True)
    assert summary.save_dir == tmp_path / "runs" / "exp"
    crops = {"crops/cat/a é.jpg", "crops/dog_wolf/a é.jpg"}
    assert made(summary.save_dir) == {"a é.jpg", "labels/a é.txt", "predictions.csv", *crops}
    # 40 x 60 is doubled ... to 64 x 64 with a gain of 64 / 60: boxes are rounded to whole pixels
    assert (summary.save_dir / "labels" / "a é.txt").read_text() == (
        "1 0.5 0.5 0.466667 0.7 0.6\n0 0.5 0.5 0.3 0.25 0.9\n"
    )
    with (summary.save_dir / "predictions.csv").open(newline="", encoding="utf-8") as text:
        assert list(csv.reader(text)) == [
            ["Image Name", "Prediction", "Confidence"],
            ["a é.jpg", "dog/wolf", "0.60"],
            ["a é.jpg", "cat", "0.90"],
        ]
    assert logged[0].startswith(f"image 1/1 {file}: 64x64 1 cat, 1 dog/wolf, ")
    assert logged[0].endswith("ms")
    assert "per image at shape (1, 3, 64, 64)" in logged[1]
    assert logged[2].startswith(f"Results saved to {summary.save_dir}\n1 labels saved to ")


def test_boxes_are_drawn_in_images_but_not_in_crops(tmp_path: Path) -> None:
    file = make_image_file(tmp_path / "a.png", 40, 60)
    folder = detect_in(file, tmp_path / "runs", save_crop=True, hide_labels=True, line_thickness=1).save_dir
    drawn = cv2.imread(str(folder / "a.png"))
    assert drawn.shape == (40, 60, 3)
    assert (drawn[15, 30] == (0xFF, 0x2A, 0x04)).all()  # the upper edge of the cat, which is on top
    assert (drawn[20, 30] == 90).all()
    assert abs(cv2.imread(str(folder / "crops" / "cat" / "a.jpg")).astype(int) - 90).max() < 3


def test_labels_as_corners_without_confidence(tmp_path: Path) -> None:
    file = make_image_file(tmp_path / "a.jpg", 40, 60)
    folder = detect_in(
        file, tmp_path / "runs", save_txt=True, save_format=1, nosave=True, classes=[0]
    ).save_dir
    assert (folder / "labels" / "a.txt").read_text() == "0 0.35 0.375 0.65 0.625\n"
    assert made(folder) == {"labels/a.txt"}


def test_run_folders_are_numbered_and_exist_ok_overwrites(tmp_path: Path) -> None:
    file = make_image_file(tmp_path / "a.jpg")
    runs = [detect_in(file, tmp_path / "runs", save_txt=True, save_csv=True) for _ in range(2)]
    assert [run.save_dir.name for run in runs] == ["exp", "exp2"]
    before = {path: path.read_bytes() for path in runs[0].save_dir.rglob("*.*") if path.is_file()}
    again = detect_in(file, tmp_path / "runs", save_txt=True, save_csv=True, exist_ok=True)
    assert again.save_dir == runs[0].save_dir
    assert {path: path.read_bytes() for path in before} == before
    nothing = detect_in(file, tmp_path / "runs", Blind(), save_txt=True, save_csv=True, exist_ok=True)
    assert made(nothing.save_dir) == {"a.jpg", "predictions.csv"}


def test_files_of_the_same_name_get_numbers(tmp_path: Path, logged: list[str]) -> None:
    for name in ("x/cat.jpg", "y/cat.jpg", "y/cat2.jpg"):
        make_image_file(tmp_path / name)
    folder = detect_in(tmp_path / "*" / "*.jpg", tmp_path / "runs", save_txt=True, save_crop=True).save_dir
    labels = {path.name for path in (folder / "labels").iterdir()}
    assert labels == {"cat.txt", "cat2.txt", "cat3.txt"}
    assert {path.name for path in folder.glob("*.jpg")} == {"cat.jpg", "cat2.jpg", "cat3.jpg"}
    assert len(list((folder / "crops" / "cat").iterdir())) == 3
    assert any("1 files share their names" in line for line in logged)


def test_only_names_that_collide_get_a_number(tmp_path: Path, logged: list[str]) -> None:
    for name in ("x/a.jpg", "x/a.png", "x/a2.jpg", "x/b.bmp"):
        make_image_file(tmp_path / name)
    images = {"a.jpg", "a.png", "a2.jpg", "b.bmp"}
    assert made(detect_in(tmp_path / "x", tmp_path / "runs").save_dir) == images
    assert not any("share their names" in line for line in logged)

    options = {"save_txt": True, "save_csv": True, "classes": [0], "nosave": False}
    folder = detect_in(tmp_path / "x", tmp_path / "runs", **options).save_dir
    labels = {f"labels/{stem}.txt" for stem in ("a", "a2", "a3", "b")}
    assert made(folder) == {*images, *labels, "predictions.csv"}
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as text:
        assert {row[0] for row in csv.reader(text)} == {*images, "Image Name"}
    assert any("1 files share their names" in line for line in logged)

    make_image_file(tmp_path / "y" / "a.png")
    folder = detect_in(tmp_path / "*" / "a*", tmp_path / "runs", save_txt=True).save_dir
    assert made(folder) == {
        *("a.jpg", "a.png", "a2.jpg", "a4.png"), *(f"labels/{stem}.txt" for stem in ("a", "a2", "a3", "a4"))
    }  # fmt: skip


def test_a_line_thickness_of_0_follows_the_size_of_the_image(tmp_path: Path) -> None:
    file = make_image_file(tmp_path / "a.png", 1800, 2400)
    options = {"hide_labels": True, "classes": [1]}
    folders = [
        detect_in(file, tmp_path / "runs", line_thickness=width, **options).save_dir for width in (0, 6, 3)
    ]
    automatic, six, three = (cv2.imread(str(folder / "a.png")) for folder in folders)
    assert (automatic == six).all() and (automatic != three).any(), "(1800 + 2400) / 2 * 0.003 = 6.3"


def test_images_of_a_list_are_not_saved_but_labels_are(tmp_path: Path) -> None:
    make_image_file(tmp_path / "a.jpg")
    (tmp_path / "list.txt").write_text("a.jpg\n")
    assert made(detect_in(tmp_path / "list.txt", tmp_path / "runs", save_txt=True).save_dir) == {
        "labels/a.txt"
    }


def test_images_of_read_only_formats_are_saved_as_jpg(tmp_path: Path) -> None:
    values = np.full((40, 60, 3), 0.5, np.float32)
    (tmp_path / "a.pfm").write_bytes(cv2.imencode(".pfm", values)[1].tobytes())
    assert made(detect_in(tmp_path / "a.pfm", tmp_path / "runs").save_dir) == {"a.jpg"}


def test_no_detections_are_logged(tmp_path: Path, logged: list[str]) -> None:
    detect_in(make_image_file(tmp_path / "a.jpg"), tmp_path / "runs", Blind())
    assert "(no detections), " in logged[0]


def test_videos_keep_length_frame_rate_and_size(tmp_path: Path, logged: list[str]) -> None:
    video(tmp_path / "in" / "one clip.mp4", frames=5, fps=10)
    video(tmp_path / "in" / "two.avi", frames=4, fps=25, size=(48, 64))
    folder = detect_in(tmp_path / "in", tmp_path / "runs", save_txt=True).save_dir
    assert frames_of(folder / "one clip.mp4") == (5, 10, (64, 48))
    assert frames_of(folder / "two.mp4") == (4, 25, (48, 64))
    assert {path.name for path in (folder / "labels").glob("one*")} == {
        f"one clip_{k}.txt" for k in range(1, 6)
    }
    assert logged[0].startswith(f"video 1/2 (1/5) {tmp_path / 'in' / 'one clip.mp4'}: 64x64 1 cat")


def test_vid_stride_keeps_the_duration_of_a_video(tmp_path: Path) -> None:
    file = video(tmp_path / "a.mp4", frames=12, fps=30)
    folder = detect_in(file, tmp_path / "runs", vid_stride=3).save_dir
    assert frames_of(folder / "a.mp4") == (4, 10, (64, 48))


def test_an_image_and_a_video_may_share_a_stem(tmp_path: Path) -> None:
    make_image_file(tmp_path / "in" / "a.jpg")
    video(tmp_path / "in" / "a.mp4", frames=2)
    assert made(detect_in(tmp_path / "in", tmp_path / "runs").save_dir) == {"a.jpg", "a.mp4"}


def test_each_stream_is_saved_as_a_video(tmp_path: Path) -> None:
    files = [video(tmp_path / f"{name}.mp4", frames=5, fps=100) for name in "ab"]
    (tmp_path / "my.streams").write_text("\n".join(map(str, files)))
    summary = detect_in(tmp_path / "my.streams", tmp_path / "runs")
    saved = sorted(summary.save_dir.glob("*.mp4"))
    assert len(saved) == 2
    assert sum(frames_of(file)[0] for file in saved) == summary.frames


def test_feature_maps_are_saved_in_a_folder_per_image(tmp_path: Path) -> None:
    folder = detect_in(
        make_image_file(tmp_path / "a.jpg"), tmp_path / "runs", visualize=True, nosave=True
    ).save_dir
    assert made(folder) == {"a/stage0_Conv_features.png", "a/stage0_Conv_features.npy"}


def test_corrupt_files_are_skipped_and_counted(tmp_path: Path, logged: list[str]) -> None:
    make_image_file(tmp_path / "in" / "a.jpg")
    (tmp_path / "in" / "b.jpg").write_bytes(b"")
    assert detect_in(tmp_path / "in", tmp_path / "runs").skipped == 1
    assert any("b.jpg: skipped" in line for line in logged)


def test_a_source_without_a_readable_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "b.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="b.jpg"):
        detect_in(tmp_path / "b.jpg", tmp_path / "runs")
    assert not list((tmp_path / "runs").iterdir())


def test_a_wrong_source_or_class_makes_no_run_folder(tmp_path: Path) -> None:
    options = DetectOptions(source="nowhere.jpg", project=str(tmp_path / "runs"))
    with pytest.raises(ConfigError, match=r"nowhere\.jpg"):
        detect_with(options, load=lambda _: pytest.fail("weights were loaded"))
    with pytest.raises(ConfigError, match="--classes 2"):
        detect_in(make_image_file(tmp_path / "a.jpg"), tmp_path / "runs", classes=[2])
    assert not (tmp_path / "runs").exists()


def test_a_project_that_is_a_file_is_an_error_before_weights_are_loaded(tmp_path: Path) -> None:
    file = make_image_file(tmp_path / "a.jpg")
    options = DetectOptions(source=str(file), project=str(file))
    with pytest.raises(ConfigError, match=r"--project .*a\.jpg is a file, where a folder is needed"):
        detect_with(options, load=lambda _: pytest.fail("weights were loaded"))


def test_windows_that_cannot_open_are_one_warning(tmp_path: Path, logged: list[str], monkeypatch) -> None:
    def imshow(*_: object) -> None:
        raise cv2.error("no GUI")

    monkeypatch.setattr(cv2, "imshow", imshow)
    for name in "ab":
        make_image_file(tmp_path / "in" / f"{name}.jpg")
    assert detect_in(tmp_path / "in", tmp_path / "runs", view_img=True).frames == 2
    assert sum("--view-img" in line for line in logged) == 1


def test_q_in_the_window_stops(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(cv2, "imshow", lambda *_: None)
    monkeypatch.setattr(cv2, "waitKey", lambda _: ord("q"))
    monkeypatch.setattr(cv2, "destroyAllWindows", lambda: None)
    file = video(tmp_path / "a.mp4", frames=5)
    assert detect_in(file, tmp_path / "runs", view_img=True).frames == 1


def test_help_imports_no_heavy_package() -> None:
    code = (
        "import sys, detect; from utils.base.options import build_parser;"
        "build_parser(detect.DetectOptions).format_help();"
        "print([name for name in ('torch', 'cv2', 'numpy', 'yaml') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("line", "names"),
    [
        (
            "--weights a.pt b.pt --img 320 --conf 0.4 --iou 0.5 --max 5 --class 0 2 --agn --aug --dev cpu",
            "weights imgsz conf_thres iou_thres max_det classes agnostic_nms augment device",
        ),
        (
            "--source 0 --img-size 320 640 --nosave --save-t --save-cs --save-cr --save-f 1 --exist --line 1",
            "source imgsz nosave save_txt save_csv save_crop save_format exist_ok line_thickness",
        ),
        (
            "--hide-l --hide-c --half --dnn --vid 2 --update --project p --name n --data d.yaml --vis --view",
            "hide_labels hide_conf half dnn vid_stride update project name data visualize view_img",
        ),
        ("--batch 8", "batch_size"),
    ],
)
def test_command_lines_with_abbreviated_flags(line: str, names: str) -> None:
    assert set(parse_options(DetectOptions, line.split()).given) == set(names.split())


# ---- the official weights -------------------------------------------------------------------------------

WEIGHTS = SHARED / "weights" / "yolov5n.pt"
CASES = [
    ("640/default", {}),
    ("640/agnostic", {}),
    ("640/class0", {}),
    ("640/classes_0_27", {}),
    ("640/max_det5", {}),
    ("640/max_det2", {}),
    ("640sq/default", {}),
    ("320/default", {"imgsz": 320}),
    ("640_tta/default", {"augment": True}),
]
FLAGS = {"agnostic": "agnostic_nms"}


def boxes(file: Path) -> np.ndarray:
    """(n, 6) class, cx, cy, w, h, confidence; the most confident first."""
    return np.array([[float(word) for word in line.split()] for line in file.read_text().splitlines()])[::-1]


@needs_shared
@pytest.mark.parametrize("image", ["bus", "zidane"])
@pytest.mark.parametrize(("case", "flags"), CASES, ids=[case for case, _ in CASES])
def test_official_weights_give_the_detections_of_the_original(
    image: str, case: str, flags: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from models.backends.pytorch import PyTorchBackend

    known = golden("03_detections")["cases"]
    if f"{image}/{case}" not in known:
        pytest.skip("not among the golden numbers")
    expected = known[f"{image}/{case}"]
    args = {FLAGS.get(key, key): value for key, value in expected["args"].items()}
    want = np.array(expected["rows_xyxy_conf_cls"])
    height, width = known[f"{image}/{case.split('/')[0]}"]["image_shape"][:2]

    monkeypatch.setattr(PyTorchBackend, "pt", not case.startswith("640sq"))  # exported models see squares
    summary = detect.run(
        weights=WEIGHTS, source=SHARED / "data" / f"{image}.jpg", device="cpu", project=tmp_path,
        nosave=True, save_txt=True, save_conf=True, **{**args, **flags},
    )  # fmt: skip
    got = boxes(summary.save_dir / "labels" / f"{image}.txt")
    assert got[:, 0].tolist() == want[:, 5].tolist()
    np.testing.assert_allclose(got[:, 5], want[:, 4], atol=2e-3)
    centre = got[:, 1:3] * (width, height)
    half = got[:, 3:5] * (width, height) / 2
    found = np.concatenate([centre - half, centre + half], axis=1)
    assert abs(found - want[:, :4]).max() < 1.01  # 0.5 of the network, 0.5 of rounding


@needs_shared
def test_several_weights_form_an_ensemble_and_update_strips_the_first(
    tmp_path: Path, logged: list[str]
) -> None:
    copy = tmp_path / "copy.pt"
    save_checkpoint(copy, {"model": model_record(build_model(read_checkpoint(WEIGHTS)))})  # in FP32
    summary = detect.run(
        weights=[copy, WEIGHTS],
        source=SHARED / "data" / "bus.jpg",
        project=tmp_path,
        device="cpu",
        update=True,
    )
    assert summary.detections == 5  # an ensemble of equals detects what one of them does
    assert any("Optimizer stripped" in line for line in logged)
    assert read_checkpoint(copy).state["model.0.conv.weight"].dtype == torch.float16


@needs_shared
def test_update_leaves_a_file_of_yolov5_as_it_is(tmp_path: Path, logged: list[str]) -> None:
    copy = Path(shutil.copy(WEIGHTS, tmp_path / "copy.pt"))
    source = SHARED / "data" / "bus.jpg"
    detect.run(weights=copy, source=source, project=tmp_path, device="cpu", update=True, nosave=True)
    assert copy.read_bytes() == WEIGHTS.read_bytes()
    (line,) = [line for line in logged if "not stripped" in line]
    assert "export.py --weights" in line and "--include yolov5" in line


def run_script(*words: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, str(ROOT / "detect.py"), *map(str, words), "--device", "cpu"]
    return subprocess.run(line, cwd=cwd, capture_output=True, text=True, timeout=120)


@needs_shared
def test_the_command_line_from_another_folder(tmp_path: Path) -> None:
    done = run_script(
        "--weights", WEIGHTS, "--source", SHARED / "data" / "bus.jpg", "--project", "my runs", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "640x480 4 persons, 1 bus, " in done.stdout
    assert (tmp_path / "my runs" / "exp" / "bus.jpg").exists()


@pytest.mark.parametrize(
    ("words", "status", "named"),
    [
        (["--source", "nowhere.jpg"], 2, "nowhere.jpg"),
        (["--conf-thres", "high"], 2, "--conf-thres"),
        (["--conf-thres", "1.5"], 2, "--conf-thres"),
        (["--weights", "nowhere.pt", "--source", str(ROOT / "tests")], 1, "tests"),
    ],
)
def test_errors_are_one_line(words: list[str], status: int, named: str, tmp_path: Path) -> None:
    done = run_script("--project", tmp_path / "runs", *words)
    assert done.returncode == status
    assert named in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


@needs_shared
@pytest.mark.skipif(os.name == "nt", reason="signals are another matter there")
def test_ctrl_c_exits_with_130_and_a_playable_video(tmp_path: Path) -> None:
    file = video(tmp_path / "long.mp4", frames=3000)
    words = ["--weights", WEIGHTS, "--source", file, "--img", "64", "--project", tmp_path, "--device", "cpu"]
    line = [sys.executable, "-u", "detect.py", *map(str, words)]
    process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for text in process.stdout:
        if text.startswith("video 1/1 (5/"):
            break
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    rest, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert "Results saved to" in rest
    assert "Traceback" not in errors
    assert time.monotonic() - started < 30
    assert frames_of(tmp_path / "exp" / "long.mp4")[0] >= 5
