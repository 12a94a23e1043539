"""`export.py --include yolov5`: files with the classes, attributes and tensors of the original's.

tests/golden/16_yolov5_files.json: classes and attributes in files that the original has written (../shared),
and of its blocks as PyPI's yolov5 7.0.14 makes them.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import pickletools
import shutil
import subprocess
import sys
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import export
import models.common
from models.attention.gates import CONTROLS
from models.pickles import Record, make_record, read_torch_file, write_torch_file
from models.registry import registered
from models.weights import build_model, model_record, read_checkpoint, save_checkpoint
from models.yolo import make_model
from tests.known import SHARED, fill, golden, needs_shared, pattern_image, to_tensor
from utils.export.yolov5 import PASTE, _Converter, blocks_to_paste, yolov5_content

CONFIGS = {"detect": "yolov5n.yaml", "segment": "yolov5n-seg.yaml", "classify": "yolov5n-cls.yaml"}
SHARED_FILES = {"detect": "yolov5n.pt", "segment": "nuclei-seg.pt", "classify": "cells-cls.pt"}
NAMES = {0: "cell", 1: "red plate", 2: "猫"}
OPT = {"imgsz": 64, "hyp": {"lr0": 0.01}, "epochs": 3}
METADATA = {"date": "2026-01-02T03:04:05", "git": {"remote": None, "branch": "main", "commit": None}}
_BASE = {*vars(nn.Module()), "_is_full_backward_hook"}
ANCHORS = [[10, 13, 16, 30]]


def saved(model: Any, path: Path, tag: int = 4) -> Path:
    """Save a model with made-up weights and names as training leaves it."""
    fill(model, tag)
    model.names = {index: NAMES[index] for index in range(model.nc)}
    model.hyp = {"lr0": 0.01, "box": 0.05}
    content = {"epoch": -1, "model": model_record(model, half=True), "ema": None, "opt": OPT}
    save_checkpoint(path, content | METADATA)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with TASK.pt, and TASK_yolov5.pt exported from it, for the three tasks."""
    folder = tmp_path_factory.mktemp("yolov5 files")
    files = [saved(make_model(cfg, nc=3), folder / f"{task}.pt") for task, cfg in CONFIGS.items()]
    before = [file.read_bytes() for file in files]
    written = export.run(weights=files, include=["yolov5"], imgsz=64)
    assert [file.name for file in written] == [f"{task}_yolov5.pt" for task in CONFIGS]
    assert [file.read_bytes() for file in files] == before
    return folder


def converted(config: Any, tmp_path: Path, **changes: Any) -> tuple[Any, Path]:
    """Return a model of a config, and its file in YOLOv5's format."""
    model = make_model(config, nc=3)
    if changes.get("fused"):
        model.fuse()
    checkpoint = read_checkpoint(saved(model, tmp_path / "own.pt"))
    model = build_model(checkpoint)
    with (tmp_path / "own_yolov5.pt").open("wb") as file:
        write_torch_file(file, yolov5_content(model, checkpoint))
    return model, tmp_path / "own_yolov5.pt"


def layers(*rows: list[Any]) -> dict[str, Any]:
    """Return the yaml of a detector with these rows before its head."""
    return {
        "nc": 3,
        "anchors": ANCHORS,
        "backbone": [*rows],
        "head": [[[-1], 1, "Detect", ["nc", "anchors"]]],
    }


def stream(path: Path) -> bytes:
    """Return the pickle of a file."""
    with zipfile.ZipFile(path) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("/data.pkl")))


def globals_of(path: Path) -> set[str]:
    """Return every global that a file names."""
    steps = pickletools.genops(stream(path))
    return {str(value).replace(" ", ".") for code, value, _ in steps if code.name == "GLOBAL"}


def records(module: Record, name: str = "") -> Iterator[tuple[str, Record]]:
    """Yield the record of a module and those of all modules inside it, with their names."""
    yield name, module
    for key, child in module.fields["_modules"].items():
        if child is not None:
            yield from records(child, f"{name}.{key}".strip("."))


def attributes(module: Record) -> set[str]:
    """Return the attributes of a module beside those that all of PyTorch's have."""
    return {key for key in module.fields if key not in _BASE and "hook" not in key}


def outputs(model: Any, images: Tensor) -> list[Tensor]:
    """Return the decoded output of a model, and the prototypes of a segmentation model."""
    with torch.inference_mode():
        found = model(images)
    return [each for each in (found if isinstance(found, tuple) else [found]) if isinstance(each, Tensor)]


@pytest.mark.parametrize("task", CONFIGS)
def test_a_file_has_the_structure_of_the_originals(folder: Path, task: str) -> None:
    path, known = folder / f"{task}_yolov5.pt", golden("16_yolov5_files")["files"][task]
    content = read_torch_file(path)
    assert set(content) == {*known["keys"], "git", "opt"} - {"wandb_id"}
    assert [content[key] for key in ("epoch", "best_fitness", "ema", "updates", "optimizer")] == [
        -1,
        *[None] * 4,
    ]
    assert content["opt"] == OPT and content["date"] == METADATA["date"] and content["git"] == METADATA["git"]

    renamed = {name.replace("models.yolo.Model", "models.yolo.DetectionModel") for name in known["globals"]}
    unused = {"torch.DoubleStorage", "torch.FloatStorage", "pathlib.PosixPath"}  # class weights, stride, opt
    assert globals_of(path) - unused == renamed - unused
    for name, module in records(content["model"]):
        origin = module.origin.replace("DetectionModel", "Model") if task == "detect" else module.origin
        expected = set(known["classes"][origin]["attributes"])
        ours = attributes(module)
        if name and "i" not in ours:  # a module inside a layer
            expected -= {"i", "f", "type", "np"}
        extra = {"yaml"} if not name else {"recompute_scale_factor", "np"}  # of newer PyTorch; Classify
        assert expected - {"class_weights"} <= ours <= expected | extra, name
        children = {key for key, child in module.fields["_modules"].items() if not key.isdigit()}
        assert children <= set(known["classes"][origin]["children"]), name
        assert module.fields["training"] is False
        for value in (module.fields["_parameters"] | module.fields["_buffers"]).values():
            assert value is None or value.dtype in (torch.float16, torch.int64)


@pytest.mark.parametrize("task", CONFIGS)
def test_the_file_is_read_back_with_everything_in_it(folder: Path, task: str) -> None:
    own, theirs = (read_checkpoint(folder / f"{task}{end}.pt") for end in ("", "_yolov5"))
    assert list(own.state) == list(theirs.state)
    assert all(torch.equal(value, theirs.state[key]) for key, value in own.state.items())
    assert own.stride == theirs.stride and own.names == theirs.names == NAMES and own.opt == theirs.opt
    if task == "classify":  # whose files hold no yaml, hyp and file name in the original
        theirs.yaml["yaml_file"] = own.yaml["yaml_file"]
    else:
        assert own.hyp == theirs.hyp
    assert own.yaml == theirs.yaml and own.metadata == theirs.metadata


@pytest.mark.parametrize("task", CONFIGS)
def test_torch_load_makes_a_model_that_computes_the_same(folder: Path, task: str) -> None:
    images = to_tensor(pattern_image(64, 96)[None])
    expected = outputs(build_model(read_checkpoint(folder / f"{task}.pt")), images)
    loaded = torch.load(folder / f"{task}_yolov5.pt", weights_only=False)["model"]
    assert not any(value.requires_grad for value in loaded.parameters())
    assert loaded.names == (list(NAMES.values()) if task == "classify" else NAMES)
    for ours, found in zip(expected, outputs(loaded.float(), images), strict=True):
        assert torch.allclose(ours, found, atol=1e-4)


def test_a_record_becomes_an_object_of_a_class_that_does_not_exist(tmp_path: Path) -> None:
    part = make_record("no.such.Part", {"value": torch.arange(3)})
    call = make_record("builtins.getattr", args=(part, "value"))
    with (tmp_path / "x.pt").open("wb") as file:
        write_torch_file(file, {"a": part, "same": [part, {1, 2}], "call": call})
    content = read_torch_file(tmp_path / "x.pt")
    assert content["a"] is content["same"][0] and content["same"][1] == {1, 2}
    assert content["a"].origin == "no.such.Part" and content["a"].get("value").tolist() == [0, 1, 2]
    assert content["call"].origin == "builtins.getattr" and content["call"].args == (content["a"], "value")
    assert "no" not in sys.modules


BLOCKS: dict[str, list[Any]] = {
    "CrossConv": [16, 3, 1, 1, 1.0, True],
    "MixConv2d": [16, [1, 3]],
    "GhostBottleneck": [16, 3, 2],
    "C3SPP": [16, [5, 9]],
    "SPP": [16, [5, 9]],
    "DWConvTranspose2d": [16, 2, 2],
    "TransformerBlock": [8, 4, 1],
    "Contract": [2],
    "Expand": [2],
    "Focus": [16, 3],
    **{name: [16] for name in ("Conv", "DWConv", "GhostConv", "Bottleneck", "SPPF")},
    **{name: [16] for name in ("C3", "C3x", "C3TR", "C3Ghost", "BottleneckCSP")},
}


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_have_the_attributes_of_the_originals(name: str) -> None:
    model = make_model(layers([-1, 1, "Conv", [16, 3, 2]], [-1, 1, name, BLOCKS[name]]), nc=3)
    known = golden("16_yolov5_files")["blocks"]
    assert not blocks_to_paste(model)
    for _, record in records(_Converter().record(model.model)):
        if record.class_name in known and record.origin.startswith("models."):
            block = known[record.class_name]
            assert record.origin == f"{block['module']}.{record.class_name}"
            of_a_layer = {"i", "f", "type", "np", "stride"}
            found = {*attributes(record), *record.fields["_modules"]}  # a child that is None is an attribute
            assert found - of_a_layer == {*block["attributes"], *block["children"]} - of_a_layer


def test_a_fused_checkpoint_calls_the_method_for_it(tmp_path: Path) -> None:
    model, path = converted("yolov5n.yaml", tmp_path, fused=True)
    images = to_tensor(pattern_image(64, 64)[None])
    layer = read_torch_file(path)["model"].get("model").get("0")
    assert set(layer.fields["_modules"]) == {"conv", "act"}
    assert layer.get("forward").args == (layer, "forward_fuse")
    loaded = torch.load(path, weights_only=False)["model"].float()
    assert torch.allclose(outputs(loaded, images)[0], outputs(model, images)[0], atol=1e-4)
    assert torch.equal(outputs(build_model(read_checkpoint(path)), images)[0], outputs(model, images)[0])


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_a_classifier_of_torchvision_is_its_own_module(tmp_path: Path, name: str) -> None:
    config = {"nc": 3, "backbone": [], "head": [[-1, 1, "TorchVision", ["nc", name]]]}
    model, path = converted(config, tmp_path)
    loaded = torch.load(path, weights_only=False)["model"].float()
    images = torch.rand(1, 3, 64, 64)
    assert type(loaded) is type(model.model[0].model) and loaded.names == list(NAMES.values())
    expected = outputs(model, images)[0]
    assert torch.equal(outputs(loaded, images)[0], expected)
    assert torch.equal(outputs(build_model(read_checkpoint(path)), images)[0], expected)


def pasted(path: Path) -> Any:
    """Load a file with the classes of data/blocks_for_yolov5.py in place of ours."""
    blocks = types.ModuleType("pasted")
    vars(blocks).update({name: vars(models.common)[name] for name in ("C3", "SPPF")})
    exec(compile(PASTE.read_text(), str(PASTE), "exec"), vars(blocks))  # as if appended to models/common.py

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            own = module == "models.common" and vars(blocks).get(name)
            return own or super().find_class(module, name)

    module = types.SimpleNamespace(__name__="pickle", Unpickler=Unpickler, load=pickle.load)
    return torch.load(io.BytesIO(path.read_bytes()), pickle_module=module, weights_only=False)[
        "model"
    ].float()


WITH_ATTENTION: dict[str, Any] = {
    "LSKA": layers([-1, 1, "Conv", [16, 3, 2]], [-1, 2, "LSKA", [11]]),
    "LKA": layers([-1, 1, "Conv", [16, 3, 2]], [-1, 1, "LKA", [7]]),
    "LSKATrivial": layers([-1, 1, "Conv", [16, 3, 2]], [-1, 1, "LSKATrivial", [7]]),
    "LKATrivial": layers([-1, 1, "Conv", [16, 3, 2]], [-1, 1, "LKATrivial", [7]]),
    "LSKAttention": layers([-1, 1, "Conv", [16, 3, 2]], [-1, 1, "LSKAttention", [7]]),
    "C3LSKA": layers([-1, 1, "Conv", [16, 3, 2]], [-1, 2, "C3LSKA", [16]]),
    "SPPFLSKA": layers([-1, 1, "Conv", [16, 3, 2]], [-1, 1, "SPPFLSKA", [16]]),
    "VANStage": layers([-1, 2, "VANStage", [16, 3, 2]]),
    "ClassifyLinear": {
        "nc": 3,
        "backbone": [[-1, 1, "VANStage", [16, 3, 2]]],
        "head": [[-1, 1, "ClassifyLinear", ["nc"]]],
    },
    **{name: layers([-1, 1, "Conv", [16, 3, 2]], [-1, 1, name, [{"init": "paper"}]]) for name in CONTROLS},
}


@pytest.mark.parametrize("name", WITH_ATTENTION)
def test_the_pasted_blocks_compute_what_ours_do(tmp_path: Path, name: str) -> None:
    model, path = converted(WITH_ATTENTION[name], tmp_path)
    images = to_tensor(pattern_image(32, 32)[None])
    expected = outputs(model, images)[0]
    loaded = pasted(path)
    assert name in blocks_to_paste(model) and f"models.common.{name}" in globals_of(path)
    assert not any(type(module).__module__.startswith("models.attention") for module in loaded.modules())
    assert torch.allclose(outputs(loaded, images)[0], expected, atol=1e-4)
    assert torch.equal(outputs(build_model(read_checkpoint(path)), images)[0], expected)


def test_every_block_with_attention_can_be_pasted() -> None:
    ours = {block.__name__ for block in registered().values() if block.__module__ == "models.common"}
    known = {*golden("16_yolov5_files")["blocks"], "TorchVision"}
    assert ours - known == set(WITH_ATTENTION)


def test_the_published_name_of_the_kernel_size_is_in_the_file(tmp_path: Path) -> None:
    _, path = converted(WITH_ATTENTION["LSKA"], tmp_path)
    found = [record for _, record in records(read_torch_file(path)["model"]) if record.class_name == "LSKA"]
    assert found and all(record.fields["k_size"] == 11 for record in found)


def test_a_file_with_attention_says_what_yolov5_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(make_model(WITH_ATTENTION["C3LSKA"], nc=3), tmp_path / "attention.pt")
    export.run(weights=path, include=["yolov5"], imgsz=64)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "YOLOv5 lacks" in line]
    assert "attention_yolov5.pt: YOLOv5 lacks C3LSKA, LSKA;" in line and "blocks_for_yolov5.py" in line


def without_grids(value: Any) -> Any:
    """Return what two fields have to agree in; grids are made again for each image size."""
    if isinstance(value, Tensor):
        return value.dtype, tuple(value.shape), value.tolist()
    if isinstance(value, Record):
        fields = {key: without_grids(each) for key, each in value.fields.items() if key in attributes(value)}
        return value.origin, tuple(map(str, value.args[1:])), fields
    return [without_grids(each) for each in value] if isinstance(value, list | tuple) else value


@needs_shared
@pytest.mark.parametrize("task", CONFIGS)
def test_a_file_of_the_original_is_written_as_it_was(tmp_path: Path, task: str) -> None:
    source = tmp_path / "file.pt"
    shutil.copy(SHARED / "weights" / SHARED_FILES[task], source)
    (written,) = export.run(weights=source, include=["yolov5"], imgsz=96)
    theirs, ours = (dict(records(read_torch_file(path)["model"])) for path in (source, written))
    assert list(theirs) == sorted(ours, key=list(theirs).index)
    allowed = {"yaml", "np", "recompute_scale_factor"}  # of classifiers; of Classify; of PyTorch since 1.11
    for name, module in theirs.items():
        same = ours[name]
        assert same.origin.replace("DetectionModel", "Model") == module.origin or task != "detect"
        assert attributes(module) <= attributes(same) <= attributes(module) | allowed, name
        for key in attributes(module) - {"grid", "anchor_grid", "names"}:
            if key != "inplace":  # of activations: the original has written both
                assert without_grids(same.fields[key]) == without_grids(module.fields[key]), (name, key)
        for holder in ("_parameters", "_buffers"):
            assert list(same.fields[holder]) == list(module.fields[holder])
            for key, value in module.fields[holder].items():
                mine = same.fields[holder][key]
                assert (
                    value is None and mine is None or mine.dtype == value.dtype and torch.equal(mine, value)
                )
    added = globals_of(written) - globals_of(source)
    assert added <= {"models.yolo.DetectionModel"}
    assert globals_of(source) - globals_of(written) <= {"models.yolo.Model", "pathlib.PosixPath"}


OWN_CONFIGS = (
    *("yolov5n-LSKA.yaml", "yolov5n-neck-C3LSKA.yaml", "yolov5n-SPPFLSKA.yaml", "yolov5-van-tiny.yaml"),
    *("yolov5s-ghost.yaml", "yolov5s-transformer.yaml", "yolov5s-seg-head-LSKA.yaml", "van-tiny-cls.yaml"),
)
PROGRAM = Path(__file__).with_name("with_yolov5.py")
PYTHON = os.environ.get("PYTHON_WITH_YOLOV5", "")


@pytest.mark.slow
@needs_shared
@pytest.mark.skipif(not PYTHON, reason="PYTHON_WITH_YOLOV5 is not set: a Python that has PyPI's yolov5")
def test_yolov5_itself_opens_the_files_and_finds_the_same(tmp_path: Path) -> None:
    names = ["yolov5n.pt", "bccd_yolov5n.pt", "nuclei-seg.pt", "cells-cls.pt"]
    files = [Path(shutil.copy(SHARED / "weights" / name, tmp_path)) for name in names]
    for config in OWN_CONFIGS:
        files.append(saved(make_model(config, nc=3), tmp_path / f"{Path(config).stem}.pt"))
    written = export.run(weights=files, include=["yolov5"], imgsz=160)
    images = to_tensor(np.stack([pattern_image(160, 192, k) for k in (0, 100)]))
    np.save(tmp_path / "images.npy", images.numpy())
    photos = [str(SHARED / "data" / name) for name in ("bus.jpg", "zidane.jpg")]
    task = {"files": [str(file) for file in written], "boxes": 2, "photos": photos, "paste": str(PASTE)}
    (tmp_path / "task.json").write_text(json.dumps(task))
    environment = os.environ | {
        "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": "",
    }
    done = subprocess.run(
        [PYTHON, str(PROGRAM), str(tmp_path)], env=environment, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-2000:]

    import hubconf

    for index, (own, file) in enumerate(zip(files, written, strict=True)):
        expected = outputs(build_model(read_checkpoint(own)).fuse(), images)
        with np.load(tmp_path / f"{file.stem}.npz") as found:
            for number, ours in enumerate(expected):
                theirs = torch.from_numpy(found[f"arr_{number}"])
                assert (ours - theirs).abs().max() <= 1e-5 * ours.abs().max().clamp(min=1), file.name
            if index < task["boxes"]:
                model = hubconf.custom(str(own), device="cpu", _verbose=False)
                for number, boxes in enumerate(model(photos, size=640).xyxy):
                    theirs = torch.from_numpy(found[f"boxes_{number}"])
                    assert torch.equal(boxes[:, 5], theirs[:, 5])
                    assert (boxes[:, :4] - theirs[:, :4]).abs().max() < 0.01
                    assert (boxes[:, 4] - theirs[:, 4]).abs().max() < 1e-5
