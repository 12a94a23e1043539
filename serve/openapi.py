"""OpenAPI descriptions of the routes that take an image: FastAPI, which does not read uploads, has none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from serve.params import FORMATS, MASK_FORMATS, MIN_IMGSZ
from serve.request import FILE_FIELD
from serve.responses import STAGES
from serve.served_model import ServedModel

Schema = dict[str, Any]

_FRACTION: Schema = {"type": "number", "minimum": 0, "maximum": 1}
_PARAMETERS: dict[str, tuple[Schema, str]] = {
    "conf": (_FRACTION, "Confidence threshold."),
    "iou": (_FRACTION, "NMS IoU threshold."),
    "imgsz": ({"type": "integer", "minimum": MIN_IMGSZ}, "Input size in pixels, the longer side."),
    "classes": ({"type": "string"}, "Classes to return: numbers or names, separated by commas."),
    "masks": (
        {"type": "string", "enum": list(MASK_FORMATS)},
        "How to return the masks of a segmentation model; polygon by default. Other models have none.",
    ),
    "format": (
        {"type": "string", "enum": list(FORMATS)},
        "JSON; or as a JPEG, the annotated image, or the plain one, on which no model is run.",
    ),
}
_POINT: Schema = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
_POLYGON: Schema = {
    "type": "array",
    "items": _POINT,
    "description": "With masks=polygon: points x, y of the largest part of the mask, in pixels of the image.",
}
_RLE: Schema = {
    "type": "object",
    "description": "With masks=rle: the mask in COCO's compressed run-length encoding.",
    "properties": {
        "size": {"type": "array", "items": {"type": "integer"}, "description": "Height and width."},
        "counts": {"type": "string"},
    },
}
_PIXELS: Schema = {"type": "number", "description": "Pixels of the image."}
_SIZE: Schema = {
    "type": "object",
    "properties": {"width": {"type": "integer"}, "height": {"type": "integer"}},
}
_CLASS: Schema = {"confidence": _FRACTION, "class": {"type": "integer"}, "name": {"type": "string"}}
_ROWS: dict[str, tuple[Schema, str]] = {
    "detections": (
        {
            **dict.fromkeys(("xmin", "ymin", "xmax", "ymax"), _PIXELS),
            **_CLASS,
            "polygon": _POLYGON,
            "rle": _RLE,
        },
        "In order of confidence.",
    ),
    "classifications": (_CLASS, "The five most probable classes, or all if there are fewer."),
}
_ERRORS = {
    "400": "The form is damaged.",
    "401": "The X-API-Key header is missing or wrong.",
    "404": "No model has this name, or it is of another task.",
    "408": "The upload took too long, or paused.",
    "413": "The file or the image is too large.",
    "415": "Not a form, or not an image.",
    "422": "A parameter is invalid, or the image is missing.",
    "429": "The client has too many requests in progress; see Retry-After.",
    "503": "Too many requests are in progress; see Retry-After.",
}


def rows_operation(family: type[ServedModel[Any]]) -> Schema:
    """Return the operation of the route whose responses are rows."""
    return _operation(family.parameters, _rows(family))


def details_operation(family: type[ServedModel[Any]]) -> Schema:
    """Return the operation of the route whose responses are rows with details."""
    thresholds: Schema = {key: _FRACTION for key in ("conf", "iou") if key in family.parameters}
    result: Schema = {
        "type": "object",
        "properties": {
            "model": {"type": "string"},
            "size": _SIZE,
            "input": _SIZE,
            **thresholds,
            "batch": {"type": "integer", "description": "Batch size of the inference."},
            "times_ms": {"type": "object", "properties": dict.fromkeys(STAGES, {"type": "number"})},
            family.rows_key: _rows(family),
        },
    }
    return _operation(family.parameters, result)


def _rows(family: type[ServedModel[Any]]) -> Schema:
    properties, text = _ROWS[family.rows_key]
    return {"type": "array", "description": text, "items": {"type": "object", "properties": properties}}


def _operation(names: Sequence[str], result: Schema) -> Schema:
    """Return the operation of a route that takes an image and parameters and returns `result`, or a JPEG."""
    parameters = {name: _PARAMETERS[name] for name in names}
    fields = {name: {**schema, "description": text} for name, (schema, text) in parameters.items()}
    form = {
        "type": "object",
        "required": [FILE_FIELD],
        "properties": {FILE_FIELD: {"type": "string", "format": "binary"}, **fields},
    }
    success = {
        "description": "The result, or an image.",
        "content": {"application/json": {"schema": result}, "image/jpeg": {}},
    }
    return {
        "parameters": [
            {"name": name, "in": "query", "required": False, "schema": schema, "description": text}
            for name, (schema, text) in parameters.items()
        ],
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}},
        "responses": {"200": success, **{status: {"description": text} for status, text in _ERRORS.items()}},
    }
