"""The segmentation task: boxes with masks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from utils.tasks.segment.rasterize import MaskFormat
from utils.tasks.task import Task

if TYPE_CHECKING:
    from collections.abc import Mapping

    from utils.tasks.segment.loss import SegmentationLoss
    from utils.tasks.segment.options import SegmentTrainOptions, SegmentValOptions
    from utils.tasks.segment.predictor import SegmentPredictor
    from utils.tasks.segment.validation import SegmentEvaluator

# YOLOv5's val.py shrinks full-size masks; a pixel is set if more than half of those that it shows are.
MORE_THAN_HALF = 0.51


class SegmentTask(Task):
    """Instance segmentation: the columns, flags and numbers of YOLOv5's segment/*.py."""

    name = "segment"
    noun = "segmentation model"
    scripts = ("segment/train.py", "segment/val.py", "segment/predict.py")
    losses = ("box_loss", "seg_loss", "obj_loss", "cls_loss")
    score_names = ("mAP50 of boxes + masks", "mAP50-95 of boxes + masks")
    metrics = tuple(f"{name}({kind})" for kind in "BM" for name in Task.metrics)

    def train_options(self) -> type[SegmentTrainOptions]:
        from utils.tasks.segment.options import SegmentTrainOptions

        return SegmentTrainOptions

    def val_options(self) -> type[SegmentValOptions]:
        from utils.tasks.segment.options import SegmentValOptions

        return SegmentValOptions

    def make_loss(self, model: Any, gains: Mapping[str, float], options: Any) -> SegmentationLoss:
        from utils.tasks.segment.loss import SegmentationLoss

        overlap = not options.no_overlap
        return SegmentationLoss(model.head.anchors, model.stride, model.nc, gains, overlap=overlap)

    def mask_format(self, options: Any, training: bool, ratio: int) -> MaskFormat:
        if training:
            chosen = options.mask_ratio if "mask_ratio" in options.given else ratio
            return MaskFormat(chosen, not options.no_overlap)
        if options.mask_size == "full":
            return MaskFormat(1, overlap=False)
        return MaskFormat(ratio, overlap=False, least=MORE_THAN_HALF)

    def predictor(self) -> type[SegmentPredictor]:
        from utils.tasks.segment.predictor import SegmentPredictor

        return SegmentPredictor

    def evaluator(self) -> type[SegmentEvaluator]:
        from utils.tasks.segment.validation import SegmentEvaluator

        return SegmentEvaluator
