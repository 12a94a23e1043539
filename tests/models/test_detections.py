from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from models.autoshape import AutoShape, Detections
from tests.known import pattern_image
from tests.models.backends.files import tiny_model
from utils.base.errors import ConfigError
from utils.base.timing import Stopwatch

NAMES = {0: "cell", 1: "red/plate"}
ROWS = [
    [10.0, 20.0, 30.0, 60.0, 0.875, 1.0],
    [0.0, 0.0, 80.0, 40.0, 0.5, 0.0],
    [5.0, 5.0, 15.0, 25.0, 0.25, 0.0],
]


@pytest.fixture
def results() -> Detections:
    """Three boxes in an image 100 px wide and 80 px high, none in another of the same name."""
    ims = [pattern_image(80, 100), pattern_image(50, 40)]
    clocks = [Stopwatch() for _ in range(3)]
    clocks[1].total = 0.04
    pred = [torch.tensor(ROWS), torch.zeros(0, 6)]
    return Detections(ims, pred, ["a.jpg", "a.jpg"], clocks, NAMES, (2, 3, 64, 64))


def test_boxes_in_four_formats(results: Detections) -> None:
    assert results.xyxy is results.pred
    assert results.xywh[0][0].tolist() == [20, 40, 20, 40, 0.875, 1]
    torch.testing.assert_close(results.xyxyn[0][0], torch.tensor([0.1, 0.25, 0.3, 0.75, 0.875, 1]))
    torch.testing.assert_close(results.xywhn[0][0], torch.tensor([0.2, 0.5, 0.2, 0.5, 0.875, 1]))
    for boxes in (results.xyxy, results.xywh, results.xyxyn, results.xywhn):
        assert [len(rows) for rows in boxes] == [3, 0]


def test_it_is_a_sequence_of_one_per_image(results: Detections) -> None:
    assert (len(results), results.n, results.s) == (2, 2, (2, 3, 64, 64))
    assert results.t == pytest.approx((0, 20, 0))
    first, second = results
    assert (len(first), len(first.xyxy[0]), len(second.xyxy[0])) == (1, 3, 0)
    assert first.t == results.t
    assert [len(one.pred[0]) for one in results.tolist()] == [3, 0]
    assert len(results[-1].pred[0]) == 0


def test_print_lists_counts_by_class_and_speed(
    results: Detections, capsys: pytest.CaptureFixture[str]
) -> None:
    results.print()
    assert capsys.readouterr().out.splitlines() == [
        "image 1/2: 80x100 2 cells, 1 red/plate",
        "image 2/2: 50x40 (no detections)",
        "Speed: 0.0ms pre-process, 20.0ms inference, 0.0ms NMS per image at shape (2, 3, 64, 64)",
    ]
    assert repr(results) == "<Detections 2 images, 3 boxes>"


def test_render_draws_into_ims_but_not_into_the_given_arrays(results: Detections) -> None:
    given = list(results.ims)
    before = [image.copy() for image in given]
    bare = results.render(labels=False)
    drawn = results.render()
    for image, after, array, kept in zip(drawn, results.ims, given, before, strict=True):
        assert image is after and results.imgs is results.ims
        np.testing.assert_array_equal(array, kept)
    assert (drawn[0] != before[0]).any() and (bare[0] != drawn[0]).any()
    np.testing.assert_array_equal(drawn[1], before[1])
    assert drawn[0][60, 20].tolist() == [11, 219, 235]  # colour of class 1, in RGB


def test_what_follows_render_is_made_from_the_original_images(results: Detections, tmp_path: Path) -> None:
    before = [image.copy() for image in results.ims]
    crops, saved = results.crop(save=False), results.save(save_dir=tmp_path / "before", labels=False)
    drawn = results.render()
    for old, new in zip(crops, results.crop(save=False), strict=True):
        np.testing.assert_array_equal(old["im"], new["im"])
    after = results.save(save_dir=tmp_path / "after", labels=False)
    assert (after / "a.jpg").read_bytes() == (saved / "a.jpg").read_bytes()

    single = results[0]
    np.testing.assert_array_equal(single.ims[0], drawn[0])
    np.testing.assert_array_equal(single.render()[0], drawn[0])
    np.testing.assert_array_equal(single.crop(save=False)[0]["im"], crops[0]["im"])
    results.ims[0] = 255 - before[0]  # an image that the caller has changed is used as it is
    assert (results.crop(save=False)[0]["im"] != crops[0]["im"]).any()
    np.testing.assert_array_equal(results.original(1), before[1])


def test_saving_never_overwrites(results: Detections, tmp_path: Path) -> None:
    first = results.save(save_dir=tmp_path / "exp")
    second = results.save(save_dir=tmp_path / "exp", labels=False)
    third = results.save(save_dir=tmp_path / "exp", exist_ok=True)
    assert [folder.name for folder in (first, second, third)] == ["exp", "exp2", "exp"]
    assert sorted(file.name for file in first.iterdir()) == ["a.jpg", "a2.jpg"]
    saved = cv2.imread(str(first / "a.jpg"))[..., ::-1].astype(int)
    assert abs(saved - results.render()[0]).mean() < 12  # JPEG


def test_crops_have_a_margin_and_a_folder_per_class(results: Detections, tmp_path: Path) -> None:
    crops = results.crop(save_dir=tmp_path / "exp")
    assert [crop["label"] for crop in crops] == ["red/plate 0.88", "cell 0.50", "cell 0.25"]
    assert crops[0]["box"].tolist() == [10, 20, 30, 60]
    assert (float(crops[0]["conf"]), int(crops[0]["cls"])) == (0.875, 1)
    y, x = crops[0]["im"].shape[:2]
    assert 40 < y < 60 and 20 < x < 40
    files = sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*.jpg"))
    assert files == ["exp/crops/cell/a.jpg", "exp/crops/cell/a2.jpg", "exp/crops/red_plate/a.jpg"]

    assert len(results.crop(save=False, save_dir=tmp_path / "other")) == 3
    assert not (tmp_path / "other").exists()


def test_tables_have_the_columns_of_the_original(results: Detections) -> None:
    tables = results.pandas()
    corners = ["xmin", "ymin", "xmax", "ymax", "confidence", "class", "name"]
    centres = ["xcenter", "ycenter", "width", "height", "confidence", "class", "name"]
    for frames, columns in (
        (tables.xyxy, corners),
        (tables.xyxyn, corners),
        (tables.xywh, centres),
        (tables.xywhn, centres),
    ):
        assert [list(frame.columns) for frame in frames] == [columns, columns]
        assert [len(frame) for frame in frames] == [3, 0]
        assert all(frame["class"].dtype.kind == "i" for frame in frames)
    assert tables.xyxy[0].iloc[0].tolist() == [10, 20, 30, 60, 0.875, 1, "red/plate"]
    assert tables.xywh[0]["name"].value_counts()["cell"] == 2
    assert '"name":"cell"' in tables.xyxy[0].to_json(orient="records")


def test_supervision_gets_one_object_per_image(results: Detections) -> None:
    sv = pytest.importorskip("supervision")
    found = results.to_supervision()
    assert [len(one) for one in found] == [3, 0]
    assert found[0].class_id.tolist() == [1, 0, 0]
    assert found[0].data["class_name"].tolist() == ["red/plate", "cell", "cell"]
    np.testing.assert_array_equal(found[0].xyxy, results.pred[0][:, :4].numpy())
    theirs = sv.Detections.from_yolov5(results)  # its own reader of the original's results
    np.testing.assert_array_equal(theirs.xyxy, found[0].xyxy)
    assert len(found[0][found[0].confidence > 0.4]) == 2


@pytest.mark.parametrize("package", ["pandas", "supervision"])
def test_a_missing_package_is_named(
    results: Detections, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(ConfigError, match=f"pip install {package}"):
        results.pandas() if package == "pandas" else results.to_supervision()


def test_show_without_a_screen_is_an_error(results: Detections, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(ConfigError, match=r"no screen here; use results.save\(\)"):
        results.show()


def test_show_without_opencv_windows_is_an_error(
    results: Detections, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise cv2.error("not implemented")

    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(cv2, "imshow", fail)
    with pytest.raises(ConfigError, match="cannot show windows"):
        results.show()


def test_detections_can_be_changed_in_place() -> None:
    model = AutoShape(tiny_model())
    model.conf = 0.01
    results = model(pattern_image(64, 64), size=64)
    results.pred[0][:, :4] += 1
    assert not results.pred[0].requires_grad
    assert isinstance(results.names, dict) and builtins.len(results) == 1
