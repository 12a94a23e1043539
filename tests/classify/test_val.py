"""classify/val.py and classify/predict.py: the accuracies, logits and text files of the original."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from classify import predict
from classify import val as classify_val
from models.backends import load_backend
from models.weights import model_record, save_checkpoint
from models.yolo import make_model
from tests.known import SHARED, fill, golden, needs_shared, to_tensor
from tests.utils.tasks.classify.folders import make_folders
from utils.base.errors import ConfigError, DataError
from utils.tasks.classify.transforms import center_crop, normalize
from utils.tasks.classify.validation import ClassifyResult

KNOWN: dict[str, Any] = golden("15_classify_val")
WEIGHTS = SHARED / "weights" / KNOWN["weights"]
CELLS = SHARED / "data" / "cells"
RUNS: dict[str, dict[str, Any]] = {run["name"]: run for run in KNOWN["runs"]}


def measured(folder: Path, **options: Any) -> ClassifyResult:
    return classify_val.run(**{"device": "cpu", "workers": 0, "project": folder, **options})


@needs_shared
@pytest.mark.parametrize("name", RUNS)
def test_accuracies_equal_the_original_by_class_too(name: str, tmp_path: Path) -> None:
    run = RUNS[name]
    result = measured(tmp_path, weights=WEIGHTS, data=CELLS, imgsz=run["imgsz"], batch_size=run["batch_size"])
    one = 1 / result.seen + 1e-9  # an image whose two best logits are close may differ
    assert (result.top1, result.top5) == pytest.approx((run["top1"], run["top5"]), abs=one)
    assert [*result.names.values()] == [*run["per_class"]]
    for index, known in enumerate(run["per_class"].values()):
        assert result.label_counts[index] == known["images"]
        gap = 1 / known["images"] + 1e-9
        assert result.by_class[index] == pytest.approx([known["top1"], known["top5"]], abs=gap)


@needs_shared
@pytest.mark.parametrize("size", [96, 64])
def test_logits_equal_the_original(size: int) -> None:
    known = KNOWN[f"logits_{size}"]
    backend = load_backend([str(WEIGHTS)], torch.device("cpu"))
    images = np.stack([center_crop(cv2.imread(str(CELLS / name)), size) for name in known])
    with torch.inference_mode():
        logits = backend(normalize(to_tensor(images)))
    np.testing.assert_allclose(logits.numpy(), [*known.values()], atol=1e-3)


@needs_shared
def test_labels_of_predict_equal_the_original(tmp_path: Path) -> None:
    known = KNOWN["predict_txt_img96"]
    files = [next(CELLS.rglob(f"val/*/{Path(name).stem}.jpg")) for name in known]
    (tmp_path / "files.txt").write_text("".join(f"{file}\n" for file in files))
    summary = predict.run(
        weights=WEIGHTS, source=tmp_path / "files.txt", imgsz=96, device="cpu", save_txt=True, nosave=True,
        project=tmp_path,
    )  # fmt: skip
    labels = summary.save_dir / "labels"
    assert {path.name: path.read_text().splitlines() for path in labels.iterdir()} == known


@needs_shared
def test_a_missing_class_folder_does_not_change_the_numbers_of_the_others(tmp_path: Path) -> None:
    known = KNOWN["missing_class_folder"]
    assert "nucleus_on_violet" in known["note"]
    shutil.copytree(CELLS / "val", tmp_path / "cells/val")
    shutil.rmtree(tmp_path / "cells/val/nucleus_on_violet")
    result = measured(tmp_path, weights=WEIGHTS, data=tmp_path / "cells", imgsz=96, batch_size=32)
    # The original numbers the folders by their order: of five classes one is right.
    assert known["top1"] == 0.2
    assert (result.top1, result.top5, result.seen) == (1, 1, 150)
    assert np.isnan(result.by_class[1]).all() and result.label_counts.tolist() == [30, 0, 30, 30, 30, 30]


@needs_shared
def test_official_classifiers_have_their_names_and_modules() -> None:
    backend = load_backend([str(WEIGHTS)], torch.device("cpu"))
    assert backend.task == "classify" and [*backend.names.values()] == [*RUNS["val96"]["per_class"]]


NAMES = {0: "cat", 1: "dog", 2: "owl"}
TINY: dict[str, Any] = {
    "nc": 3,
    "depth_multiple": 1.0,
    "width_multiple": 0.25,
    "backbone": [[-1, 1, "Conv", [32, 6, 4, 2]], [-1, 1, "C3", [32]]],
    "head": [[-1, 1, "Classify", ["nc"]]],
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small classifier of three classes."""
    model = make_model(TINY)
    fill(model, 4)
    model.names = dict(NAMES)
    path = tmp_path_factory.mktemp("weights") / "tiny-cls.pt"
    save_checkpoint(path, {"model": model_record(model)})
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_folders(tmp_path / "pets", val={"cat": 3, "owl": 2}, train={"cat": 1, "dog": 1, "owl": 1})


def small(weights: Path, data: Path, **more: Any) -> dict[str, Any]:
    return {"weights": weights, "data": data, "imgsz": 32, "batch_size": 2, **more}


def test_a_run_writes_its_files_and_rows_by_class(
    weights: Path, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        result = measured(tmp_path / "runs", **small(weights, data))
    folder = tmp_path / "runs" / "exp"
    assert {"predictions.csv", "confusion_matrix.png", "val_batch0_pred.jpg"} <= {
        path.name for path in folder.iterdir()
    }
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == ["cat"] * 3 + ["owl"] * 2
    assert np.mean([row["top1"] == row["class"] for row in rows]) == pytest.approx(result.top1)
    assert result.seen == 5 and result.top5 == 1


def test_verbose_false_leaves_out_the_rows_by_class(
    weights: Path, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    found = []
    for verbose in (True, "False"):
        measured(tmp_path, **small(weights, data, verbose=verbose))
        written = "".join(capfd.readouterr())
        found.append(
            [line.split()[0] for line in written.splitlines() if line.split()[1:2] in (["0"], ["3"])]
        )
    assert found == [["cat", "dog"], []]


def test_options_of_the_original_are_positional(weights: Path, data: Path, tmp_path: Path) -> None:
    keywords = {"imgsz": 32, "batch_size": 2, "device": "cpu", "project": tmp_path}
    top1, top5, loss = classify_val.run(str(data), str(weights), **keywords)
    named = classify_val.run(data=data, weights=weights, **keywords)
    assert (top1, top5) == named.metrics and loss == 0


@pytest.mark.parametrize("split", ["train", "val"])
def test_other_splits_are_measured(split: str, weights: Path, data: Path, tmp_path: Path) -> None:
    result = measured(tmp_path, **small(weights, data, task=split))
    assert result.seen == {"train": 3, "val": 5}[split]


def test_a_split_that_does_not_exist_is_an_error(weights: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--task test: .*pets has no folder 'test'"):
        measured(tmp_path, **small(weights, data, task="test"))


def test_task_speed_writes_nothing(weights: Path, data: Path, tmp_path: Path) -> None:
    result = measured(tmp_path / "runs", **small(weights, data, task="speed"))
    assert min(result.speeds) > 0 and not (tmp_path / "runs").exists()


def test_an_unknown_class_folder_is_named(weights: Path, data: Path, tmp_path: Path) -> None:
    make_folders(data, val={"fish": 1})
    with pytest.raises(ConfigError, match="fish is not a class of the model, which has 3: cat, dog, owl"):
        measured(tmp_path, **small(weights, data))


def test_a_dataset_without_images_is_an_error(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        measured(tmp_path, **small(weights, make_folders(tmp_path / "none", val={"cat": 0})))


@pytest.mark.parametrize("imgsz", [33, 48, 31])
def test_any_image_size_is_measured_as_it_is_trained(
    imgsz: int, weights: Path, data: Path, tmp_path: Path
) -> None:
    assert measured(tmp_path, **small(weights, data) | {"imgsz": imgsz}).seen == 5
