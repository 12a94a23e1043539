"""The parts of /openapi.json that FastAPI cannot see, as uploads are read without its help."""

from __future__ import annotations

from typing import Any

_FRACTION = {"type": "number", "minimum": 0, "maximum": 1}
_PARAMETERS: dict[str, tuple[dict[str, Any], str]] = {
    "conf": (_FRACTION, "Lowest confidence."),
    "iou": (_FRACTION, "Overlap that makes two boxes of a class one."),
    "imgsz": ({"type": "integer", "minimum": 32}, "Longer side of the network's input in pixels."),
    "classes": ({"type": "string"}, "The only classes to report: numbers or names, with commas."),
    "format": ({"type": "string", "enum": ["json", "image"]}, "JSON, or the image with boxes as a JPEG."),
}
_PIXELS = {"type": "number", "description": "Pixels of the image."}
ROW: dict[str, Any] = {
    "type": "object",
    "properties": {
        **dict.fromkeys(("xmin", "ymin", "xmax", "ymax"), _PIXELS),
        "confidence": _FRACTION,
        "class": {"type": "integer"},
        "name": {"type": "string"},
    },
}
ROWS: dict[str, Any] = {"type": "array", "items": ROW}
_SIZE = {"type": "object", "properties": {"width": {"type": "integer"}, "height": {"type": "integer"}}}
_TIMES = ("decode", "queue", "inference", "nms", "total")
DETAILED: dict[str, Any] = {
    "type": "object",
    "properties": {
        "model": {"type": "string"},
        "size": _SIZE,
        "input": _SIZE,
        "conf": _FRACTION,
        "iou": _FRACTION,
        "batch": {"type": "integer", "description": "Images that were looked at together."},
        "times_ms": {"type": "object", "properties": dict.fromkeys(_TIMES, {"type": "number"})},
        "detections": ROWS,
    },
}
_REFUSALS = {
    "400": "The form cannot be read.",
    "401": "The header X-API-Key is missing or wrong.",
    "404": "No model has this name.",
    "408": "The upload took too long.",
    "413": "The file or the image is too large.",
    "415": "No form, or no image.",
    "422": "A parameter is wrong, or the image is missing.",
    "503": "Too many requests are under way; see Retry-After.",
}


def upload(answer: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI operation of an endpoint that takes an image and gives `answer`, or a JPEG."""
    fields = {key: {**schema, "description": about} for key, (schema, about) in _PARAMETERS.items()}
    form = {
        "type": "object",
        "required": ["image"],
        "properties": {"image": {"type": "string", "format": "binary"}, **fields},
    }
    found = {
        "description": "What was found.",
        "content": {"application/json": {"schema": answer}, "image/jpeg": {}},
    }
    return {
        "parameters": [
            {"name": key, "in": "query", "required": False, "schema": schema, "description": about}
            for key, (schema, about) in _PARAMETERS.items()
        ],
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}},
        "responses": {
            "200": found,
            **{status: {"description": about} for status, about in _REFUSALS.items()},
        },
    }
