from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.utils.val.fakes import LABELS, NAMES, FakeModel, as_detections, batch
from utils.base.errors import ConfigError
from utils.data.loader import Batch
from utils.loggers.callbacks import Callbacks
from utils.val import outputs
from utils.val.accumulator import EvalResult
from utils.val.coco_truth import CocoTruth
from utils.val.evaluate import EvalConfig, evaluate
from utils.val.outputs import OutputOptions


def run(model: Any, batches: list[Batch], names: dict[int, str] = NAMES, **kwargs: Any) -> EvalResult:
    return evaluate(model, batches, names, device=torch.device("cpu"), **kwargs)


def test_a_perfect_model_gets_the_highest_metrics() -> None:
    result = run(FakeModel([as_detections(LABELS)]), [batch(LABELS)])

    assert (result.seen, result.instances, result.label_counts.tolist()) == (2, 3, [2, 1, 0])
    assert result.mr == 1
    assert result.mp == 1
    assert result.map50 == pytest.approx(0.995)  # the curve falls from 1 to 0 within its last point
    assert result.map == pytest.approx(0.995)
    assert result.fitness() == pytest.approx(0.995)


def test_boxes_are_scaled_to_the_original_image(tmp_path: Path) -> None:
    rows = [[0, 1, 0.5, 0.25, 0.5, 0.25]]
    large = batch(rows, images=1, scale=0.5)  # 128 px, scaled to 64

    run(
        FakeModel([as_detections(rows)]),
        [large],
        outputs=OutputOptions(tmp_path, save_txt=True, save_conf=True),
    )

    text = (tmp_path / "labels" / "000000000000.txt").read_text()
    assert [float(word) for word in text.split()] == pytest.approx([1, 0.5, 0.25, 0.5, 0.25, 0.9])


def test_a_dataset_without_labels_gives_zeros_and_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    result = run(FakeModel([as_detections(LABELS)]), [batch([])])

    assert result.results == (0,) * 7
    assert result.instances == 0
    assert "no labels" in caplog.text


def test_a_dataset_without_images_gives_zeros() -> None:
    assert run(FakeModel([]), []).seen == 0


def test_classes_without_labels_have_map_nan() -> None:
    result = run(FakeModel([[]]), [batch(LABELS)])

    assert np.array_equal(result.maps, [0, 0, np.nan], equal_nan=True)
    assert result.filled_maps.tolist() == [0, 0, 0]
    assert result.ap is None


def test_filled_maps_and_unpacking_give_absent_classes_the_mean() -> None:
    result = run(FakeModel([as_detections(LABELS[:1])]), [batch(LABELS[:1], images=1)])

    assert result.filled_maps == pytest.approx([0.995] * 3)
    (p, r, map50, map_, *losses), maps, speeds = result  # as the original's val.run returns it
    assert (len(losses), len(maps), len(speeds)) == (3, 3, 3)
    assert map_ == result.map


def test_detections_of_classes_without_labels_give_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    stray = [[0, 2, 0.5, 0.5, 0.1, 0.1, 0.95]]

    run(FakeModel([as_detections(LABELS) + stray]), [batch(LABELS)])

    assert "1 detections are of classes without labels" in caplog.text


def test_a_model_with_another_number_of_classes_is_an_error() -> None:
    with pytest.raises(ConfigError, match="5 classes, the dataset 3"):
        run(FakeModel([[]], nc=5), [batch(LABELS)])


def test_single_cls_ignores_the_predicted_class() -> None:
    one_class = [[index, 0, *box] for index, _, *box in LABELS]
    model = FakeModel([as_detections(LABELS)])

    result = run(model, [batch(one_class)], {0: "item"}, config=EvalConfig(single_cls=True))

    assert result.map50 == pytest.approx(0.995)


def test_losses_are_means_over_the_batches() -> None:
    seen: list[tuple[list[Tensor], Tensor]] = []

    def loss(maps: list[Tensor], targets: Tensor) -> tuple[Tensor, Tensor]:
        seen.append((maps, targets))
        return torch.tensor(0.0), torch.tensor([1.0, 2.0, 3.0]) * len(seen)

    result = run(FakeModel([[], []]), [batch(LABELS), batch(LABELS)], loss=loss)

    assert result.losses == (1.5, 3.0, 4.5)
    assert seen[0][0][0].shape == (2, 3, 2, 2, 8)
    assert seen[0][1].tolist() == batch(LABELS).targets.tolist()


def test_training_mode_is_restored_afterwards() -> None:
    model = FakeModel([[]]).train()
    states: list[bool] = []
    model.register_forward_pre_hook(lambda module, _: states.append(module.training))

    run(model, [batch(LABELS)])

    assert (states, model.training) == ([False], True)


def test_the_model_gets_images_in_the_range_0_to_1() -> None:
    model = FakeModel([[]])
    run(model, [batch(LABELS)])
    assert model.inputs[0].dtype == torch.float32
    assert model.inputs[0].unique().tolist() == pytest.approx([100 / 255])


def test_hybrid_label_files_contain_the_true_labels_without_detections(tmp_path: Path) -> None:
    run(
        FakeModel([[]]),
        [batch(LABELS)],
        config=EvalConfig(hybrid=True),
        outputs=OutputOptions(tmp_path, save_txt=True),
    )

    lines = (tmp_path / "labels" / "000000000000.txt").read_text().splitlines()
    assert sorted(line.split()[0] for line in lines) == ["0", "1"]


def test_the_row_of_all_classes_ends_with_the_four_metrics(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    result = run(FakeModel([as_detections(LABELS)]), [batch(LABELS)])

    (row,) = [line.split() for line in caplog.messages if re.match(r"\s*all\s+\d", line)]
    assert row[1:3] == ["2", "3"]
    assert [float(word) for word in row[-4:]] == pytest.approx(result.results[:4], abs=0.001)
    assert [line.split()[:3] for line in caplog.messages if line.split()[0] in NAMES.values()] == [
        ["cell", "2", "2"],
        ["plate", "2", "1"],
    ]


def test_training_logs_classes_only_if_verbose(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    run(
        FakeModel([as_detections(LABELS)]),
        [batch(LABELS)],
        loss=lambda maps, targets: (torch.zeros(1), torch.zeros(3)),
    )
    assert not [line for line in caplog.messages if line.split()[0] == "cell"]


def test_plots_are_written_and_the_batch_is_not_modified(tmp_path: Path) -> None:
    labelled = batch(LABELS)
    before = labelled.images.clone()

    run(FakeModel([as_detections(LABELS)]), [labelled], outputs=OutputOptions(tmp_path, plots=True))

    assert torch.equal(labelled.images, before)
    assert {file.name for file in tmp_path.iterdir()} == {
        "val_batch0_labels.jpg",
        "val_batch0_pred.jpg",
        "confusion_matrix.png",
        "PR_curve.png",
        "P_curve.png",
        "R_curve.png",
        "F1_curve.png",
    }


def test_callbacks_are_called_in_order() -> None:
    events: list[str] = []

    class Recorder(Callbacks):
        def on_val_start(self) -> None:
            events.append("start")

        def on_val_image_end(self, detections: Tensor, path: str) -> None:
            events.append(f"{len(detections)} in {Path(path).stem[-1]}")

        def on_val_end(self, result: Any) -> None:
            events.append(f"end {result.seen}")

    run(FakeModel([as_detections(LABELS)]), [batch(LABELS)], callbacks=Recorder())

    assert events == ["start", "2 in 0", "1 in 1", "end 2"]


def test_scores_of_the_coco_tools_replace_the_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    def coco_scores(*args: Any, **keywords: Any) -> tuple[float, float]:
        calls.append(args)
        return 0.3, 0.5

    monkeypatch.setattr(outputs, "coco_scores", coco_scores)
    truth = CocoTruth(tmp_path / "a.json", {f"/data/images/{i:012d}.jpg": 70 + i for i in (0, 1)}, (1, 9, 3))
    written = OutputOptions(tmp_path, save_json=True, json_stem="m", truth=truth)

    result = run(FakeModel([as_detections(LABELS)]), [batch(LABELS)], outputs=written)

    assert (result.map, result.map50, result.mp) == (0.3, 0.5, 1)
    assert calls == [(tmp_path / "m_predictions.json", truth.file, [70, 71], "bbox")]
    rows = json.loads((tmp_path / "m_predictions.json").read_text())
    assert [row["category_id"] for row in rows] == [1, 9, 1]
