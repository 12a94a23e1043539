import struct
import zlib
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.known import pattern_image
from utils.base.errors import DataError
from utils.data.image_formats import image_format, page_count
from utils.data.images import check_image, decode_image, image_size, read_image

BGR = pattern_image(40, 60)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "tiff"])
def test_lossless_images_are_read_unchanged(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    assert cv2.imwrite(str(path), BGR)
    assert (read_image(path) == BGR).all()
    assert image_size(path) == (60, 40)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright(tmp_path: Path, suffix: str, orientation: int) -> None:
    path, exif = tmp_path / f"a.{suffix}", Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(BGR[..., ::-1]).save(path, exif=exif, quality=100)
    image = read_image(path)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))[..., ::-1]
    assert image.shape == expected.shape
    assert np.abs(image.astype(int) - expected).mean() < 3  # decoders differ a little
    assert image_size(path) == (image.shape[1], image.shape[0])


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_deep_gray_and_transparent_images_become_8_bit_bgr(
    tmp_path: Path, suffix: str, channels: int
) -> None:
    gray = np.linspace(0, 65535, 40 * 60).reshape(40, 60).astype(np.uint16)
    path = tmp_path / f"a.{suffix}"
    cv2.imwrite(str(path), gray if channels == 1 else np.dstack([gray] * channels))
    image = read_image(path)
    assert (image.shape, image.dtype) == ((40, 60, 3), np.uint8)
    assert np.abs(image.astype(int) - (gray >> 8)[..., None]).max() <= 1
    assert image_size(path) == (60, 40)


@pytest.mark.parametrize("suffix", ["pfm", "tif"])
def test_floats_from_0_to_1_become_0_to_255(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    cv2.imwrite(str(path), BGR.astype(np.float32) / 255)
    assert np.abs(read_image(path).astype(int) - BGR).max() <= 1
    assert image_size(path) == (60, 40)


def test_unusual_file_names_are_read(tmp_path: Path) -> None:
    path = tmp_path / "[1] größe 画像.png"
    path.write_bytes(cv2.imencode(".png", BGR)[1].tobytes())
    assert (read_image(path) == BGR).all()


@pytest.mark.parametrize("content", [b"", b"no image", b"\xff\xd8\xff"])
def test_a_file_that_is_not_an_image_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match="a.jpg: not an image"):
        read_image(path)


def test_an_image_above_the_limit_of_opencv_says_what_helps() -> None:
    """A scanned drawing with 1 bit per pixel is a small file; OpenCV would need 3 GB for it."""
    with pytest.raises(
        DataError, match=r"a.png: it has .*\d+ pixels.*1073741824 pixels.*OPENCV_IO_MAX_IMAGE_PIXELS"
    ):
        decode_image(np.frombuffer(_blank_png(33_000, 33_000), np.uint8), "a.png")


def _blank_png(width: int, height: int) -> bytes:
    """Make the start of a PNG with 1 bit per pixel."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes((1 + (width + 7) // 8) * 10))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", [".avif", ".jp2"])
def test_pillow_decodes_what_opencv_is_built_without(suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = cv2.imencode(suffix, BGR)[1].ravel()
    expected = decode_image(data, "a")
    monkeypatch.setattr(cv2, "imdecode", lambda *_: None)
    assert abs(decode_image(data, "a").astype(int) - expected).max() <= 3
    with pytest.raises(DataError, match="not an image"):
        decode_image(data[:60], "a")


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\xff\xd8\xff\xe0", "JPEG"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avif", "AVIF"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2", ""),
        (b"RIFF\0\0\0\0WEBPVP8 ", "WEBP"),
        (b"RIFF\0\0\0\0AVI LIST", ""),
        (b"", ""),
        (b"text", ""),
    ],
)
def test_formats_are_recognised_by_their_first_bytes(head: bytes, name: str) -> None:
    assert image_format(head) == name


def test_pages_are_counted(tmp_path: Path) -> None:
    pages = [Image.new("RGB", (16, 16), (value, 0, 0)) for value in (0, 100, 200)]
    for suffix, count in ((".tif", 3), (".webp", 3), (".png", 1)):
        file = BytesIO()
        pages[0].save(file, suffix[1:].replace("tif", "tiff"), save_all=True, append_images=pages[1:])
        data = np.frombuffer(file.getvalue(), np.uint8)
        assert page_count(data) == count, suffix
        assert page_count(data[:30]) == 1 and page_count(data[:4]) == 1
    for start in (b"II*\0\x08\0\0\0\0\0\x08\0\0\0", b"MM\0*\0\0\0\x08\0\0\0\0\0\x08"):
        assert page_count(np.frombuffer(start, np.uint8)) == 1, "a directory that names itself"
    big = b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0" + bytes(8) + b"\x20" + bytes(7) + bytes(16)
    assert page_count(np.frombuffer(big, np.uint8)) == 2, "BigTIFF"


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a.jpg: no such file"):
        read_image(tmp_path / "a.jpg")


def test_a_jpeg_without_end_marker_is_read_and_not_modified(tmp_path: Path) -> None:
    whole = cv2.imencode(".jpg", BGR)[1].tobytes()
    path = tmp_path / "a.jpg"
    path.write_bytes(whole[:-2])
    assert check_image(path) == (60, 40)
    assert (read_image(path) == cv2.imdecode(np.frombuffer(whole, np.uint8), cv2.IMREAD_COLOR)).all()
    assert path.read_bytes() == whole[:-2]


def test_data_after_the_end_of_a_jpeg_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(cv2.imencode(".jpg", BGR)[1].tobytes() + b"\0" * 100)
    assert check_image(path) == (60, 40)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_truncated_image_is_detected(tmp_path: Path, suffix: str) -> None:
    data = cv2.imencode(f".{suffix}", pattern_image(200, 200))[1].tobytes()
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="truncated"):
        check_image(path)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("shrink", [2, 4, 8])
def test_a_jpeg_decoded_at_a_fraction_is_upright_and_looks_the_same(orientation: int, shrink: int) -> None:
    exif, file = Image.Exif(), BytesIO()
    exif[0x0112] = orientation
    smooth = cv2.GaussianBlur(pattern_image(208, 304), (0, 0), 12)
    Image.fromarray(smooth[..., ::-1]).save(file, "JPEG", exif=exif, quality=95)
    data = np.frombuffer(file.getvalue(), np.uint8)
    whole, part = decode_image(data, "a.jpg"), decode_image(data, "a.jpg", shrink)
    assert part.shape == (whole.shape[0] // shrink, whole.shape[1] // shrink, 3)
    expected = cv2.resize(whole, part.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(part.astype(int) - expected).mean() < 3


def test_sides_of_a_fraction_are_rounded_up() -> None:
    data = cv2.imencode(".jpg", pattern_image(41, 63))[1]
    assert [decode_image(data, "a.jpg", n).shape for n in (2, 4, 8)] == [(21, 32, 3), (11, 16, 3), (6, 8, 3)]


def test_gray_and_truncated_jpegs_can_be_decoded_at_a_fraction() -> None:
    gray = cv2.imencode(".jpg", BGR[..., 0])[1]
    assert decode_image(gray, "a.jpg", 2).shape == (20, 30, 3)
    whole = cv2.imencode(".jpg", BGR)[1]
    assert (decode_image(whole[:-2], "a.jpg", 2) == decode_image(whole, "a.jpg", 2)).all()


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".webp", ".tif"])
def test_other_formats_are_decoded_at_full_size(suffix: str) -> None:
    data = cv2.imencode(suffix, BGR)[1]
    assert (decode_image(data, "a", 4) == decode_image(data, "a")).all()


def test_decoding_at_a_fraction_rejects_other_files() -> None:
    with pytest.raises(DataError, match="a.jpg: not an image"):
        decode_image(np.frombuffer(b"\xff\xd8\xff\xd8 nothing", np.uint8), "a.jpg", 8)
