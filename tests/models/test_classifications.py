"""AutoShape with a classification model, and what it returns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from models.autoshape import AutoShape, Classifications
from models.backends import load_backend
from models.common import DetectMultiBackend
from models.weights import Ensemble, load_for_inference
from models.yolo import ClassificationModel
from tests.known import SHARED, needs_shared, pattern_image
from tests.models.backends.files import CPU
from tests.models.classifier import NAMES, classifier
from utils.base.paths import ROOT
from utils.base.timing import Stopwatch
from utils.export import export_function
from utils.export.export_settings import ExportSettings
from utils.tasks.task import get_task

SIDE = 64


@pytest.fixture
def model() -> AutoShape:
    return AutoShape(load_backend(classifier(), CPU))


@pytest.fixture
def rgb() -> np.ndarray:
    """An image whose channels differ, twice as wide as high."""
    return np.ascontiguousarray(pattern_image(40, 80)[..., ::-1])


def directly(rgb: np.ndarray, side: int = SIDE) -> torch.Tensor:
    """Return the probabilities of an image as classify/predict.py has them."""
    images = get_task("classify").prepare_image(rgb[..., ::-1], (side, side))
    with torch.inference_mode():
        return torch.as_tensor(load_for_inference(classifier(), CPU)(images).softmax(1))


def test_an_image_of_any_type_gives_the_same_classes(
    model: AutoShape, rgb: np.ndarray, tmp_path: Path
) -> None:
    file = tmp_path / "an image.png"
    cv2.imwrite(str(file), rgb[..., ::-1])
    kinds: list[Any] = [str(file), file, Image.fromarray(rgb), rgb, rgb.transpose(2, 0, 1)]
    for kind in kinds:
        results = model(kind, size=SIDE)
        assert isinstance(results, Classifications)
        torch.testing.assert_close(results.probs, directly(rgb), atol=1e-5, rtol=1e-4)
    together = model([*kinds, pattern_image(30, 20)], size=SIDE)
    torch.testing.assert_close(together.probs[:5], directly(rgb).expand(5, -1), atol=1e-5, rtol=1e-4)
    assert (len(together), together.files[0], together.files[3]) == (6, "an image.jpg", "image3.jpg")


def test_the_default_size_is_that_of_classifiers(model: AutoShape, rgb: np.ndarray) -> None:
    assert model(rgb).s == (1, 3, 224, 224)
    assert model(rgb, size=48).s == (1, 3, 48, 48), "any size, not only multiples of the stride"


def test_a_normalized_tensor_gives_logits(model: AutoShape, rgb: np.ndarray) -> None:
    images = get_task("classify").prepare_image(rgb[..., ::-1], (SIDE, SIDE))
    network = torch.hub.load(
        str(ROOT), "custom", classifier(), False, source="local", device="cpu", _verbose=False
    )
    assert isinstance(network, ClassificationModel)
    for each in (model, network, DetectMultiBackend(classifier())):
        logits = each(images)
        assert logits.shape == (1, len(NAMES))
        torch.testing.assert_close(logits.detach().softmax(1), directly(rgb), atol=1e-5, rtol=1e-4)


def test_models_in_memory_and_those_of_other_wrappers_are_accepted(rgb: np.ndarray) -> None:
    hub = torch.hub.load(str(ROOT), "custom", classifier(), source="local", device="cpu", _verbose=False)
    for model in (
        hub,
        AutoShape(load_for_inference(classifier(), CPU)),
        AutoShape(DetectMultiBackend(classifier())),
    ):
        torch.testing.assert_close(model(rgb, size=SIDE).probs, directly(rgb), atol=1e-5, rtol=1e-4)


def test_an_exported_file_keeps_its_size(rgb: np.ndarray, tmp_path: Path) -> None:
    file = tmp_path / "tiny-cls.torchscript"
    settings = ExportSettings(stride=32, names=NAMES, include=["torchscript"], task="classify")
    images, network = torch.zeros(1, 3, SIDE, SIDE), load_for_inference(classifier(), CPU)
    assert not isinstance(network, Ensemble)
    export_function("torchscript")(network, images, file, settings)
    results = AutoShape(load_backend(file, CPU))([rgb, rgb])
    assert results.s == (2, 3, SIDE, SIDE) and results.names == NAMES
    torch.testing.assert_close(results.probs[1:], directly(rgb), atol=1e-5, rtol=1e-4)


# ---- the results


@pytest.fixture
def results() -> Classifications:
    probs = torch.tensor([[0.5, 0.25, 0.125, 0.0625, 0.03125, 0.03], [0.0, 1.0, 0.0, 0.0, 0.0, 0.0]])
    clocks = [Stopwatch() for _ in range(3)]
    clocks[1].total = 0.04
    ims = [pattern_image(240, 300), pattern_image(50, 40)]
    return Classifications(ims, probs, ["a.jpg", "a.jpg"], clocks, NAMES, (2, 3, 64, 64))


def test_the_most_probable_classes_come_first(results: Classifications) -> None:
    assert results.top.shape == (2, 5, 2)
    assert results.top[0, :2].tolist() == [[0.5, 0], [0.25, 1]]
    assert (results.top1, results.labels) == ([0, 1], ["rbc", "wbc"])
    two = Classifications(results.ims, results.probs[:, :2], results.files, names=NAMES)
    assert two.top.shape == (2, 2, 2), "there are only two classes"


def test_it_is_a_sequence_of_one_per_image(results: Classifications) -> None:
    assert (len(results), results.t) == (2, pytest.approx((0, 20, 0)))
    first, second = results
    assert (first.labels, second.labels, first.t) == (["rbc"], ["wbc"], results.t)
    assert torch.equal(results[-1].probs, results.probs[1:])


def test_print_lists_the_five_most_probable_classes(
    results: Classifications, capsys: pytest.CaptureFixture[str]
) -> None:
    results.print()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "image 1/2: 240x300 rbc 0.50, wbc 0.25, platelet 0.12, red/cell 0.06, dust 0.03"
    assert lines[2] == (
        "Speed: 0.0ms pre-process, 20.0ms inference, 0.0ms post-process per image at shape (2, 3, 64, 64)"
    )
    assert repr(results) == "<Classifications 2 images, 6 classes>"


def test_classes_are_drawn_into_ims_by_render_and_saved(
    results: Classifications, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    originals = [image.copy() for image in results.ims]
    given = list(results.ims)
    plain, drawn = results.render(labels=False), results.render()
    assert all(map(np.array_equal, given, originals)) and all(map(np.array_equal, plain, originals))
    assert not np.array_equal(drawn[0], originals[0]) and results.ims[0] is drawn[0]
    assert all(map(np.array_equal, results.originals(), originals))
    assert results.save() == Path("runs/predict-cls/exp") and results.save() == Path("runs/predict-cls/exp2")
    assert sorted(path.name for path in Path("runs/predict-cls/exp").iterdir()) == ["a.jpg", "a2.jpg"]


def test_tables_and_supervision_have_the_probabilities(results: Classifications) -> None:
    pytest.importorskip("pandas")
    sv = pytest.importorskip("supervision")
    tables = results.pandas()
    assert tables.top[0].to_dict("records")[0] == {"confidence": 0.5, "class": 0, "name": "rbc"}
    assert [*tables.probs.columns] == [*NAMES.values()] and tables.probs.iloc[1, 1] == 1
    first, second = results.to_supervision()
    assert isinstance(first, sv.Classifications)
    assert [part.tolist() for part in second.get_top_k(1)] == [[1], [1.0]]


@needs_shared
def test_a_model_of_the_original_gives_its_classes_and_probabilities() -> None:
    """Compared with the label files that classify/predict.py of the original wrote."""
    known = json.loads((SHARED / "fixtures/15_classify_val.json").read_text())["predict_txt_img96"]
    model = AutoShape(load_backend(SHARED / "weights/cells-cls.pt", CPU))
    for file, lines in known.items():
        (image,) = (SHARED / "data/cells/val").glob(f"*/{Path(file).stem}.jpg")
        results = model(image, size=96)
        assert [*results.pandas().top[0].name] == [line.partition(" ")[2] for line in lines]
        assert results.top[0, :, 0].tolist() == pytest.approx(
            [float(line.split()[0]) for line in lines], abs=0.0051
        )
