"""Named arrays in one file, an uncompressed .npz: plain data, which several processes can map into memory."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from utils.base.paths import atomic_write

# What a file that is damaged, or something else, makes of an attempt to read it.
UNREADABLE = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)
_NAME_LENGTHS = slice(26, 30)  # in the header of a zip's member: two bytes each for name and extra field
_HEADER = 30


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays, whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    with atomic_write(path) as file:
        np.savez(file, allow_pickle=False, **arrays)


def map_arrays(path: Path) -> dict[str, np.ndarray]:
    """Map the arrays of a file into memory: nothing is read before it is used, and processes share the pages.

    They may be written to; the file stays as it is.

    Raises:
        one of UNREADABLE: it is not a file of `save_arrays`.
    """
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError(f"{path}: compressed")
        return {member.filename.removesuffix(".npy"): _map(path, file, member) for member in members}


def read_arrays(file: Path | BinaryIO) -> dict[str, np.ndarray]:
    """Read all arrays of a file.

    Raises:
        one of UNREADABLE: it is not a file of `save_arrays`.
    """
    with np.load(file, allow_pickle=False) as content:
        return {name: content[name] for name in content.files}


def _map(path: Path, file: BinaryIO, member: zipfile.ZipInfo) -> np.ndarray:
    file.seek(member.header_offset)
    header = file.read(_HEADER)
    lengths = header[_NAME_LENGTHS]
    file.seek(int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little"), 1)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise ValueError(f"{path}: {member.filename} holds objects")
    if 0 in shape:
        return np.zeros(shape, dtype)
    mapped = np.memmap(path, dtype, "c", file.tell(), shape, "F" if fortran else "C")
    return mapped.view(np.ndarray)  # each slice of a memmap, and each sum with one, costs microseconds more
