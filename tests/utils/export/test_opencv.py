"""Static ONNX files in OpenCV's dnn, also in old versions: Ubuntu 24.04 has 4.6."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
import torch

import export
from models.weights import model_record, save_checkpoint
from models.yolo import make_model
from tests.known import SHARED, needs_shared
from tests.models.backends.files import checkpoint
from tests.studies.segmenters import polygon_set, segmenter
from tests.utils.export.test_lska_formats import NANO, trained_like
from utils.base.options import options_from
from utils.export.export_options import ExportOptions
from utils.export.onnx_constants import ELEMENTWISE, is_read_by_all, static_shapes, with_full_constants

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

SIDE = 64
OLD = {
    "4.5.5.64": "1.26.4",
    "4.6.0.66": "1.26.4",
    "4.7.0.72": "1.26.4",
    "4.10.0.84": "1.26.4",
    "5.0.0.93": "",
}
RUN = """
import sys, cv2, numpy as np
for file in sys.argv[1:]:
    with np.load(file.replace(".onnx", ".npz")) as saved:
        net = cv2.dnn.readNetFromONNX(file)
        net.setInput(saved["images"])
        names = [name for name in saved.files if name != "images"]
        for name, output in zip(names, net.forward(names)):
            expected = saved[name]
            assert output.shape == expected.shape, (file, name, output.shape)
            error = np.abs(output - expected).max() / max(np.abs(expected).max(), 1)
            assert error < 1e-4, (cv2.__version__, file, name, error)
"""


def classifier(path: Path) -> Path:
    torch.manual_seed(0)
    model = make_model("yolov5n-cls.yaml", nc=3)
    save_checkpoint(path, {"model": model_record(model)})
    return path


def exported(weights: Path, **more: object) -> Path:
    """Export a checkpoint to ONNX; return the file."""
    keywords = {"weights": str(weights), "include": ["onnx"], "imgsz": SIDE, **more}
    (report,) = export.export(options_from(ExportOptions, keywords))
    assert report.error == ""
    return report.file


@cache
def files() -> dict[str, Path]:
    """Export small models of every task, and with batches."""
    folder = Path(mkdtemp(prefix="for-opencv-"))
    polygon_set(folder)
    checkpoints = {
        "detect": shutil.copy(checkpoint(), folder / "detect.pt"),
        "batch": shutil.copy(checkpoint(), folder / "batch.pt"),
        "simplified": shutil.copy(checkpoint(), folder / "simplified.pt"),
        "segment": segmenter(folder),
        "classify": classifier(folder / "classify.pt"),
    }
    options = {"batch": {"batch_size": 2}, "simplified": {"simplify": True}}
    return {name: exported(file, **options.get(name, {})) for name, file in checkpoints.items()}


def save_expected(file: Path) -> None:
    """Save an input and the outputs of ONNX Runtime as .npz beside the file."""
    session = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    shape = session.get_inputs()[0].shape
    images = np.random.default_rng(0).random(shape, np.float32)
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip(names, session.run(names, {"images": images}), strict=True))
    np.savez(file.with_suffix(".npz"), images=images, **outputs)


@pytest.mark.parametrize("name", ["detect", "batch", "simplified", "segment", "classify"])
def test_static_files_have_static_shapes_and_no_constants_to_broadcast(name: str) -> None:
    model = onnx.load(str(files()[name]))
    inferred = onnx.shape_inference.infer_shapes(model).graph
    shapes = static_shapes(inferred)
    constants = {each.name: tuple(each.dims) for each in inferred.initializer}

    for output in model.graph.output:
        assert shapes[output.name][0] == (2 if name == "batch" else 1)
    checked = 0
    for node in inferred.node:
        assert node.op_type not in ("Constant", "Expand", "Range", "Shape", "ConstantOfShape"), node.name
        assert not node.input or not all(each in constants for each in node.input), node.name
        if node.op_type in ELEMENTWISE:
            for each in constants.keys() & set(node.input):
                checked += 1
                assert is_read_by_all(constants[each], shapes[node.output[0]]), (node.name, constants[each])
    assert checked or name == "classify"


def test_the_installed_opencv_has_the_outputs_of_onnx_runtime() -> None:
    run_in_opencv(list(files().values()), [])


def test_outputs_are_in_the_order_of_the_file() -> None:
    """OpenCV returns the layers that nothing reads in the order of the nodes."""
    graph = onnx.load(str(files()["segment"])).graph
    order = {name: index for index, node in enumerate(graph.node) for name in node.output}
    assert order["output0"] < order["output1"]


@pytest.mark.parametrize("batch", [1, 2])
def test_grids_become_constants_of_the_full_shape_and_weights_stay(batch: int) -> None:
    grid = np.arange(4, dtype=np.float32).reshape(1, 1, 1, 4)
    make = onnx.helper.make_node
    nodes = [
        make("Shape", ["images"], ["shape"]),
        make("Slice", ["shape", "two", "four"], ["sides"]),
        make("Concat", ["ones", "sides"], ["grid_shape"], axis=0),
        make("Expand", ["grid", "grid_shape"], ["full"]),
        make("Mul", ["images", "weights"], ["weighted"]),
        make("Add", ["full", "weighted"], ["sum"]),
        make("Mul", ["sum", "number"], ["output0"]),
    ]
    kind, shape = onnx.TensorProto.FLOAT, (batch, 3, 5, 4)
    values = {
        "two": np.array([2]), "four": np.array([4]), "ones": np.array([1, 1]), "grid": grid,
        "weights": np.array([1, 2, 3], np.float32)[:, None, None], "number": np.array(2, np.float32),
    }  # fmt: skip
    graph = onnx.helper.make_graph(
        nodes,
        "test",
        [onnx.helper.make_tensor_value_info("images", kind, shape)],
        [onnx.helper.make_tensor_value_info("output0", kind, shape)],
        [onnx.numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    full = with_full_constants(model)

    assert Counter(node.op_type for node in full.graph.node) == {"Mul": 2, "Add": 1}
    sizes = sorted(tuple(each.dims) for each in full.graph.initializer)
    assert sizes == [(), (3, 1, 1), (3, 5, 4)]
    images = np.random.default_rng(0).random(shape, np.float32)
    session = ort.InferenceSession(full.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(
        session.run(None, {"images": images})[0], 2 * (grid + images * values["weights"]), rtol=1e-6
    )


def test_files_with_dynamic_sizes_stay_dynamic(tmp_path: Path) -> None:
    file = exported(Path(shutil.copy(checkpoint(), tmp_path)), dynamic=True)
    sides = onnx.load(str(file)).graph.output[0].type.tensor_type.shape.dim
    assert [side.HasField("dim_value") for side in sides][:2] == [False, False]


def test_nms_has_a_static_output_padded_with_zeros(tmp_path: Path) -> None:
    file = exported(Path(shutil.copy(checkpoint(), tmp_path)), nms=True, topk_all=7, conf_thres=0.2)
    session = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    assert session.get_outputs()[0].shape == [1, 7, 6]
    counts = set()
    for image in (np.zeros, np.ones):
        (rows,) = session.run(None, {"images": image((1, 3, SIDE, SIDE), np.float32)})[0]
        assert rows.shape == (7, 6)
        found = int((rows[:, 4] > 0).sum())
        assert (rows[:found, 4] >= 0.2).all() and (rows[found:] == 0).all()
        counts.add(found)
    strict = exported(tmp_path / "tiny.pt", nms=True, topk_all=7, conf_thres=1.0)
    session = ort.InferenceSession(str(strict), providers=["CPUExecutionProvider"])
    (rows,) = session.run(None, {"images": np.zeros((1, 3, SIDE, SIDE), np.float32)})[0]
    assert rows.shape == (7, 6) and not rows.any()


def run_in_opencv(models: list[Path], packages: list[Path]) -> None:
    """Compare files in OpenCV, which may be in a folder of its own, with ONNX Runtime."""
    for file in models:
        save_expected(file)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, packages))}
    command = [sys.executable, "-c", RUN, *map(str, models)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


@cache
def opencv(version: str) -> list[Path]:
    """Return folders with a version of OpenCV and a NumPy for it; skip if they cannot be installed.

    They are below the folder that the environment variable OPENCV_VERSIONS names, and installed there if
    they are absent.
    """
    home = Path(os.environ.get("OPENCV_VERSIONS") or mkdtemp(prefix="opencv-"))
    wanted = {home / version: f"opencv-python-headless=={version}"}
    if numpy := OLD[version]:
        wanted[home / f"numpy-{numpy}"] = f"numpy=={numpy}"
    for folder, package in wanted.items():
        if not folder.is_dir():
            command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", folder, package]
            done = subprocess.run(command, capture_output=True, text=True, timeout=300)
            if done.returncode:
                shutil.rmtree(folder, ignore_errors=True)
                pytest.skip(f"{package}: cannot be installed here")
    return list(wanted)


@needs_shared
@pytest.mark.slow
@pytest.mark.parametrize("version", OLD)
def test_every_version_of_opencv_has_the_outputs_of_onnx_runtime(tmp_path: Path, version: str) -> None:
    packages = opencv(version)
    models = list(files().values())
    for cfg in NANO:
        trained_like(cfg, tmp_path / f"{cfg}.pt")
        models.append(exported(tmp_path / f"{cfg}.pt", imgsz=160))
    for weights in ("yolov5n", "nuclei-seg", "cells-cls"):
        shutil.copy(SHARED / "weights" / f"{weights}.pt", tmp_path)
        models.append(exported(tmp_path / f"{weights}.pt", imgsz=320))
    run_in_opencv(models, packages)
