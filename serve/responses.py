"""What goes back: rows of boxes, an image with them, what the server offers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from serve.images import encode_jpeg
from serve.models import Found, InferenceTask, Served
from serve.serve_options import ServeOptions
from utils.base.formats import format_of
from utils.plots.annotator import Annotator, colors

DetectionRow = dict[str, float | int | str]


def rows_of(found: Found, names: Mapping[int, str]) -> list[DetectionRow]:
    """Detections, best first: corners in pixels of the image, confidence, class number and name."""
    rows: list[DetectionRow] = []
    for xmin, ymin, xmax, ymax, confidence, kind in found.rows.tolist():
        row: DetectionRow = {
            "xmin": round(xmin, 3),
            "ymin": round(ymin, 3),
            "xmax": round(xmax, 3),
            "ymax": round(ymax, 3),
        }
        row |= {
            "confidence": round(confidence, 5),
            "class": int(kind),
            "name": names.get(int(kind), str(int(kind))),
        }
        rows.append(row)
    return rows


def detailed(
    served: Served, task: InferenceTask, found: Found, seconds: Mapping[str, float]
) -> dict[str, Any]:
    """Detections with sizes in pixels, thresholds, and milliseconds of each stage."""
    height, width = task.original_hw
    spent = {**seconds, "inference": found.inference, "nms": found.nms}
    return {
        "model": served.name,
        "size": {"width": width, "height": height},
        "input": {"width": task.image.shape[1], "height": task.image.shape[0]},
        "conf": task.params.conf,
        "iou": task.params.iou,
        "batch": found.batch,
        "times_ms": {
            key: round(1e3 * spent[key], 3) for key in ("decode", "queue", "inference", "nms", "total")
        },
        "detections": rows_of(found, served.backend.names),
    }


def annotated(image: np.ndarray, found: Found, names: Mapping[int, str]) -> bytes:
    """The image (H, W, 3) BGR, which is drawn on, with labelled boxes, as a JPEG."""
    annotator = Annotator(np.ascontiguousarray(image))
    for *xyxy, confidence, kind in found.rows[::-1].tolist():  # the best end up on top
        label = f"{names.get(int(kind), int(kind))} {confidence:.2f}"
        annotator.box_label(xyxy, label, colors(int(kind), bgr=True))
    return encode_jpeg(annotator.result())


def offer(models: Mapping[str, Served], options: ServeOptions) -> dict[str, Any]:
    """Models with their classes and colours, defaults of the parameters, limits."""
    return {
        "models": [
            {
                "name": served.name,
                "format": format_of(file).title,
                "imgsz": served.imgsz,
                "fixed_imgsz": served.fixed,
                "classes": [
                    {"class": index, "name": name, "color": "#{:02x}{:02x}{:02x}".format(*colors(index))}
                    for index, name in sorted(served.backend.names.items())
                ],
            }
            for served, file in zip(models.values(), options.weights, strict=True)
        ],
        "defaults": {"conf": options.conf_thres, "iou": options.iou_thres, "max_det": options.max_det},
        "limits": {
            "upload_mb": options.max_upload_mb,
            "megapixels": options.max_megapixels,
            "imgsz": options.max_imgsz,
        },
    }
