"""The tasks: what differs between detection and segmentation."""

from __future__ import annotations

import pytest

from tests.known import golden
from utils.base.errors import ConfigError
from utils.tasks.segment.options import PredictOptions, SegmentTrainOptions, SegmentValOptions
from utils.tasks.segment.rasterize import MaskFormat
from utils.tasks.segment.task import SegmentTask
from utils.tasks.task import Task, get_task


def test_columns_of_segmentation_equal_the_original() -> None:
    assert list(SegmentTask().columns) == golden("14_segment_metrics")["csv_columns"]


def test_columns_of_detection_equal_the_original() -> None:
    metrics = ("precision", "recall", "mAP_0.5", "mAP_0.5:0.95")
    losses = ("box_loss", "obj_loss", "cls_loss")
    assert Task().columns == (
        "epoch", *(f"train/{name}" for name in losses), *(f"metrics/{name}" for name in metrics),
        *(f"val/{name}" for name in losses), "x/lr0", "x/lr1", "x/lr2",
    )  # fmt: skip


def test_tasks_have_names() -> None:
    assert type(get_task("detect")) is Task
    assert type(get_task("segment")) is SegmentTask
    assert all(get_task(name).name == name for name in ("detect", "segment"))


def test_a_model_of_another_task_is_an_error_that_names_the_script_for_it() -> None:
    SegmentTask().check("segment", "x.pt", "segment/val.py")
    with pytest.raises(
        ConfigError, match=r"x\.pt is a detection model, .* segmentation model: use detect\.py"
    ):
        SegmentTask().check("detect", "x.pt", "segment/predict.py")
    with pytest.raises(ConfigError, match=r"x\.pt is a segmentation model, .*: use segment/val\.py"):
        Task().check("segment", "x.pt", "val.py")


def test_masks_of_the_scripts() -> None:
    task = SegmentTask()
    train = task.mask_format(task.parse_train_options([]), training=True, ratio=4)
    assert train == MaskFormat(ratio=4, overlap=True)
    assert task.mask_format(task.parse_train_options([]), True, ratio=2).ratio == 2  # of a P2 model
    flags = ["--mask-ratio", "2", "--no-overlap"]
    assert task.mask_format(task.parse_train_options(flags), True, ratio=4) == MaskFormat(2, False)
    quarter, full = (
        task.mask_format(SegmentValOptions(mask_size=size), False, ratio=4) for size in ("quarter", "full")
    )
    assert isinstance(quarter, MaskFormat) and (quarter.ratio, quarter.overlap) == (4, False)
    assert full == MaskFormat(1, overlap=False)
    assert Task().mask_format(None, training=True, ratio=4) is None


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        (SegmentTrainOptions, {"quad": True}),
        (SegmentTrainOptions, {"mask_ratio": 0}),
        (SegmentTrainOptions, {"mask_ratio": 64}),
        (SegmentValOptions, {"augment": True}),
        (SegmentValOptions, {"save_hybrid": True}),
        (SegmentValOptions, {"mask_size": "half"}),
        (PredictOptions, {"augment": True}),
        (PredictOptions, {"save_format": 1}),
    ],
)
def test_flags_without_a_meaning_for_masks_are_errors(options: type, flags: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="--" + next(iter(flags)).replace("_", "-")):
        options(**flags)


def test_defaults_are_those_of_the_original() -> None:
    train, val, predict = SegmentTrainOptions(), SegmentValOptions(), PredictOptions()
    assert (train.weights, train.mask_ratio, train.no_overlap) == ("yolov5s-seg.pt", 4, False)
    assert val.weights == predict.weights == ["yolov5s-seg.pt"]
    assert (val.conf_thres, val.iou_thres, val.max_det, val.batch_size) == (0.001, 0.6, 300, 32)
    assert val.data.endswith("coco128-seg.yaml")
    assert (predict.conf_thres, predict.iou_thres, predict.max_det, predict.retina_masks) == (
        0.25, 0.45, 1000, False,
    )  # fmt: skip
    folders = [options.project.rpartition("/")[2] for options in (train, val, predict)]
    assert folders == ["train-seg", "val-seg", "predict-seg"]
