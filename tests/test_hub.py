from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from models.autoshape import AutoShape
from models.weights import model_record, save_checkpoint
from models.yolo import DetectionModel
from tests.known import SHARED, fill, needs_shared, pattern_image
from tests.models.backends.files import checkpoint, exported
from utils.base.errors import ConfigError, DataError
from utils.base.paths import ROOT
from utils.plots.annotator import write_image


def load(entry: str, *args: Any, **kwargs: Any) -> Any:
    return torch.hub.load(str(ROOT), entry, *args, source="local", device="cpu", _verbose=False, **kwargs)


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a stand-in for the official yolov5n.pt."""
    folder = tmp_path_factory.mktemp("official")
    model = DetectionModel("yolov5n.yaml")
    fill(model, 4)
    model.names = {index: f"thing {index}" for index in range(80)}
    save_checkpoint(folder / "yolov5n.pt", {"model": model_record(model)})
    return folder


@pytest.mark.parametrize("kind", ["pt", "onnx", "torchscript"])
def test_a_file_loads_in_another_program_without_a_network(kind: str, offline: Path) -> None:
    file = checkpoint() if kind == "pt" else exported(kind)
    write_image(offline / "image.png", pattern_image(64, 64))
    program = f"""
import torch
model = torch.hub.load({str(ROOT)!r}, "custom", path={str(file)!r}, source="local", device="cpu")
model.conf = 0.01
results = model("image.png", size=64)
results.print()
results.save()
results.crop()
print("boxes", len(results.xyxy[0]), model.names)
"""
    (offline / "program.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=offline, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "image 1/1: 64x64" in done.stdout
    boxes = int(done.stdout.rpartition("boxes ")[2].split()[0])
    assert boxes > 0 and "'red plate'" in done.stdout
    assert (offline / "runs/detect/exp/image.jpg").exists()


def test_every_model_has_a_documented_entry_point() -> None:
    module = hubconf()
    scales = [f"yolov5{scale}" for scale in "nsmlx"]
    expected = {"custom", *scales, *(f"{name}6" for name in scales), *(f"{name}_lska" for name in scales)}
    entries = {name for name, value in vars(module).items() if callable(value) and not name.startswith("_")}
    assert entries == expected
    for name in entries:
        entry = getattr(module, name)
        assert (entry.__name__, bool(entry.__doc__)) == (name, True)
    assert {"torch", "cv2"} <= set(module.dependencies)


@pytest.mark.parametrize("name", ["yolov5n", "yolov5n6", "yolov5n_lska"])
def test_models_without_weights_have_the_given_channels_and_classes(name: str) -> None:
    model = load(name, pretrained=False, channels=4, classes=7, autoshape=False)
    assert isinstance(model, DetectionModel) and not model.training
    assert (model.nc, model.yaml["ch"]) == (7, 4)
    assert model.model[0].conv.weight.shape[1] == 4
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_official_weights_come_from_the_current_folder(
    official: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(official)
    shaped = load("yolov5n")
    assert isinstance(shaped, AutoShape)
    assert shaped.names[3] == "thing 3"
    plain = load("yolov5n", autoshape=False)
    assert isinstance(plain, DetectionModel)
    assert all(parameter.requires_grad for parameter in plain.parameters())


def test_lska_models_start_with_the_official_weights(official: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(official)
    shaped, want = load("yolov5n_lska"), load("yolov5n")
    assert any("LSKA" in type(module).__name__ for module in shaped.modules())
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(shaped(images)[0], want(images)[0])
    assert shaped.names == want.names


def test_weights_that_fit_are_kept_for_other_classes(official: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(official)
    plain = load("yolov5n", autoshape=False).state_dict()
    other = load("yolov5n", classes=3, autoshape=False)
    state = other.state_dict()
    fitting = [key for key in state if state[key].shape == plain[key].shape]
    assert all(torch.equal(state[key], plain[key]) for key in fitting)
    assert len(fitting) == len(state) - 6
    assert other.names == {0: "0", 1: "1", 2: "2"}
    four = load("yolov5n", channels=4, autoshape=False)
    assert four.names[3] == "thing 3"
    assert torch.equal(four.state_dict()["model.1.conv.weight"], plain["model.1.conv.weight"])


def test_errors_name_the_argument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="^nowhere.pt: no such file"):
        load("custom", "nowhere.pt")
    with pytest.raises(DataError, match=r"nowhere.onnx: no such file"):
        load("custom", "nowhere.onnx")
    with pytest.raises(ConfigError, match="classes=0"):
        load("yolov5n", pretrained=False, classes=0)
    with pytest.raises(ConfigError, match="expected cpu, mps, or a GPU number"):
        torch.hub.load(str(ROOT), "yolov5n", source="local", device="abacus")


def test_another_package_of_the_same_name_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "utils").mkdir()
    (tmp_path / "utils" / "__init__.py").write_text("mine = 1\n")
    words = f"import utils, torch; torch.hub.load({str(ROOT)!r}, 'yolov5n', source='local')"
    done = subprocess.run(
        [sys.executable, "-c", words], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert "another module called utils; load the model before it" in done.stderr.splitlines()[-1]


@needs_shared
def test_several_files_form_an_ensemble() -> None:
    file = SHARED / "weights" / "yolov5n.pt"
    results = load("custom", [file, file])(SHARED / "data" / "bus.jpg")
    assert str(results).startswith("image 1/1: 1080x810 4 persons, 1 bus")


def hubconf() -> ModuleType:
    import importlib

    return importlib.import_module("hubconf")
