"""The yaml of a classifier of YOLOv5, whose files hold modules but not the yaml that they were built from."""

from __future__ import annotations

from typing import Any

from models.pickles import Record


def config_of(model: Record) -> dict[str, Any]:
    """Return a model yaml, with absolute numbers of channels and repeats, for the pickled layers of a model.

    Raises:
        ValueError: a layer of a class, or with settings, that official classifiers do not have.
    """
    layers = list(_children(_child(model, "model")).values())
    rows = [_row(layer) for layer in layers]
    if not rows or rows[-1][2] != "Classify":
        raise ValueError("its last layer is not Classify")
    nc = int(_child(layers[-1], "linear").get("out_features"))
    return {"nc": nc, "backbone": rows[:-1], "head": rows[-1:]}


def _row(layer: Record) -> list[Any]:
    """Return the yaml row of a layer."""
    name = layer.class_name
    if name == "Conv":
        return [-1, 1, name, _convolution(layer)]
    if name == "C3":
        inner = _children(_child(layer, "m"))
        shortcut = all(bool(block.get("add")) for block in inner.values())
        return [-1, len(inner), name, [_width(_child(layer, "cv3")), shortcut]]
    if name == "SPPF":
        pool = _child(layer, "m").get("kernel_size")
        return [-1, 1, name, [_width(_child(layer, "cv2")), int(pool)]]
    if name == "Classify":
        return [-1, 1, name, ["nc"]]
    raise ValueError(f"a classifier with a layer {name} is not known")


def _convolution(layer: Record) -> list[Any]:
    """Return the yaml arguments of a Conv: channels, kernel size, stride, padding."""
    conv = _child(layer, "conv")
    settings = {key: conv.get(key) for key in ("kernel_size", "stride", "padding", "dilation", "groups")}
    squares = [settings[key] for key in ("kernel_size", "stride", "padding")]
    if settings["dilation"] != (1, 1) or settings["groups"] != 1 or any(a != b for a, b in squares):
        raise ValueError(f"a convolution with {settings} is not known")
    return [int(conv.get("out_channels")), *(int(a) for a, _ in squares)]


def _width(layer: Record) -> int:
    return int(_child(layer, "conv").get("out_channels"))


def _children(module: Record) -> dict[str, Record]:
    return {key: child for key, child in (module.fields.get("_modules") or {}).items() if child is not None}


def _child(module: Record, name: str) -> Record:
    children = _children(module)
    if name not in children:
        raise ValueError(f"{module.class_name} without {name}")
    return children[name]
