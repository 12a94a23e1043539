"""Readers of files and requests of strangers, as functions of bytes that may raise a YoloError only."""

from __future__ import annotations

import asyncio
import io
import shutil
import tarfile
import tempfile
import zipfile
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import torch

from utils.base.errors import YoloError
from utils.base.paths import ROOT

MOST_BYTES = 100_000  # of an input
_MEMORY = "/dev/shm"


@dataclass(frozen=True)
class Target:
    """A reader.

    Attributes:
        read: reads the bytes; raises YoloError for what it refuses.
        seeds: returns valid inputs, which the fuzzer changes.
    """

    read: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]]

    def check(self, data: bytes) -> None:
        """Read an input; any error but a YoloError of one line is a fault."""
        try:
            self.read(data)
        except YoloError as error:
            assert str(error).strip(), "an error without a message"


@contextmanager
def file_with(data: bytes, name: str) -> Iterator[Path]:
    """Write bytes to a file in a folder of its own."""
    with tempfile.TemporaryDirectory(dir=_MEMORY if Path(_MEMORY).is_dir() else None) as folder:
        path = Path(folder, name)
        path.write_bytes(data)
        yield path


def _read_checkpoint(data: bytes) -> None:
    from models.weights import read_checkpoint

    with file_with(data, "a.pt") as path:
        read_checkpoint(path)


def _read_description(data: bytes) -> None:
    """Read a pickle as that of a checkpoint: a change of it would fail the check sum of the archive."""
    _read_checkpoint(_zipped({"archive/data.pkl": data, **_STORAGES, "archive/version": b"3"}))


_STORAGES = {f"archive/data/{number}": bytes(4096) for number in range(24)}


def _zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _checkpoints() -> list[bytes]:
    """Files of PyTorch: tensors, an archive of ours without most of its layers, and the older format."""
    tensor = torch.arange(6.0).view(2, 3)
    small = {"epoch": 3, "names": {0: "a"}, "weights": OrderedDict(a=tensor, b=tensor[:, 1], c=tensor.half())}
    files = []
    for options in ({}, {"_use_new_zipfile_serialization": False}):
        buffer = io.BytesIO()
        torch.save(small, buffer, **options)
        files.append(buffer.getvalue())
    with tempfile.TemporaryDirectory() as folder:
        from models.weights import model_record, save_checkpoint
        from models.yolo import DetectionModel

        rows = [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [8, 3, 2]]]
        head = [[[0, 1], 1, "Detect", ["nc", "anchors"]]]
        config = {"nc": 1, "depth_multiple": 1.0, "width_multiple": 1.0, "anchors": [[4, 4, 8, 8]] * 2}
        model = DetectionModel({**config, "backbone": rows, "head": head})
        path = Path(folder, "a.pt")
        save_checkpoint(path, {"model": model_record(model), "epoch": 1})
        files.append(path.read_bytes())
    return files


def _descriptions() -> list[bytes]:
    """The pickles of these files, and some with what only other programs write."""
    found = []
    for file in (_checkpoints()[0], _checkpoints()[-1]):
        with zipfile.ZipFile(io.BytesIO(file)) as archive:
            found += [archive.read(name) for name in archive.namelist() if name.endswith("data.pkl")]
    calls = b"\x80\x02}(X\x05\x00\x00\x00modelcmodels.yolo\nModel\n)\x81}X\x04\x00\x00\x00yaml}sbu."
    return [*found, calls, b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01a\x94K\x01s."]


def _read_model_yaml(data: bytes) -> None:
    from models.yolo import make_model

    with file_with(data, "yolov5n.yaml") as path, torch.device("meta"):
        make_model(path, nc=3)


def _model_yamls() -> list[bytes]:
    small = """nc: 3
depth_multiple: 0.33
width_multiple: 0.25
anchors:
  - [10,13, 16,30, 33,23]
  - [30,61, 62,45, 59,119]
backbone:
  [[-1, 1, Conv, [64, 6, 2, 2]],
   [-1, 3, C3, [128]],
   [-1, 1, LSKA, [11]],
   [-1, 1, SPPF, [128, 5]]]
head:
  [[-1, 1, nn.Upsample, [None, 2, 'nearest']],
   [[-1, 0], 1, Concat, [1]],
   [-1, 1, C3LSKA, [64, False]],
   [[3, 6], 1, Detect, [nc, anchors]]]
"""
    return [small.encode(), (ROOT / "models/yolov5n-LSKA.yaml").read_bytes()]


def _read_data_yaml(data: bytes) -> None:
    from utils.data.dataset_yaml import read_data_yaml

    with file_with(data, "data.yaml") as path:
        (path.parent / "images").mkdir()
        (path.parent / "images/a.jpg").write_bytes(b"")
        read_data_yaml(path)


def _data_yamls() -> list[bytes]:
    own = "path: .\ntrain: images\nval: [images, images/a.jpg]\ntest:\nnames: {0: a, 1: 'b c'}\n"
    return [own.encode(), b"train: images\nval: images\nnc: 2\nnames: [a, b]\n"]


def _read_hyp(data: bytes) -> None:
    from utils.train.hyp import load_hyp

    with file_with(data, "hyp.yaml") as path:
        load_hyp(str(path))


def _hyps() -> list[bytes]:
    return [(ROOT / "data/hyps/hyp.scratch-low.yaml").read_bytes(), b"lr0: 0.01\nmomentum: [0.9]\n"]


def _read_labels(data: bytes) -> None:
    from utils.base.paths import decode_text
    from utils.data.labels import build_scan, check_sample

    check = check_sample("a.jpg", lambda: (64, 48), lambda: decode_text(data, errors="replace"))
    build_scan([check])
    labels = check.labels
    assert len(labels.rows) == len(labels.lines)
    assert not len(labels.rows) or (np.isfinite(labels.rows).all() and (labels.rows[:, 1:] <= 1).all())


def _labels() -> list[bytes]:
    return [
        b"0 0.5 0.5 0.2 0.3\n1 0.1 0.1 0.05 0.05\n",
        b"0 0.1 0.1 0.5 0.1 0.5 0.5 0.1 0.5\n3 0.5 0.5 1 1\n",
        b"\xef\xbb\xbf2 .5 5e-1 +0.25 0.1\r\n\r\n80 1.01 0.5 0.1 0.1\n0 0.5 0.5 nan 1e400\n",
    ]


def _read_image_header(data: bytes) -> None:
    from utils.data.image_header import check_pixels, header_of
    from utils.data.images import check_image

    array = np.frombuffer(data, np.uint8)
    header = header_of(array)
    assert header is None or (header.width >= 0 and header.height >= 0)
    check_pixels(array, "a.jpg")
    with file_with(data, "a.jpg") as path:
        check_image(path)


def _images() -> list[bytes]:
    """Small images in all formats that OpenCV writes, and a rotated JPEG."""
    image = (np.arange(32 * 48 * 3) % 251).astype(np.uint8).reshape(32, 48, 3)
    found = [
        cv2.imencode(f".{suffix}", image)[1]
        for suffix in ["jpg", "png", "bmp", "webp", "tiff", "ppm", "jp2", "gif"]
    ]
    from PIL import Image

    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(image).save(buffer, "JPEG", exif=exif)
    return [*(np.asarray(one).tobytes() for one in found if len(one)), buffer.getvalue()]


def _read_request(data: bytes) -> None:
    from serve.request import RequestError, read_form, read_image

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 50):
            yield body[start : start + 50]

    content_type, _, body = data.partition(b"\n")
    try:
        form = asyncio.run(read_form(content_type.decode("latin-1"), str(len(body)), chunks(), 10_000))
        if form.file:
            read_image(form.file, 10_000)
    except RequestError as error:
        assert 400 <= error.status < 500 and "\n" not in error.message


def _requests() -> list[bytes]:
    part = b"--f\r\nContent-Disposition: form-data; name="
    start = b"multipart/form-data; boundary=f\n" + part + b'"conf"\r\n\r\n0.5\r\n'
    file = part + b'"image"; filename="a.png"\r\n\r\n'
    return [start + file + image + b"\r\n--f--\r\n" for image in _images()[:2]]


def _read_archive(suffix: str) -> Callable[[bytes], None]:
    def read(data: bytes) -> None:
        from utils.data.download import safe_unpack

        with file_with(data, f"a{suffix}") as path:
            folder = path.parent / "new" / "unpacked"
            folder.parent.mkdir()
            try:
                safe_unpack(path, folder, limit=2**20)
            finally:
                outside = set(path.parent.iterdir()) - {path, folder.parent}
                links = [one for one in folder.parent.rglob("*") if one.is_symlink()]
                assert not outside and not links, (outside, links)
                for one in folder.parent.rglob("*"):
                    if one.is_dir():
                        one.chmod(0o700)
                shutil.rmtree(folder.parent)

    return read


def _zips() -> list[bytes]:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("images/a.jpg", "../b", "labels/"):
            archive.writestr(name, b"abc" * 20 if not name.endswith("/") else b"")
    return [_zipped({"images/a.jpg": b"abc", "labels/a.txt": b"0 1 1 1 1"}), buffer.getvalue()]


def _tars() -> list[bytes]:
    found = []
    for mode in ("w", "w:gz"):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode=mode, format=tarfile.GNU_FORMAT) as archive:  # type: ignore[call-overload]
            kinds = {"a/b.jpg": tarfile.REGTYPE, "l": tarfile.SYMTYPE, "d": tarfile.DIRTYPE}
            for name, kind in kinds.items():
                info = tarfile.TarInfo(name)
                info.type, info.size = kind, 3 if kind == tarfile.REGTYPE else 0
                info.linkname = "../../x" if kind == tarfile.SYMTYPE else ""
                archive.addfile(info, io.BytesIO(b"abc"))
        found.append(buffer.getvalue())
    return found


TARGETS: dict[str, Target] = {
    "checkpoint": Target(_read_checkpoint, cache(_checkpoints)),
    "description": Target(_read_description, cache(_descriptions)),
    "model-yaml": Target(_read_model_yaml, _model_yamls),
    "data-yaml": Target(_read_data_yaml, _data_yamls),
    "hyp-yaml": Target(_read_hyp, _hyps),
    "labels": Target(_read_labels, _labels),
    "image": Target(_read_image_header, cache(_images)),
    "request": Target(_read_request, cache(_requests)),
    "zip": Target(_read_archive(".zip"), _zips),
    "tar": Target(_read_archive(".tar"), lambda: _tars()[:1]),
    "tar.gz": Target(_read_archive(".tar.gz"), lambda: _tars()[1:]),
}
