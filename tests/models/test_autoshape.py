from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from models.autoshape import AutoShape
from models.backends import load_backend
from tests.known import SHARED, golden, needs_shared, pattern_image
from tests.models.backends.files import CPU, NAMES, SIDE, checkpoint, exported, tiny_model
from tests.serving import Answer, Site, serve
from utils.base.errors import ConfigError, DataError
from utils.ops.nms import non_max_suppression

LOW = 0.01  # confidence threshold: confidences of the tiny model are low


@pytest.fixture
def model() -> AutoShape:
    shaped = AutoShape(load_backend(checkpoint(), CPU))
    shaped.conf = LOW
    return shaped


@pytest.fixture
def rgb() -> np.ndarray:
    """An image whose channels differ, twice as wide as high."""
    return np.ascontiguousarray(pattern_image(40, 80)[..., ::-1])


def as_png(rgb: np.ndarray) -> bytes:
    return cv2.imencode(".png", rgb[..., ::-1])[1].tobytes()


def same(results: Any, others: Any) -> bool:
    """Return whether two calls have the same image and the same detections."""
    return bool((results.ims[0] == others.ims[0]).all() and torch.equal(results.pred[0], others.pred[0]))


def test_an_image_of_any_type_gives_the_same_detections(
    model: AutoShape, rgb: np.ndarray, tmp_path: Path
) -> None:
    file = tmp_path / "an image.png"
    file.write_bytes(as_png(rgb))
    chw = np.ascontiguousarray(rgb.transpose(2, 0, 1))
    kinds: list[Any] = [
        str(file),
        file,
        Image.fromarray(rgb),
        rgb,
        rgb[..., ::-1][..., ::-1],  # not contiguous
        chw,
        rgb.astype(np.float32),
        rgb.astype(np.float32) / 255,
        rgb.astype(np.int64),
        rgb.astype(np.uint16) << 8,
        np.dstack((rgb, np.full(rgb.shape[:2], 7, np.uint8))),  # RGBA
        torch.from_numpy(chw),
        torch.from_numpy(chw).float() / 255,
    ]
    want = model(rgb, size=96)
    assert len(want.pred[0])

    alone = [model(kind, size=96) for kind in kinds]
    assert all(same(results, want) for results in alone)
    together = model(kinds, size=96)
    assert len(together) == len(kinds)
    assert all(same(one, want) for one in together)
    assert together.files[:4] == ["an image.jpg", "an image.jpg", "image2.jpg", "image3.jpg"]


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK", "I;16", "I", "F"])
def test_pil_images_of_any_mode(model: AutoShape, rgb: np.ndarray, mode: str) -> None:
    gray = rgb[..., 0]
    if mode in ("I;16", "I"):
        image = Image.fromarray(gray.astype(np.uint16) << 8)
        image = image.convert("I") if mode == "I" else image
        want = gray[..., None].repeat(3, 2)
    elif mode == "F":
        image, want = Image.fromarray(gray.astype(np.float32)), gray[..., None].repeat(3, 2)
    else:
        image = Image.fromarray(rgb).convert(mode)
        want = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(model(image, size=64).ims[0], want)


def test_gray_images_become_rgb(model: AutoShape, rgb: np.ndarray) -> None:
    gray = rgb[..., 0]
    want = gray[..., None].repeat(3, 2)
    for image in (gray, gray[..., None], gray[None]):
        np.testing.assert_array_equal(model(image, size=64).ims[0], want)


def test_exif_orientation_is_applied(model: AutoShape, rgb: np.ndarray, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.fromarray(rgb).save(tmp_path / "turned.png", exif=exif)
    upright = np.rot90(rgb, -1)

    with Image.open(tmp_path / "turned.png") as opened:
        results = model([tmp_path / "turned.png", opened], size=64)
    assert results.files == ["turned.jpg", "turned.jpg"]
    for image in results.ims:
        np.testing.assert_array_equal(image, upright)


def test_detections_are_those_of_the_network_after_nms(model: AutoShape) -> None:
    rgb = pattern_image(64, 96)  # already of that size: nothing to scale, nothing to pad
    tensor = torch.from_numpy(rgb.transpose(2, 0, 1).copy()).float()[None] / 255
    want = non_max_suppression(model.model(tensor), LOW, 0.45, max_det=1000)[0]
    want[:, 0:4:2].clamp_(0, 96), want[:, 1:4:2].clamp_(0, 64)

    results = model(rgb, size=96)
    assert results.s == (1, 3, 64, 96)
    torch.testing.assert_close(results.pred[0], want)


def test_the_input_shape_is_the_smallest_that_fits_all_images(model: AutoShape) -> None:
    wide, high = pattern_image(40, 80), pattern_image(90, 60)
    assert model(wide, size=96).s == (1, 3, 64, 96)  # 48 x 96, up to multiples of 32
    assert model(high, size=96).s == (1, 3, 96, 64)
    assert model([wide, high], size=96).s == (2, 3, 96, 96)


def test_many_images_give_the_detections_of_each_alone(model: AutoShape) -> None:
    images = [pattern_image(64, 64, 20 * index) for index in range(19)]
    together = model(images, size=64)
    for image, found in zip(images, together.pred, strict=True):
        torch.testing.assert_close(found, model(image, size=64).pred[0], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", ["torchscript", "onnx"])
def test_exported_files_get_their_fixed_size(kind: str, rgb: np.ndarray) -> None:
    shaped = AutoShape(load_backend(exported(kind), CPU))
    shaped.conf = LOW
    native = AutoShape(load_backend(checkpoint(), CPU))
    native.conf = LOW
    square = pattern_image(SIDE, SIDE)

    assert shaped([rgb, rgb]).s == (2, 3, SIDE, SIDE)
    torch.testing.assert_close(
        shaped(square).pred[0], native(square, size=SIDE).pred[0], rtol=1e-3, atol=1e-2
    )


def test_dynamic_exported_files_get_the_full_size(rgb: np.ndarray) -> None:
    shaped = AutoShape(load_backend(exported("onnx", dynamic=True), CPU))
    assert shaped(rgb, size=100).s == (1, 3, 128, 128)
    assert shaped(rgb, size=(64, 96)).s == (1, 3, 64, 96)


def test_a_tensor_is_passed_to_the_network(model: AutoShape) -> None:
    images = torch.rand(2, 3, 64, 96)
    decoded, maps = model(images)
    with torch.no_grad():
        torch.testing.assert_close(decoded, model.model.model(images)[0])
    assert len(maps) == 2
    assert model(images, augment=True)[0].shape[1] > decoded.shape[1]
    assert AutoShape(load_backend(exported("onnx"), CPU))(torch.rand(1, 3, SIDE, SIDE)).shape[2] == 7


def test_attributes_set_thresholds_and_classes(model: AutoShape) -> None:
    image = pattern_image(64, 96)
    everything = model(image, size=96).pred[0]
    assert set(everything[:, 5].int().tolist()) == {0, 1}

    model.classes = [1]
    assert set(model(image, size=96).pred[0][:, 5].tolist()) == {1.0}
    model.classes, model.max_det = None, 2
    assert torch.equal(model(image, size=96).pred[0], everything[:2])
    model.max_det, model.conf = 1000, float(everything[3, 4])
    assert torch.equal(model(image, size=96).pred[0], everything[:3])
    model.conf, model.multi_label = LOW, True
    assert len(model(image, size=96).pred[0]) > len(everything)
    model.multi_label, model.iou, model.agnostic = False, 0.0, True
    assert len(model(image, size=96).pred[0]) < len(everything)


def test_default_thresholds_are_those_of_the_original() -> None:
    shaped = AutoShape(tiny_model())
    assert (shaped.conf, shaped.iou, shaped.max_det) == (0.25, 0.45, 1000)
    assert (shaped.classes, shaped.agnostic, shaped.multi_label, shaped.amp) == (None, False, False, False)


def test_it_behaves_as_a_module(model: AutoShape) -> None:
    image = pattern_image(64, 96)
    want = model(image, size=96)
    assert sum(p.numel() for p in model.parameters()) > 0
    assert model.to("cpu").eval() is model
    assert (model.names, model.stride, model.device) == (NAMES, 32, CPU)
    assert same(copy.deepcopy(model)(image, size=96), want)
    double = model.half()
    assert double.model.fp16 and next(double.parameters()).dtype == torch.float16
    assert not double.float().model.fp16


def test_a_model_in_memory_is_wrapped(model: AutoShape, rgb: np.ndarray) -> None:
    shaped = AutoShape(tiny_model())
    shaped.conf = LOW
    torch.testing.assert_close(
        shaped(rgb, size=96).pred[0], model(rgb, size=96).pred[0], rtol=1e-3, atol=1e-3
    )


def test_class_names_may_be_replaced(model: AutoShape, rgb: np.ndarray) -> None:
    model.names = ["round", "square"]
    assert model(rgb, size=64).names == {0: "round", 1: "square"}


def test_images_in_training_mode_are_an_error(model: AutoShape, rgb: np.ndarray) -> None:
    model.train()
    with pytest.raises(ConfigError, match=r"model.eval\(\)"):
        model(rgb)


def test_moving_an_exported_file_is_a_warning(logged: list[str]) -> None:
    AutoShape(load_backend(exported("onnx"), CPU)).to("cpu")
    assert any("stays on cpu" in line for line in logged)


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        ("nowhere.jpg", DataError, "nowhere.jpg: no such file"),
        (__file__, DataError, "not an image"),
        (3, ConfigError, "image0: a int is not an image"),
        ([], DataError, "empty"),
        (np.zeros((0, 5, 3), np.uint8), DataError, "image0"),
        (np.zeros((2, 8, 8, 3), np.uint8), DataError, "image0: expected an image"),
        (np.full((8, 8, 3), 300), DataError, "0 to 255"),
        ([np.zeros((8, 8, 3), np.uint8), None], ConfigError, "image1: a NoneType"),
        ("ftp://example.org/a.jpg", DataError, "no such file"),
    ],
)
def test_an_object_that_is_not_an_image_is_named(
    model: AutoShape, image: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        model(image)


@pytest.mark.parametrize("size", [0, (64,), (64, -1)])
def test_an_invalid_size_is_named(model: AutoShape, rgb: np.ndarray, size: Any) -> None:
    with pytest.raises(ConfigError, match="size="):
        model(rgb, size=size)


def test_a_model_of_other_channels_names_their_number(rgb: np.ndarray) -> None:
    from models.yolo import DetectionModel

    shaped = AutoShape(DetectionModel({**tiny_model().yaml, "ch": 4}))
    with pytest.raises(ConfigError, match="4 channels"):
        shaped(rgb)
    assert shaped(torch.rand(1, 4, 64, 64))[0].shape[2] == 7


def test_only_detectors_are_wrapped() -> None:
    with pytest.raises(ConfigError, match="not Conv2d"):
        AutoShape(torch.nn.Conv2d(3, 3, 1))


@pytest.fixture
def site(rgb: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serve({"/some%20bus.png": Answer(as_png(rgb))}) as running:
        yield running


def test_an_image_at_a_url(model: AutoShape, rgb: np.ndarray, site: Site) -> None:
    model.private_addresses = True
    site.answers["/some%20bus.png?size=large"] = site.answers["/some%20bus.png"]
    results = model(f"{site.url}/some%20bus.png?size=large", size=96)
    assert results.files == ["some bus.jpg"]
    assert same(results, model(rgb, size=96))
    with pytest.raises(DataError, match="404"):
        model(f"{site.url}/none.png")


def test_urls_of_private_hosts_are_rejected(model: AutoShape, site: Site) -> None:
    for url in (f"{site.url}/some%20bus.png", "http://[::1]/a.png", "http://169.254.169.254/latest"):
        with pytest.raises(ConfigError, match="not a public address"):
            model(url)
    assert not site.asked


@needs_shared
@pytest.mark.parametrize("image", ["bus", "zidane"])
def test_official_weights_give_the_detections_of_the_original(image: str) -> None:
    shaped = AutoShape(load_backend(SHARED / "weights" / "yolov5n.pt", CPU))
    want = np.array(golden("03_detections")["cases"][f"{image}/640/default"]["rows_xyxy_conf_cls"])
    file = SHARED / "data" / f"{image}.jpg"
    with Image.open(file) as opened:
        results = shaped([file, opened])
    assert len(results) == 2
    for rows in results.xyxy:
        assert rows[:, 5].tolist() == want[:, 5].tolist()
        np.testing.assert_allclose(rows[:, 4], want[:, 4], atol=2e-3)
        np.testing.assert_allclose(rows[:, :4], want[:, :4], atol=0.6)
