"""A model as some runtimes want it: images with their channels last, or boxes already thinned out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from utils.export.export_options import ExportOptions
from utils.ops.boxes import xywh2xyxy


class ChannelsLast(nn.Module):
    """TensorFlow's way: images (B, H, W, 3); boxes as fractions of the image, which suits 8 bits.

    Args:
        model: (B, 3, H, W) -> ((B, N, 5 + nc) decoded,)
        size_hw: of the images.
    """

    def __init__(self, model: nn.Module, size_hw: tuple[int, int]) -> None:
        super().__init__()
        self.model = model
        height, width = size_hw
        self.scale: Tensor
        self.register_buffer("scale", torch.tensor([width, height, width, height]).float().reciprocal())

    def forward(self, images: Tensor) -> Tensor:
        decoded = self.model(images.permute(0, 3, 1, 2))[0]
        return torch.cat((decoded[..., :4] * self.scale, decoded[..., 4:]), -1)


class Suppressed(nn.Module):
    """A model that ends in ONNX's NonMaxSuppression, which ONNX Runtime, OpenVINO and TensorRT know.

    Shape:
        (B, 3, H, W) -> (B, K, 6) xyxy in pixels, score, class; best first, filled up with zeros to K
    """

    def __init__(self, model: nn.Module, options: ExportOptions) -> None:
        super().__init__()
        self.model = model
        self.options = options

    def forward(self, images: Tensor) -> Tensor:
        o = self.options
        decoded = self.model(images)[0].float()
        boxes = xywh2xyxy(decoded[..., :4])
        scores, classes = (decoded[..., 5:] * decoded[..., 4:5]).max(-1)
        if o.agnostic_nms:
            columns = scores[:, None]
        else:  # a box competes in its best class alone, as in detect.py
            columns = scores[:, None] * (classes[:, None] == torch.arange(len(o.names)).view(1, -1, 1))
        kept = _NonMaxSuppression.apply(boxes, columns, o.topk_per_class, o.iou_thres, o.conf_thres)
        image, column, box = kept.unbind(1)
        left = torch.zeros_like(columns).index_put((image, column, box), columns[image, column, box])
        # Columns of zeros behind, lest there are fewer boxes than K.
        best, places = nn.functional.pad(left.flatten(1), (0, o.topk_all)).topk(o.topk_all)
        places = places % boxes.shape[1]
        rows = boxes.gather(1, places[..., None].expand(-1, -1, 4))
        kinds = classes.gather(1, places).to(rows.dtype)
        found = torch.cat((rows, best[..., None], kinds[..., None]), -1)
        return found * (best > 0)[..., None]


class _NonMaxSuppression(torch.autograd.Function):
    """The operator of ONNX; in PyTorch a stand-in that is good for tracing alone."""

    @staticmethod
    def forward(ctx: Any, boxes: Tensor, scores: Tensor, most: int, iou: float, conf: float) -> Tensor:
        return torch.zeros((1, 3), dtype=torch.int64)

    @staticmethod
    def symbolic(g: Any, boxes: Any, scores: Any, most: int, iou: float, conf: float) -> Any:
        def constant(value: float, dtype: torch.dtype) -> Any:
            return g.op("Constant", value_t=torch.tensor([value], dtype=dtype))

        limits = (
            constant(most, torch.int64), constant(iou, torch.float32), constant(conf, torch.float32)
        )  # fmt: skip
        return g.op("NonMaxSuppression", boxes, scores, *limits)
