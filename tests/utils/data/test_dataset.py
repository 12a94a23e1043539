import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from tests.known import golden, needs_shared, pattern_image
from tests.utils.data.image_files import assert_same_image, golden_image, golden_pattern, make_set
from utils.base.errors import DataError
from utils.base.log import LOG
from utils.base.yaml_io import read_yaml
from utils.data.dataset import DetectionDataset, Item, SampleKey
from utils.data.image_cache import RamCache
from utils.ops.boxes import xywhn2xyxy

GOLDEN = golden("01_letterbox")
ROOT = Path(__file__).parents[3]
HYP = read_yaml(ROOT / "data/hyps/hyp.scratch-high.yaml")
PLAIN = read_yaml(ROOT / "data/hyps/hyp.no-augmentation.yaml")
SIZES = ((60, 80), (80, 60), (50, 50), (30, 90))


def same(one: Item, other: Item) -> bool:
    return (
        one.path == other.path
        and torch.equal(one.image, other.image)
        and torch.equal(one.labels, other.labels)
    )


@needs_shared
@pytest.mark.parametrize(
    "case", GOLDEN["val_preprocess"], ids=lambda c: f"{c['image']}-{c['img_size']}-{c['augment']}"
)
def test_scaling_equals_the_original(case: dict[str, Any], tmp_path: Path) -> None:
    name = case["image"]
    image = golden_pattern(name) if name.startswith("pattern") else golden_image(name)
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.png").write_bytes(cv2.imencode(".png", image)[1].tobytes())
    (tmp_path / "images/a.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    data = DetectionDataset([tmp_path / "images"], case["img_size"], augment=case["augment"], hyp=HYP)
    _, sample, original_hw = data._reader.sample(0)
    assert list(original_hw) == case["hw0"]
    assert_same_image(sample.image, case)


def test_validation_images_are_letterboxed_and_labels_follow(tmp_path: Path) -> None:
    data = DetectionDataset([make_set(tmp_path, sizes=SIZES)], 64)
    for index in range(len(data)):
        item = data[index]
        assert item.image.shape == (3, 64, 64)
        assert item.shapes is not None
        (h0, w0), (gains_hw, pad_xy) = item.shapes
        assert data.shapes[index].tolist() == [w0, h0]
        boxes = xywhn2xyxy(item.labels[:, 2:].numpy(), 64, 64)
        native = (boxes - np.tile(pad_xy, 2)) / np.tile(gains_hw[::-1], 2)
        np.testing.assert_allclose(native, xywhn2xyxy(data.labels[index][:, 1:], w0, h0), atol=0.01)
        assert item.labels[:, 1].tolist() == data.labels[index][:, 0].tolist()


def test_images_are_rgb(tmp_path: Path) -> None:
    images = make_set(tmp_path, 1, sizes=((64, 64),))
    item = DetectionDataset([images], 64)[0]
    assert (item.image.numpy().transpose(1, 2, 0)[..., ::-1] == pattern_image(64, 64)).all()


def test_rectangular_batches_sort_images_labels_and_sizes_alike(tmp_path: Path) -> None:
    data = DetectionDataset([make_set(tmp_path, 8, sizes=SIZES)], 64, batch_size=3, rect=True, pad=0.5)
    assert data.batch_shapes is not None
    assert (np.diff(data.shapes[:, 1] / data.shapes[:, 0]) >= 0).all()
    for index in range(len(data)):
        item = data[index]
        number = int(Path(item.path).stem)
        assert item.image.shape[1:] == tuple(data.batch_shapes[index // 3])
        assert data.shapes[index].tolist() == list(SIZES[number % 4][::-1])
        assert data.labels[index][:, 0].tolist() == [number % 3, 1]


def test_a_sample_depends_on_seed_epoch_and_index_only(tmp_path: Path) -> None:
    images = make_set(tmp_path, sizes=SIZES)
    data, again = (DetectionDataset([images], 64, augment=True, hyp=HYP, seed=1) for _ in range(2))
    forward = [data[(2, index)] for index in range(6)]
    backward = [again[(2, index)] for index in reversed(range(6))][::-1]
    assert all(map(same, forward, backward))
    assert not same(data[(3, 0)], forward[0])
    assert not same(DetectionDataset([images], 64, augment=True, hyp=HYP, seed=2)[(2, 0)], forward[0])
    assert not same(data[SampleKey(2, 0, repeat=1)], forward[0])
    assert same(data[SampleKey(2, 0)], forward[0])


def test_a_plain_index_means_epoch_0(tmp_path: Path) -> None:
    data = DetectionDataset([make_set(tmp_path)], 64, augment=True, hyp=HYP)
    assert same(data[1], data[(0, 1)])


@pytest.mark.parametrize("cache", [None, "ram", "disk"])
def test_caches_change_no_pixel(tmp_path: Path, cache: str | None) -> None:
    images = make_set(tmp_path, sizes=SIZES)
    plain = DetectionDataset([images], 64, augment=True, hyp=HYP)
    plain._reader._cache = None
    cached = DetectionDataset([images], 64, augment=True, hyp=HYP, cache=cache)
    for epoch in (0, 1):
        assert all(same(plain[(epoch, index)], cached[(epoch, index)]) for index in range(6))


def test_without_augmentation_training_sees_the_letterboxed_images(tmp_path: Path) -> None:
    images = make_set(tmp_path, sizes=((64, 64), (48, 64)))
    trained = DetectionDataset([images], 64, augment=True, hyp=PLAIN)
    validated = DetectionDataset([images], 64)
    for index in range(6):
        assert torch.equal(trained[(5, index)].image, validated[index].image)
        torch.testing.assert_close(trained[(5, index)].labels, validated[index].labels, atol=1e-4, rtol=0)


def test_labels_of_augmented_images_stay_in_the_image(tmp_path: Path) -> None:
    hyp = {**HYP, "degrees": 20.0, "shear": 5.0, "perspective": 0.0005, "mixup": 0.5, "flipud": 0.5}
    data = DetectionDataset([make_set(tmp_path, sizes=SIZES)], 64, augment=True, hyp=hyp)
    labels = torch.cat([data[(epoch, index)].labels for epoch in range(10) for index in range(6)])
    assert len(labels) > 50
    assert ((labels[:, 2:] >= 0) & (labels[:, 2:] <= 1)).all()
    corners = labels[:, 2:4] - labels[:, 4:] / 2, labels[:, 2:4] + labels[:, 4:] / 2
    assert corners[0].min() >= -1e-5
    assert corners[1].max() <= 1 + 1e-5


def test_boxes_follow_their_object_through_all_augmentations(tmp_path: Path) -> None:
    """A bright square on black: the image is bright inside the boxes and dark outside."""
    folder, size = tmp_path / "images", 128
    folder.mkdir()
    for number in range(4):
        image = np.zeros((96, 128, 3), np.uint8)
        image[24:72, 32:96] = 255
        cv2.imwrite(str(folder / f"{number}.png"), image)
    (tmp_path / "labels").mkdir()
    for number in range(4):
        (tmp_path / f"labels/{number}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    hyp = {**PLAIN, "mosaic": 0.7, "scale": 0.3, "translate": 0.1, "fliplr": 0.5, "flipud": 0.5}
    data = DetectionDataset([folder], size, augment=True, hyp=hyp)
    unmarked = []
    for key in [(epoch, index) for epoch in range(5) for index in range(4)]:
        item = data[key]
        bright = (item.image.numpy() > 180).all(0)
        marked = np.zeros_like(bright)
        for x1, y1, x2, y2 in xywhn2xyxy(item.labels[:, 2:].numpy(), size, size).round().astype(int):
            marked[y1:y2, x1:x2] = True
        assert (marked & ~bright).mean() < 0.03
        unmarked.append((bright & ~marked).mean())  # parts at the border whose boxes were dropped
    assert np.mean(unmarked) < 0.02


def test_pasted_objects_are_labelled(tmp_path: Path) -> None:
    images = make_set(tmp_path, 4)
    for path in (tmp_path / "labels/train").iterdir():
        path.write_text("2 0.1 0.1 0.3 0.1 0.3 0.4 0.1 0.4\n")
    plain, pasting = (
        DetectionDataset([images], 64, augment=True, hyp={**PLAIN, "mosaic": 1.0, "copy_paste": share})
        for share in (0.0, 1.0)
    )
    counts = [sum(len(data[(e, i)].labels) for e in range(5) for i in range(4)) for data in (plain, pasting)]
    assert counts[1] > 1.2 * counts[0]


def test_background_images_are_shown_without_labels(tmp_path: Path) -> None:
    images = make_set(tmp_path, 3)
    (tmp_path / "labels/train/001.txt").unlink()
    item = DetectionDataset([images], 64)[1]
    assert item.labels.shape == (0, 6)


def test_single_class_maps_all_labels_to_class_0(tmp_path: Path) -> None:
    images = make_set(tmp_path)
    data = DetectionDataset([images], 64, single_cls=True, names={0: "item"})
    assert {float(row) for rows in data.labels for row in rows[:, 0]} == {0.0}
    assert len(data) == 6
    assert DetectionDataset([images], 64).labels[2][0, 0] == 2  # the cache keeps the true classes


def test_a_dataset_without_labels_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LOG, "propagate", True)
    images = make_set(tmp_path, 2)
    for path in (tmp_path / "labels/train").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="no labels found"):
        DetectionDataset([images], 64, augment=True, hyp=HYP)
    DetectionDataset([images], 64)
    assert "no labels found" in caplog.messages[-1]


@pytest.mark.parametrize("augment", [False, True])
def test_an_unreadable_image_is_replaced_and_reported_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, augment: bool
) -> None:
    monkeypatch.setattr(LOG, "propagate", True)
    images = make_set(tmp_path, 4, sizes=SIZES)
    data = DetectionDataset([images], 64, augment=augment, hyp={**HYP, "mosaic": 0.0})
    (images / "001.png").unlink()
    (images / "002.png").write_bytes(b"junk")
    for _ in range(2):
        item = data[1]
        assert Path(item.path).name == "003.png"
        assert item.shapes is not None
        assert item.shapes[0] == SIZES[3]
    warnings = [text for text in caplog.messages if "is used instead" in text]
    assert [Path(text.split(": ")[0]).name for text in warnings] == ["001.png", "002.png"]


def test_no_readable_image_is_an_error(tmp_path: Path) -> None:
    images = make_set(tmp_path, 2)
    data = DetectionDataset([images], 64)
    for path in images.iterdir():
        path.unlink()
    with pytest.raises(DataError, match="none of the 2 images can be read"):
        data[0]


def test_a_dataset_can_be_sent_to_a_spawned_worker(tmp_path: Path) -> None:
    data = DetectionDataset([make_set(tmp_path)], 64, augment=True, hyp=HYP, cache="ram")
    first = data[0]
    copy = pickle.loads(pickle.dumps(data))
    assert isinstance(copy._reader._cache, RamCache)
    assert same(copy[0], first)


def test_one_image_is_enough(tmp_path: Path) -> None:
    data = DetectionDataset([make_set(tmp_path, 1)], 64, augment=True, hyp=HYP)
    assert data[(0, 0)].image.shape == (3, 64, 64)


@pytest.mark.parametrize("augment", [False, True])
def test_an_image_is_written_to_the_given_array(tmp_path: Path, augment: bool) -> None:
    data = DetectionDataset([make_set(tmp_path)], 64, augment=augment, hyp=HYP)
    batch = np.zeros((2, 3, *data.input_hw(3)), np.uint8)
    item = data.sample(SampleKey(0, 3), batch[1])
    assert np.shares_memory(item.image.numpy(), batch)
    assert same(item, data[3])
    assert not batch[0].any()
