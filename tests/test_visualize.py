"""visualize.py, from models and images to figures and tables."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn

import visualize
from models.weights import model_record, save_checkpoint
from models.yolo import DetectionModel
from studies.explain import visualizers
from studies.explain.visualizers import VisualizeSummary
from tests.utils.sources.test_source import make_image_file, video
from utils.base.errors import ConfigError
from utils.base.paths import ROOT

PLAIN, GATED = "yolov5n.yaml", "yolov5n-LSKA.yaml"


def draw(folder: Path, **flags: Any) -> VisualizeSummary:
    """Visualize two images of different shapes at 64 px into `folder`/runs."""
    if "source" not in flags:
        for name, (height, width) in {"a.jpg": (40, 60), "b é.jpg": (60, 40)}.items():
            make_image_file(folder / "in" / name, height, width)
        flags["source"] = folder / "in"
    return visualize.run(imgsz=64, device="cpu", project=folder / "runs", **flags)


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as text:
        return list(csv.DictReader(text))


def checkpoint(path: Path, cfg: str = PLAIN, bias: float | None = None) -> Path:
    """Weights of a model with two classes; with `bias`, its gates multiply by that."""
    torch.manual_seed(0)
    model = DetectionModel(cfg, nc=2)
    if bias is not None:
        nn.init.constant_(model.model[10].conv1.bias, bias)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(path, {"epoch": -1, "model": model_record(model), "ema": None, "optimizer": None})
    return path


def test_all_kinds_are_drawn_for_models_with_and_without_a_gate(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    summary = draw(tmp_path, cfg=[PLAIN, GATED], source=make_image_file(tmp_path / "a é.jpg"))
    names = {"erf.png", "erf.csv", "gates.csv", "gates_a é.png", "cam_a é.png"}
    assert summary.save_dir == tmp_path / "runs" / "exp"
    assert {path.name for path in summary.save_dir.iterdir()} == names
    assert {path.name for path in summary.files} == names
    for file in summary.save_dir.glob("*.png"):
        image = cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_COLOR)
        assert min(image.shape[:2]) > 400, file
    assert "No attention gate in yolov5n (untrained); the gates of the other models are drawn" in caplog.text
    assert "Effective receptive field: side of the centred square" in caplog.text

    fields = rows_of(summary.save_dir / "erf.csv")
    assert [(row["model"], row["layer"], row["stride"]) for row in fields] == [
        ("yolov5n (untrained)", "layer 9: SPPF", "32"),
        ("yolov5n-LSKA (untrained)", "layer 10: LSKA", "32"),
    ]
    for row, (made,) in zip(fields, summary.fields, strict=True):
        assert (row["height"], row["width"]) == ("64", "64")
        for share, extent in zip((50, 90, 99), made.field.extents, strict=True):
            assert int(row[f"side_{share}"]) == extent.side
            assert int(row[f"area_{share}"]) == extent.area <= extent.square
            assert float(row[f"area_fraction_{share}"]) == pytest.approx(extent.area / 64**2, abs=1e-6)
            assert float(row[f"square_fraction_{share}"]) == pytest.approx(extent.square / 64**2, abs=1e-6)

    gates = rows_of(summary.save_dir / "gates.csv")
    assert [(row["picture"], row["block"]) for row in gates] == [
        ("a é.jpg", "layer 10: LSKA, k = 11"),
    ]
    assert {row["map_mean"] for row in gates} == {"1"}
    assert {row["mean_change"] for row in gates} == {"0"}


def test_gates_of_trained_models_side_by_side(tmp_path: Path) -> None:
    files = [
        checkpoint(tmp_path / f"{run}/weights/best.pt", GATED, bias) for run, bias in (("x", 2), ("y", 3))
    ]
    summary = draw(tmp_path, weights=files, kind="gate", max_images=1)
    assert {path.name for path in summary.save_dir.iterdir()} == {"gates.csv", "gates_a.png"}
    found = [(row["model"], row["lowest"], row["highest"]) for row in rows_of(summary.save_dir / "gates.csv")]
    assert found == [("x/best", "2", "2"), ("y/best", "3", "3")]


def test_a_gate_is_drawn_at_its_position(tmp_path: Path, monkeypatch: Any) -> None:
    from models.attention.lska import LSKA

    def corner(self: LSKA, x: torch.Tensor) -> torch.Tensor:
        factors = torch.ones_like(x)
        factors[..., 0, -1] = 5
        return factors

    monkeypatch.setattr(LSKA, "attention", corner)
    source = make_image_file(tmp_path / "a.png", 128, 128)
    summary = visualize.run(cfg=GATED, source=source, kind="gate", imgsz=128, project=tmp_path, device="cpu")
    image = cv2.imread(str(summary.save_dir / "gates_a.png")).astype(int)
    yellow = (image[..., 2] > 150) & (image[..., 1] > 150) & (image[..., 0] < 130)  # viridis, upper end
    panels = yellow[:, : int(image.shape[1] * 0.93)]  # without the colour bar
    rows, columns = panels.nonzero()
    assert columns.min() > image.shape[1] * 0.7  # of the right panel the right ...
    assert rows.max() < image.shape[0] * 0.5  # ... upper corner


def test_several_layers_and_labels(tmp_path: Path) -> None:
    flags = {"kind": ["erf", "cam"], "layer": ["backbone", 4], "method": "eigencam"}
    summary = draw(tmp_path, cfg=[PLAIN, GATED], labels=["before $x$", "_after"], max_images=1, **flags)
    assert {path.name for path in summary.files} == {"erf.png", "erf.csv", "cam_a.png"}
    found = [(row["model"], row["layer"]) for row in rows_of(summary.save_dir / "erf.csv")]
    assert found == [
        *(("before $x$", f"layer {layer}") for layer in ("9: SPPF", "4: C3")),
        *(("_after", f"layer {layer}") for layer in ("10: LSKA", "4: C3")),
    ]


def test_the_mean_is_over_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visualizers, "draw_fields", lambda *_: None)
    cv2.imwrite(str(tmp_path / "x.png"), np.full((64, 64, 3), 30, np.uint8))
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "y.png"), noise)
    common = {"cfg": PLAIN, "kind": "erf", "layer": "p3"}
    one, other, both = (
        draw(tmp_path, source=tmp_path / name, **common).fields[0][0].field.energy
        for name in ("x.png", "y.png", "*.png")
    )
    weight = np.linalg.lstsq(np.stack([one.ravel(), other.ravel()], 1), both.ravel(), rcond=None)[0]
    np.testing.assert_allclose(weight[0] * one + weight[1] * other, both, atol=1e-12)
    assert weight.sum() == pytest.approx(1)
    assert weight.min() > 0


def test_runs_are_numbered_and_frames_of_a_video_are_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visualizers, "draw_heat", lambda *arguments: arguments[-1].write_text("drawn"))
    clip = video(tmp_path / "clip.mp4", frames=9)
    common = {"cfg": PLAIN, "source": clip, "kind": "cam", "max_images": 2, "vid_stride": 3}
    summaries = [draw(tmp_path, **common) for _ in range(2)]
    assert [summary.save_dir.name for summary in summaries] == ["exp", "exp2"]
    assert {path.name for path in summaries[0].save_dir.iterdir()} == {"cam_clip_1.png", "cam_clip_2.png"}
    assert draw(tmp_path, **common, exist_ok=True).save_dir.name == "exp"


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"cfg": PLAIN, "kind": "gate"}, r"--kind gate: no attention gate in yolov5n \(untrained\)"),
        ({"cfg": PLAIN, "layer": "p9"}, "--layer p9"),
        ({"cfg": PLAIN, "classes": 80}, "--classes 80: the classes of .* are 0-79"),
        ({"cfg": PLAIN, "classes": -1}, "--classes -1"),
        ({"cfg": PLAIN, "labels": ["a", "b"]}, "--labels a b: expected as many labels as models, 1"),
        ({"cfg": PLAIN, "kind": "erv"}, "--kind erv: expected one of erf, gate, cam"),
        ({"cfg": PLAIN, "max_images": 0}, "--max-images 0"),
        ({"cfg": PLAIN, "conf_thres": 2}, "--conf-thres 2"),
        ({"weights": "nowhere.pt"}, "--weights nowhere.pt"),
        ({"weights": "a.onnx"}, "a.onnx: ONNX files .* give the .pt file"),
        ({"cfg": PLAIN, "source": "nowhere"}, "--source nowhere"),
    ],
)
def test_invalid_options_are_errors_before_a_folder_is_made(
    flags: dict[str, Any], named: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=named):
        draw(tmp_path, **flags)
    assert not (tmp_path / "runs").exists()


def run_script(*words: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, str(ROOT / "visualize.py"), *map(str, words)]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_the_command_line(tmp_path: Path) -> None:
    file = make_image_file(tmp_path / "a.jpg")
    words = ("--cfg", GATED, "--source", file, "--img", 64, "--project", tmp_path, "--name", "seen")
    done = run_script(*words, "--device", "cpu", "--kind", "gate")
    assert done.returncode == 0, done.stderr
    assert f"2 files saved to {tmp_path / 'seen'}" in done.stdout
    assert {path.name for path in (tmp_path / "seen").iterdir()} == {"gates.csv", "gates_a.png"}


@pytest.mark.parametrize(
    ("words", "status", "named"),
    [
        (["--kind", "all"], 2, "--kind"),
        (["--cfg", PLAIN, "--source", "tests"], 1, "tests"),
    ],
)
def test_errors_are_one_line(words: list[str], status: int, named: str, tmp_path: Path) -> None:
    done = run_script("--project", tmp_path / "runs", *words)
    assert done.returncode == status
    assert len(done.stderr.splitlines()) == 1
    assert named in done.stderr
    assert not (tmp_path / "runs").exists()


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, visualize; from utils.base.options import build_parser;"
        "build_parser(visualize.VisualizeOptions).format_help();"
        "print([name for name in ('torch', 'cv2', 'numpy', 'yaml', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
