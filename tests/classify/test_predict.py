"""classify/predict.py end to end."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from models.weights import model_record, save_checkpoint
from models.yolo import make_model
from tests.classify.small import SMALL, predicted, read_csv
from tests.known import fill
from tests.utils.sources.test_source import make_image_file, video
from utils.data.shapes import NAMES
from utils.train.run_dir import TrainResult


def assert_best_first(folder: Path, stems: list[str]) -> None:
    """Check text files of `stems` and the table: five classes each, the most probable first."""
    assert sorted(path.stem for path in (folder / "labels").iterdir()) == sorted(stems)
    head, *rows = read_csv(folder / "predictions.csv")
    assert head == ["Image Name", "Rank", "Class", "Prediction", "Probability"]
    assert len(rows) == 5 * len(stems)
    for number, stem in enumerate(dict.fromkeys(Path(row[0]).stem for row in rows)):
        own = rows[5 * number : 5 * number + 5]
        assert [row[1] for row in own] == ["1", "2", "3", "4", "5"]
        values = [float(row[4]) for row in own]
        assert values == sorted(values, reverse=True) and sum(values) == pytest.approx(1, abs=1e-4)
        assert all(sorted(NAMES)[int(row[2])] == row[3] for row in own)
        lines = (folder / "labels" / f"{stem}.txt").read_text(encoding="utf-8").splitlines()
        assert lines == [f"{value:.2f} {row[3]}" for value, row in zip(values, own, strict=True)]


def test_an_image_is_classified(trained: TrainResult, home: Path, tmp_path: Path) -> None:
    image = next((home / "set/val/star").iterdir())
    summary = predicted(trained.best, image, tmp_path)
    assert (summary.frames, summary.label_files) == (1, 1)
    assert_best_first(summary.save_dir, [image.stem])
    drawn, plain = cv2.imread(str(summary.save_dir / image.name)), cv2.imread(str(image))
    assert drawn.shape == plain.shape


def test_the_text_is_drawn_on_images_that_are_large_enough(trained: TrainResult, tmp_path: Path) -> None:
    image = make_image_file(tmp_path / "grey.png", 240, 320)
    summary = predicted(trained.best, image, tmp_path)
    drawn = cv2.imread(str(summary.save_dir / "grey.png")).astype(int)
    changed = np.argwhere(np.abs(drawn - 90).max(2) > 0)
    assert len(changed) and changed.min(0).min() > 20
    assert drawn.max() > 240 and drawn.min() < 10, "white with a dark edge"


def test_a_folder_and_a_video_are_classified(trained: TrainResult, tmp_path: Path) -> None:
    for name in ("b.jpg", "a b.png", "ünï.webp"):
        make_image_file(tmp_path / "in" / name)
    video(tmp_path / "in/clip.mp4", frames=3)
    summary = predicted(trained.best, tmp_path / "in", tmp_path)
    folder = summary.save_dir
    assert summary.frames == 6
    assert_best_first(folder, ["a b", "b", "ünï", "clip_1", "clip_2", "clip_3"])
    assert {path.name for path in folder.iterdir() if path.is_file()} == {
        "a b.png", "b.jpg", "ünï.webp", "clip.mp4", "predictions.csv"
    }  # fmt: skip
    film = cv2.VideoCapture(str(folder / "clip.mp4"))
    assert film.get(cv2.CAP_PROP_FRAME_COUNT) == 3


def test_equal_images_get_equal_results_in_any_batch(
    trained: TrainResult, home: Path, tmp_path: Path
) -> None:
    found = []
    for size in (1, 8):
        summary = predicted(trained.best, home / "set/val/*/*.jpg", tmp_path, batch_size=size, nosave=True)
        found.append(read_csv(summary.save_dir / "predictions.csv"))
    assert [row[:2] for row in found[0]] == [row[:2] for row in found[1]]
    values = [[float(row[4]) for row in rows[1:]] for rows in found]
    assert values[0] == pytest.approx(values[1], abs=1e-4)


def test_a_second_run_replaces_its_labels(trained: TrainResult, tmp_path: Path) -> None:
    image = make_image_file(tmp_path / "one.png")
    for _ in range(2):
        summary = predicted(trained.best, image, tmp_path, exist_ok=True)
    assert len((summary.save_dir / "labels/one.txt").read_text().splitlines()) == 5


def test_each_image_is_logged_with_its_classes(
    trained: TrainResult, tmp_path: Path, logged: list[str]
) -> None:
    predicted(trained.best, make_image_file(tmp_path / "one.png"), tmp_path)
    line = next(line for line in logged if line.startswith("image 1/1"))
    path, rest = line.removeprefix("image 1/1 ").split(": ")
    assert path == str(tmp_path / "one.png") and rest.startswith("32x32 ")
    words = rest.removeprefix("32x32 ").split(", ")
    assert len(words) == 6 and words[-1].endswith("ms")
    assert {word.split()[0] for word in words[:-1]} == set(NAMES)


def test_a_model_of_two_classes_gives_two(tmp_path: Path) -> None:
    model = make_model({**SMALL, "nc": 2})
    fill(model, 1)
    model.names = {0: "no", 1: "yes"}
    save_checkpoint(tmp_path / "two.pt", {"model": model_record(model)})
    summary = predicted(tmp_path / "two.pt", make_image_file(tmp_path / "one.png"), tmp_path)
    assert len(read_csv(summary.save_dir / "predictions.csv")) == 3
