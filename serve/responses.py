"""Build responses: detections as JSON rows, annotated images, model info, and their OpenAPI schemas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from serve.models import DetectionResult, InferenceTask, ServedModel
from serve.request import FILE_FIELD, MASK_FORMATS, RequestError
from serve.serve_options import ServeOptions
from utils.base.formats import format_of
from utils.plots.annotator import Annotator, colors

DetectionRow = dict[str, Any]
STAGES = ("decode", "queue", "inference", "nms", "masks", "total")  # masks: of segmentation models


def encode_masks(result: DetectionResult, mask_format: str) -> list[DetectionRow]:
    """Return what the rows of a segmentation model contain in addition: `polygon` or `rle` of each object."""
    if result.masks is None:
        return [{} for _ in result.detections]
    if mask_format == "rle":
        return [{mask_format: one} for one in result.masks.run_lengths()]
    size = result.masks.image_hw[::-1]  # points are fractions of it
    found = result.masks.polygons()
    return [{mask_format: (points.astype(np.float64) * size).round(2).tolist()} for points in found]


def detection_rows(
    result: DetectionResult, names: Mapping[int, str], masks: Sequence[DetectionRow]
) -> list[DetectionRow]:
    """Return detections in order of confidence: corners in pixels, confidence, class number and name.

    Args:
        result: n detections.
        names: class names.
        masks: n dictionaries to add to the rows, see `encode_masks`.
    """
    rows: list[DetectionRow] = []
    for (*corners, confidence, class_index), mask in zip(result.detections.tolist(), masks, strict=True):
        xmin, ymin, xmax, ymax = (round(value, 3) for value in corners)
        index = int(class_index)
        row: DetectionRow = {"xmin": xmin, "ymin": ymin, "xmax": xmax, "ymax": ymax}
        row |= {"confidence": round(confidence, 5), "class": index, "name": names.get(index, str(index))}
        rows.append(row | mask)
    return rows


def detection_details(
    model: ServedModel,
    task: InferenceTask,
    result: DetectionResult,
    masks: Sequence[DetectionRow],
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """Return detections with image and input size in pixels, thresholds, and milliseconds per stage."""
    height, width = task.original_hw
    spent = {**seconds, "inference": result.inference, "nms": result.nms}
    return {
        "model": model.name,
        "size": {"width": width, "height": height},
        "input": {"width": task.image.shape[1], "height": task.image.shape[0]},
        "conf": task.params.conf,
        "iou": task.params.iou,
        "batch": result.batch_size,
        "times_ms": {stage: round(1e3 * spent[stage], 3) for stage in STAGES if stage in spent},
        "detections": detection_rows(result, model.backend.names, masks),
    }


def annotated_jpeg(image: np.ndarray, result: DetectionResult, names: Mapping[int, str]) -> bytes:
    """Draw masks and labelled boxes on an image (H, W, 3) BGR, in place, and return it as a JPEG file."""
    if result.masks is not None:
        result.masks.blend(image, [colors(int(index), bgr=True) for index in result.detections[:, 5]])
    annotator = Annotator(np.ascontiguousarray(image))
    for *xyxy, confidence, class_index in result.detections[::-1].tolist():  # most confident on top
        index = int(class_index)
        annotator.box_label(xyxy, f"{names.get(index, index)} {confidence:.2f}", colors(index, bgr=True))
    done, content = cv2.imencode(".jpg", annotator.result(), [cv2.IMWRITE_JPEG_QUALITY, 92])
    if not done:
        size = f"{image.shape[1]}x{image.shape[0]}"
        raise RequestError(422, f"an image of {size} pixels does not fit into a JPEG")
    return content.tobytes()


def models_info(models: Mapping[str, ServedModel], options: ServeOptions) -> dict[str, Any]:
    """Return the models with their classes and colours, parameter defaults and limits."""
    return {
        "models": [
            {
                "name": model.name,
                "format": format_of(file).title,
                "task": model.backend.task,
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


_FRACTION = {"type": "number", "minimum": 0, "maximum": 1}
_PARAMETERS: dict[str, tuple[dict[str, Any], str]] = {
    "conf": (_FRACTION, "Confidence threshold."),
    "iou": (_FRACTION, "NMS IoU threshold."),
    "imgsz": ({"type": "integer", "minimum": 32}, "Input size in pixels, the longer side."),
    "classes": ({"type": "string"}, "Classes to return: numbers or names, separated by commas."),
    "masks": (
        {"type": "string", "enum": list(MASK_FORMATS)},
        "How to return the masks of a segmentation model; polygon by default. Other models have none.",
    ),
    "format": ({"type": "string", "enum": ["json", "image"]}, "JSON, or the annotated image as a JPEG."),
}
_POINT = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
_POLYGON = {
    "type": "array",
    "items": _POINT,
    "description": "With masks=polygon: points x, y of the largest part of the mask, in pixels of the image.",
}
_RLE = {
    "type": "object",
    "description": "With masks=rle: the mask in COCO's compressed run-length encoding.",
    "properties": {
        "size": {"type": "array", "items": {"type": "integer"}, "description": "Height and width."},
        "counts": {"type": "string"},
    },
}
_PIXELS = {"type": "number", "description": "Pixels of the image."}
ROWS_SCHEMA: dict[str, Any] = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            **dict.fromkeys(("xmin", "ymin", "xmax", "ymax"), _PIXELS),
            "confidence": _FRACTION,
            "class": {"type": "integer"},
            "name": {"type": "string"},
            "polygon": _POLYGON,
            "rle": _RLE,
        },
    },
}
_SIZE = {"type": "object", "properties": {"width": {"type": "integer"}, "height": {"type": "integer"}}}
DETAILS_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "model": {"type": "string"},
        "size": _SIZE,
        "input": _SIZE,
        "conf": _FRACTION,
        "iou": _FRACTION,
        "batch": {"type": "integer", "description": "Batch size of the inference."},
        "times_ms": {"type": "object", "properties": dict.fromkeys(STAGES, {"type": "number"})},
        "detections": ROWS_SCHEMA,
    },
}
_ERRORS = {
    "400": "The form is damaged.",
    "401": "The X-API-Key header is missing or wrong.",
    "404": "No model has this name.",
    "408": "The upload took too long.",
    "413": "The file or the image is too large.",
    "415": "Not a form, or not an image.",
    "422": "A parameter is invalid, or the image is missing.",
    "503": "Too many requests are in progress; see Retry-After.",
}


def upload_operation(result: dict[str, Any]) -> dict[str, Any]:
    """Return the OpenAPI operation of a route that takes an image and returns `result`, or a JPEG.

    FastAPI cannot derive it, as uploads are read without its help.
    """
    fields = {key: {**schema, "description": text} for key, (schema, text) in _PARAMETERS.items()}
    form = {
        "type": "object",
        "required": [FILE_FIELD],
        "properties": {FILE_FIELD: {"type": "string", "format": "binary"}, **fields},
    }
    success = {
        "description": "Detections.",
        "content": {"application/json": {"schema": result}, "image/jpeg": {}},
    }
    return {
        "parameters": [
            {"name": key, "in": "query", "required": False, "schema": schema, "description": text}
            for key, (schema, text) in _PARAMETERS.items()
        ],
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}},
        "responses": {"200": success, **{status: {"description": text} for status, text in _ERRORS.items()}},
    }
