"""The outputs that an .onnx file declares, read without the package onnx: the file is a protobuf message."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from utils.base.errors import DataError

# Numbers of the fields on the way from the model to the sides of an output: type, tensor and shape between.
_GRAPH, _OUTPUT, _SHAPE, _DIMENSION = 7, 12, (2, 1, 2), 1
_VARINT, _FIXED64, _MESSAGE, _FIXED32 = 0, 1, 2, 5  # wire types


def output_dimensions(file: Path) -> list[int]:
    """Return the number of dimensions of each output of an .onnx file; 0 where it has no shape.

    Raises:
        DataError: the file is damaged.
    """
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            outputs = [
                part
                for graph in _parts(content, (0, len(content)), _GRAPH)
                for part in _parts(content, graph, _OUTPUT)
            ]
            return [_dimensions(content, part) for part in outputs]
        except (IndexError, KeyError) as error:  # beyond the end, or no type of a field
            raise DataError(f"{file}: damaged, it is no protobuf message") from error


def _dimensions(content: mmap.mmap, output: tuple[int, int]) -> int:
    spans = [output]
    for number in _SHAPE:
        spans = [inner for span in spans for inner in _parts(content, span, number)]
    return sum(1 for span in spans for _ in _parts(content, span, _DIMENSION))


def _parts(content: mmap.mmap, span: tuple[int, int], wanted: int) -> Iterator[tuple[int, int]]:
    """Yield start and end of each message or text with a field number, within a message."""
    position, end = span
    while position < end:
        key, position = _varint(content, position)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            _, position = _varint(content, position)
        elif wire == _MESSAGE:
            size, start = _varint(content, position)
            position = start + size
            if number == wanted:
                yield start, position
        else:
            position += {_FIXED64: 8, _FIXED32: 4}[wire]


def _varint(content: mmap.mmap, position: int) -> tuple[int, int]:
    """Return a number of variable length, 7 bits in each byte, and the position behind it."""
    value = shift = 0
    while True:
        byte = content[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
