"""Wrap a model for runtimes that need channels-last images, or that run NMS themselves."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from utils.export.export_settings import ExportSettings
from utils.ops.boxes import xywh2xyxy


class ChannelsLast(nn.Module):
    """A model with TensorFlow's layout: images (B, H, W, 3) in, boxes normalized to 0-1 out.

    Args:
        model: (B, 3, H, W) -> ((B, N, 5 + nc) decoded,), and mask prototypes, which stay as they are; or
            logits, which stay as they are.
        size_hw: of the images.
        boxes: whether the model returns boxes.
    """

    def __init__(self, model: nn.Module, size_hw: tuple[int, int], boxes: bool = True) -> None:
        super().__init__()
        self.model = model
        self.boxes = boxes
        height, width = size_hw
        self.scale: Tensor
        self.register_buffer("scale", torch.tensor([width, height, width, height]).float().reciprocal())

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        output = self.model(images.permute(0, 3, 1, 2))
        if not self.boxes:
            logits: Tensor = output
            return logits
        decoded, *protos = output
        boxes = torch.cat((decoded[..., :4] * self.scale, decoded[..., 4:]), -1)
        return (boxes, protos[0]) if protos else boxes


class WithNMS(nn.Module):
    """A model that ends in ONNX's NonMaxSuppression, which ONNX Runtime, OpenVINO and TensorRT support.

    Shape:
        (B, 3, H, W) -> (B, K, 6) xyxy in pixels, score, class; best first, padded with zeros to K.
        A segmentation model: (B, K, 6 + nm), with mask coefficients times objectness, and the prototypes
    """

    def __init__(self, model: nn.Module, settings: ExportSettings) -> None:
        super().__init__()
        self.model = model
        self.settings = settings

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        s = self.settings
        decoded, *protos = self.model(images)
        decoded = decoded.float()
        boxes, end = xywh2xyxy(decoded[..., :4]), 5 + len(s.names)
        scores, classes = (decoded[..., 5:end] * decoded[..., 4:5]).max(-1)
        if s.agnostic_nms:
            columns = scores[:, None]
        else:  # a box competes in its best class only, as in detect.py
            columns = scores[:, None] * (classes[:, None] == torch.arange(len(s.names)).view(1, -1, 1))
        kept = _NonMaxSuppression.apply(boxes, columns, s.topk_per_class, s.iou_thres, s.conf_thres)
        image, column, box = kept.unbind(1)
        kept_scores = torch.zeros_like(columns).index_put((image, column, box), columns[image, column, box])
        # Padded with K zeros, in case there are fewer than K scores.
        best, indices = nn.functional.pad(kept_scores.flatten(1), (0, s.topk_all)).topk(s.topk_all)
        indices = indices % boxes.shape[1]
        best_boxes = boxes.gather(1, indices[..., None].expand(-1, -1, 4))
        best_classes = classes.gather(1, indices).to(best_boxes.dtype)
        columns_of_rows = [best_boxes, best[..., None], best_classes[..., None]]
        if protos:
            coefficients = decoded[..., end:] * decoded[..., 4:5]
            chosen = indices[..., None].expand(-1, -1, coefficients.shape[2])
            columns_of_rows.append(coefficients.gather(1, chosen))
        rows = torch.cat(columns_of_rows, -1) * (best > 0)[..., None]
        return (rows, protos[0]) if protos else rows


class _NonMaxSuppression(torch.autograd.Function):
    """ONNX's operator. In PyTorch it returns a dummy result, which suffices for tracing."""

    @staticmethod
    def forward(ctx: Any, boxes: Tensor, scores: Tensor, limit: int, iou: float, conf: float) -> Tensor:
        return torch.zeros((1, 3), dtype=torch.int64)

    @staticmethod
    def symbolic(g: Any, boxes: Any, scores: Any, limit: int, iou: float, conf: float) -> Any:
        def constant(value: float, dtype: torch.dtype) -> Any:
            return g.op("Constant", value_t=torch.tensor([value], dtype=dtype))

        thresholds = (
            constant(limit, torch.int64), constant(iou, torch.float32), constant(conf, torch.float32)
        )  # fmt: skip
        return g.op("NonMaxSuppression", boxes, scores, *thresholds)
