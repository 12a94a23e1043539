"""Models that torch.load makes of the original's files, without calling their constructors."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from models.common import Conv
from models.weights import build_model, read_checkpoint
from models.yolo import Detect, DetectionModel
from tests.known import SHARED, fill, needs_shared, pattern_image, to_tensor
from utils.general import non_max_suppression


def as_the_original_saves(model: DetectionModel, fused: bool = False) -> io.BytesIO:
    """Pickle a model with the attributes that the original's objects have, and no others."""
    head = model.model[-1]
    assert isinstance(head, Detect)
    stride, pixels = head.stride, head.anchors_px()
    for name in ("strides", "placeholders", "_listed", "_grids"):
        del head.__dict__[name]
    head.__dict__.update(stride=stride, grid=[torch.zeros(1)] * head.nl, inplace=True)
    head.register_buffer("anchor_" + "grid_", pixels.view(head.nl, 1, -1, 1, 1, 2))
    head._buffers["anchor_grid"] = head._buffers.pop("anchor_grid_")  # until v5.0
    model.__dict__.update(stride=stride, names=["a", "b"], inplace=True)
    for name in ("hyp", "checkpoint_activations", "yaml_file"):
        model.__dict__.pop(name, None)
    for module in model.modules():
        if isinstance(module, nn.Upsample):
            del module.__dict__["recompute_scale_factor"]  # of torch before 1.11
        if fused and isinstance(module, Conv):
            module.fuse()
            del module._modules["bn"], module.__dict__["_packed"]
            module.__dict__["forward"] = module.forward_fuse
    file = io.BytesIO()
    torch.save({"epoch": -1, "model": model}, file)
    file.seek(0)
    return file


@pytest.mark.parametrize("fused", [False, True])
def test_an_unpickled_model_computes_what_the_saved_one_did(fused: bool) -> None:
    saved = DetectionModel("yolov5n.yaml", nc=2)
    fill(saved, 3)
    image = to_tensor(pattern_image(64, 96)[None])
    expected = saved.eval()(image)[0].detach()
    file = as_the_original_saves(saved, fused)

    model = torch.load(file, weights_only=False)["model"].float().fuse().eval()
    assert model.names == ["a", "b"] and model.stride.tolist() == [8, 16, 32] and model.yaml["nc"] == 2
    assert (model(image)[0] - expected).abs().max() < 1e-3
    assert model(image, augment=True)[1] is None
    assert not any("anchor_grid" in key for key in model.state_dict())
    model.info(img_size=64)
    assert next(model.half().parameters()).dtype == torch.float16


def test_what_a_script_saves_is_read_back_as_data(tmp_path) -> None:
    model = DetectionModel("yolov5n-LSKA.yaml", nc=2)
    fill(model, 5)
    model.names = {0: "a", 1: "b"}
    torch.save({"epoch": 7, "model": model.half(), "ema": None}, tmp_path / "script.pt")
    checkpoint = read_checkpoint(tmp_path / "script.pt")
    assert checkpoint.epoch == 7 and checkpoint.names == {0: "a", 1: "b"}
    image = to_tensor(pattern_image(64, 64)[None])
    assert torch.equal(build_model(checkpoint)(image)[0], model.float().eval()(image)[0])


@needs_shared
def test_official_weights_find_the_boxes_of_the_original() -> None:
    import cv2

    from utils.augmentations import letterbox
    from utils.datasets import LoadImages

    model = torch.load(SHARED / "weights/yolov5n.pt", weights_only=False)["model"].float().fuse().eval()
    own = build_model(read_checkpoint(SHARED / "weights/yolov5n.pt")).fuse()
    for path, img, im0, cap in LoadImages(str(SHARED / "data/bus.jpg"), img_size=640):
        assert cap is None and np.array_equal(im0, cv2.imread(path))
        assert np.array_equal(img, letterbox(im0, 640)[0][..., ::-1].transpose(2, 0, 1))
        x = torch.from_numpy(img)[None].float() / 255
        with torch.no_grad():
            found, expected = (non_max_suppression(m(x)[0])[0] for m in (model, own))
        assert len(found) == len(expected) > 3 and (found - expected).abs().max() < 1e-3


@needs_shared
@pytest.mark.parametrize("name", ["yolov5n", "bccd_yolov5n", "nuclei-seg", "cells-cls"])
def test_torch_load_reads_files_with_models_in_its_safe_mode(name: str) -> None:
    import utils.torch_utils

    assert utils.torch_utils.select_device  # whose use registers the classes
    model = torch.load(SHARED / f"weights/{name}.pt", map_location="cpu")["model"].float().fuse().eval()
    with torch.no_grad():
        output = model(torch.zeros(1, 3, 64, 64))
    assert torch.isfinite(output if torch.is_tensor(output) else output[0]).all()


class Reads:
    """Pickles as the call `getattr(owner, name)`."""

    def __init__(self, owner: object, name: str) -> None:
        self.owner, self.name = owner, name

    def __reduce__(self) -> tuple:
        return getattr, (self.owner, self.name)


@pytest.mark.parametrize("harmful", [Reads(Detect, "mro"), Reads(nn.Conv2d, "forward")])
def test_the_safe_mode_still_refuses_what_a_file_may_not_name(harmful: Reads) -> None:
    import utils.torch_utils

    assert utils.torch_utils.select_device
    file = io.BytesIO()
    torch.save({"model": harmful}, file)
    file.seek(0)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(file)


def test_the_safe_mode_reads_what_training_loops_save(tmp_path) -> None:
    from utils.torch_utils import ModelEMA, smart_optimizer, smart_resume

    model = DetectionModel("yolov5n-LSKA.yaml", nc=2)
    ema, optimizer = ModelEMA(model), smart_optimizer(model, "SGD", 0.01, 0.9, 1e-4)
    fitness = np.array([0.25])
    saved = {"epoch": 3, "best_fitness": fitness, "model": model, "ema": ema.ema, "updates": 7}
    torch.save(saved | {"optimizer": optimizer.state_dict()}, tmp_path / "last.pt")
    ckpt = torch.load(tmp_path / "last.pt")
    assert ckpt["best_fitness"] == fitness
    assert smart_resume(ckpt, optimizer, ema, "last.pt", epochs=10) == (0.25, 4, 10) and ema.updates == 7
    torch.save({"model": model.eval().fuse()}, tmp_path / "fused.pt")
    image = torch.zeros(1, 3, 64, 64)
    assert torch.equal(torch.load(tmp_path / "fused.pt")["model"](image)[0], model(image)[0])
