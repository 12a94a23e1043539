"""Read the files that W&B writes offline: protobuf records in the log format of LevelDB."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_BLOCK = 32768
_FILE_HEADER = 7
_RECORD_HEADER = 7  # checksum, length, part: 1 full, 2 first, 3 middle, 4 last


def messages(path: Path) -> Iterator[bytes]:
    """Yield the records of a file, joined from their parts."""
    data, position, parts = path.read_bytes(), _FILE_HEADER, b""
    while position + _RECORD_HEADER <= len(data):
        if _BLOCK - position % _BLOCK < _RECORD_HEADER:  # too little is left of this block
            position += _BLOCK - position % _BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        position += _RECORD_HEADER
        parts += data[position : position + length]
        position += length
        if kind in (1, 4):
            yield parts
            parts = b""


def records(folder: Path) -> list[tuple[str, Any]]:
    """Return type and content of every record in `folder`, oldest file first."""
    from wandb.proto import wandb_internal_pb2

    found = []
    for path in sorted(folder.rglob("*.wandb")):
        for message in messages(path):
            record = wandb_internal_pb2.Record.FromString(message)
            kind = record.WhichOneof("record_type")
            found.append((kind, getattr(record, kind)))
    return found


def values(items: Any) -> dict[str, Any]:
    """Return the values of a record by key, or path of keys; they are stored as JSON."""
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
