"""Build responses: rows with details, JPEG files, and the description of the models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np

from serve.request import RequestError
from serve.serve_options import ServeOptions
from serve.served_model import InferenceTask, Result, Row, ServedModel
from utils.base.formats import format_of
from utils.plots.annotator import colors

# Of times: `nms` and `masks` are of models that have them.
STAGES = ("decode", "queue", "inference", "nms", "masks", "total")


def details(
    model: ServedModel[Any],
    task: InferenceTask[Any],
    result: Result,
    rows: list[Row],
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """Return rows with image and input size in pixels, thresholds, and milliseconds per stage."""
    height, width = task.original_hw
    spent = {**seconds, **result.seconds}
    return {
        "model": model.name,
        "size": {"width": width, "height": height},
        "input": {"width": task.image.shape[1], "height": task.image.shape[0]},
        **result.thresholds,
        "batch": result.batch_size,
        "times_ms": {stage: round(1e3 * spent[stage], 3) for stage in STAGES if stage in spent},
        model.rows_key: rows,
    }


def jpeg(image: np.ndarray) -> bytes:
    """Return an image (H, W, 3) BGR as a JPEG file.

    Raises:
        RequestError: 422, its sides are longer than the format allows.
    """
    done, content = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 92])
    if not done:
        size = f"{image.shape[1]}x{image.shape[0]}"
        raise RequestError(422, f"an image of {size} pixels does not fit into a JPEG")
    return content.tobytes()


def models_info(models: Mapping[str, ServedModel[Any]], options: ServeOptions) -> dict[str, Any]:
    """Return the models with their classes and colours, parameter defaults and limits."""
    return {
        "models": [
            {
                "name": model.name,
                "format": format_of(file).title,
                "task": model.task.name,
                "path": f"v1/{model.routes[1]}/{quote(model.name, safe='')}",
                "imgsz": model.imgsz,
                "fixed_imgsz": model.fixed,
                "classes": [
                    {"class": index, "name": name, "color": "#{:02x}{:02x}{:02x}".format(*colors(index))}
                    for index, name in sorted(model.backend.names.items())
                ],
            }
            for model, file in zip(models.values(), options.weights, strict=True)
        ],
        "defaults": {"conf": options.conf_thres, "iou": options.iou_thres, "max_det": options.max_det},
        "limits": {
            "upload_mb": options.max_upload_mb,
            "megapixels": options.max_megapixels,
            "imgsz": options.max_imgsz,
        },
    }
