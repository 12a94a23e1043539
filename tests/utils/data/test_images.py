import os
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
from utils.data.image_formats import common_size, image_format, page_count, tiff_size
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


@pytest.mark.parametrize("sides", [(9_000, 9_000), (33_000, 33_000), (2**31 - 1, 2**31 - 1)])
def test_an_image_with_too_many_pixels_is_not_decoded(sides: tuple[int, int]) -> None:
    """A scanned drawing with 1 bit per pixel is a small file; OpenCV would need 3 GB for it."""
    with pytest.raises(DataError, match=r"a.png: more than 33,554,432 pixels.*YOLOV5_MAX_PIXELS"):
        decode_image(np.frombuffer(_blank_png(*sides), np.uint8), "a.png")


@pytest.mark.parametrize("progressive", [False, True])
def test_the_size_of_jpeg_and_png_is_read_without_pillow(progressive: bool) -> None:
    settings = [cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive)]
    assert common_size(cv2.imencode(".jpg", BGR, settings)[1].ravel()) == ("JPEG", 60, 40)
    assert common_size(cv2.imencode(".png", BGR)[1].ravel()) == ("PNG", 60, 40)
    buffer = BytesIO()  # a long comment and a profile before the frame
    Image.fromarray(BGR).save(buffer, "JPEG", icc_profile=bytes(200_000), comment=bytes(60_000))
    data = np.frombuffer(buffer.getvalue(), np.uint8)
    assert common_size(data) == ("JPEG", 60, 40)
    for size in range(0, 700, 7):
        assert common_size(data[:size]) is None
    assert common_size(cv2.imencode(".bmp", BGR)[1].ravel()) is None


@pytest.mark.parametrize("big", [False, True], ids=["TIFF", "BigTIFF"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_tiff_that_pillow_cannot_open_is_not_decoded(order: str, big: bool) -> None:
    """Floats compress well; libtiff takes the first of two widths, Pillow the last."""
    widths = [(256, 4, 1, 30_000), (256, 4, 1, 100), (257, 3, 1, 20_000)]
    start = b"II" if order == "<" else b"MM"
    if big:
        head = start + struct.pack(f"{order}HHHQQ", 43, 8, 0, 16, 3)
        rows = b"".join(
            struct.pack(f"{order}HHQ", *row[:3])
            + struct.pack(f"{order}{'H6x' if row[1] == 3 else 'I4x'}", row[3])
            for row in widths
        )
    else:
        head = start + struct.pack(f"{order}HIH", 42, 8, 3)
        rows = b"".join(
            struct.pack(f"{order}HHI", *row[:3])
            + struct.pack(f"{order}{'H2x' if row[1] == 3 else 'I'}", row[3])
            for row in widths
        )
    data = np.frombuffer(head + rows + bytes(8), np.uint8)
    assert tiff_size(data) == (30_000, 20_000)
    with pytest.raises(DataError, match=r"more than 16,777,216 pixels.*found 600,000,000"):
        decode_image(data, "a.tif")


def test_the_limit_of_pixels_can_be_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLOV5_MAX_PIXELS", "100")
    data = cv2.imencode(".png", BGR)[1].ravel()
    with pytest.raises(DataError, match="more than 100 pixels"):
        decode_image(data, "a.png")
    pixels = BGR.shape[0] * BGR.shape[1]
    assert decode_image(data, "a.png", max_pixels=pixels).shape == BGR.shape
    monkeypatch.setenv("YOLOV5_MAX_PIXELS", str(pixels))
    assert decode_image(data, "a.png").shape == BGR.shape


def test_a_large_file_may_have_more_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """A photo of 100 megapixels has 20 MB or more; only an image that decodes to far more is refused."""
    monkeypatch.setenv("YOLOV5_MAX_PIXELS", "1000")
    plain, noise = np.zeros((60, 60, 3), np.uint8), pattern_image(60, 60)
    with pytest.raises(DataError, match="found 3,600"):
        decode_image(cv2.imencode(".png", plain)[1].ravel(), "a.png")
    assert decode_image(cv2.imencode(".png", noise)[1].ravel(), "a.png").shape == noise.shape
    with pytest.raises(DataError, match="found 4,900"):
        decode_image(cv2.imencode(".png", pattern_image(70, 70))[1].ravel(), "a.png")


def test_pipes_and_devices_are_no_images(tmp_path: Path) -> None:
    """Reading them could wait, or go on, without end."""
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    for name, reason in (("pipe.jpg", "named pipe"), ("zero.jpg", "device")):
        for read in (read_image, image_size, check_image):
            with pytest.raises(DataError, match=f"{name}: a {reason}, where a file is needed"):
                read(tmp_path / name)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "sparse.jpg").open("wb") as file:
        file.truncate(2**40)
    for read in (read_image, image_size):
        with pytest.raises(DataError, match="sparse.jpg: more than 536,870,912 bytes of an image file"):
            read(tmp_path / "sparse.jpg")


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


def _png(*chunks: tuple[bytes, bytes], length: int | None = None) -> bytes:
    """Return a PNG with these chunks before its pixels; `length` is what the last of them claims."""
    file = cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes()
    parts = [
        struct.pack(">I", len(content) if length is None else length) + kind + content
        + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    ]  # fmt: skip
    return file[:33] + b"".join(parts) + file[33:]


def _jpeg_of_many_scans(scans: int) -> bytes:
    """Return a progressive JPEG whose last scan is repeated."""
    flags = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    file = cv2.imencode(".jpg", np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3), flags)[1].tobytes()
    start = file.rindex(b"\xff\xda")
    return file[:-2] + file[start:-2] * scans + file[-2:]


def _tiled_tiff(side: int) -> bytes:
    """Return the header of a TIFF of 16 x 16 pixels with tiles of `side`."""
    tags = {256: 16, 257: 16, 258: 8, 259: 1, 262: 1, 277: 1, 322: side, 323: side, 324: 8, 325: 1}
    rows = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + rows + bytes(4)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (_png((b"tEXt", b"a\0b"), length=2**32 - 1), "a part of 4,294,967,295 bytes"),
        (_png(*[(b"tEXt", b"")] * 2000), "more than 1000 parts"),
        (_jpeg_of_many_scans(200), "more than 50 scans"),
        (_tiled_tiff(16384), "tiles of more than 33,554,432 pixels"),
    ],
)
def test_images_that_cost_far_more_than_their_size_are_not_decoded(
    data: bytes, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(DataError, match=reason):
        decode_image(np.frombuffer(data, np.uint8), "a")
    with pytest.raises(DataError, match=reason):  # or training would find out, after the scan had accepted it
        check_image("a", data)


def test_a_png_without_its_end_before_the_last_bytes_is_found_by_the_scan() -> None:
    file = cv2.imencode(".png", np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))[1].tobytes()
    cut = file[: len(file) // 2] + file[-12:]  # its pixels end early
    with pytest.raises(DataError, match="its end is missing|a part of"):
        check_image("a", cut)


@pytest.mark.parametrize(
    "data",
    [
        _png((b"tEXt", b"a\0b")) + b"\xff" * 100,  # data after the end, as some programs append
        _png(*[(b"tEXt", b"a\0b")] * 20),
        _jpeg_of_many_scans(3),
    ],
)
def test_unusual_but_harmless_images_are_decoded(data: bytes) -> None:
    array = np.frombuffer(data, np.uint8)
    image = decode_image(array, "a")
    assert (image == cv2.imdecode(array, cv2.IMREAD_COLOR)).all()
    assert check_image("a", data) == image.shape[1::-1]
