"""Networks with attention in other formats: their output differs from PyTorch by less than 1e-4."""

from __future__ import annotations

import fnmatch
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from models.config import config_names
from models.graft import graft
from models.weights import model_record, read_checkpoint, save_checkpoint
from models.yolo import make_model
from tests.known import SHARED, needs_shared
from tests.utils.export.test_every_format import exported
from utils.export.export_job import example_images
from utils.export.verify import TOLERANCE

NANO = fnmatch.filter(config_names(), "yolov5n*LSKA.yaml")
VAN = fnmatch.filter(config_names(), "yolov5-van-*.yaml")
LARGER = fnmatch.filter(config_names(), "yolov5[smlx]*LSKA.yaml")


def trained_like(cfg: str, file: Path) -> None:
    """Save a checkpoint of a config with the official weights, and new layers that are not the identity."""
    torch.manual_seed(0)
    model = make_model(cfg)
    graft(model, read_checkpoint(SHARED / "weights" / "yolov5n.pt"))
    with torch.no_grad():
        for parameter in model.parameters():
            if (parameter == 0).all():
                parameter.normal_(std=0.05)
    save_checkpoint(file, {"model": model_record(model)})


def untrained(cfg: str, file: Path) -> None:
    """Save a checkpoint of an untrained network with batch-norm statistics of the images of the check.

    With those of other images, or around the bend of SiLU at 0, rounding errors grow from layer to layer,
    to more than export.py accepts.
    """
    torch.manual_seed(0)
    model = make_model(cfg).train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
            torch.nn.init.ones_(module.bias)
    with torch.no_grad():
        model(example_images((256, 256), 4))
    save_checkpoint(file, {"model": model_record(model)})


@needs_shared
@pytest.mark.parametrize("cfg", NANO)
def test_attention_is_the_same_in_onnx_openvino_and_torchscript(tmp_path: Path, cfg: str) -> None:
    trained_like(cfg, tmp_path / "tiny.pt")
    for name in ("torchscript", "onnx", *(["openvino"] if find_spec("openvino") else [])):
        report = exported(tmp_path, name, imgsz=160)
        assert report.error == "", name
        assert report.difference is not None and report.difference < TOLERANCE, name


@needs_shared
@pytest.mark.slow
@pytest.mark.parametrize("name", ["tflite", "saved_model", "ncnn", "executorch", "paddle"])
@pytest.mark.parametrize("cfg", NANO)
def test_attention_is_the_same_in_other_formats(tmp_path: Path, cfg: str, name: str) -> None:
    trained_like(cfg, tmp_path / "tiny.pt")
    report = exported(tmp_path, name, imgsz=160)
    assert report.error == ""
    assert report.difference is not None and report.difference < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("cfg", [*VAN, *LARGER])
def test_every_size_is_written(tmp_path: Path, cfg: str) -> None:
    """FP32 rounding errors of untrained networks this deep exceed TOLERANCE, which export.py allows."""
    untrained(cfg, tmp_path / "tiny.pt")
    for name in ("torchscript", "onnx", "openvino", "tflite"):
        assert exported(tmp_path, name, imgsz=128).error == "", name
