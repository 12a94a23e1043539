"""No step of a model mixes devices, shown without a GPU.

Tensors of torch's FakeTensorMode say that they are on CUDA, hold no values, and refuse operators whose
arguments are on two devices. What it cannot show: a backward pass (autograd asks for the streams of CUDA),
autocast and `.half()` of a model (both need CUDA itself), and operators whose output depends on values, which
target assignment, NMS and the mask loss have. Those run on the simulated accelerator of
`tests/utils/train/accelerator.py`, which computes on the CPU; `python -m tests.gpu` runs all on a real GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._pytree import tree_leaves

from models.attention.lska import DESIGNS
from models.config import config_names
from models.yolo import make_model, task_of
from tests.studies.classifiers import CONFIG as CLASSIFY_CONFIG
from tests.utils.train.accelerator import DEVICE, OnDevice, move, simulated
from tests.utils.train.small import CONFIG, SEGMENT_CONFIG, DrawnLoader
from utils.ops.loss import DetectionLoss
from utils.ops.nms import non_max_suppression
from utils.tasks.classify.loss import ClassificationLoss
from utils.tasks.segment.masks import process_mask

pytestmark = pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
CUDA = torch.device("cuda:0")
GAINS = {"box": 0.05, "obj": 1.0, "cls": 0.5}
# Of models that differ in their size only, the smallest.
KINDS = [
    name
    for name in config_names()
    if not name.startswith(("yolov5s", "yolov5m", "yolov5l", "yolov5x", "van-s", "van-b"))
    or name in ("yolov5s-ghost.yaml", "yolov5s-transformer.yaml", "yolov5s-LeakyReLU.yaml")
]


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeTensorMode]:
    """A mode in which CUDA exists; `fuse` copies layers, and their tensors have to remain in the mode."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mock.patch.object(FakeTensorMode, "__deepcopy__", lambda self, memo: self, create=True):
        yield mode


def on_cuda(config: Any, mode: FakeTensorMode) -> Any:
    """Build a model whose parameters and buffers say that they are on CUDA."""
    with torch.device("meta"):
        model: Any = make_model(config)

    def moved(value: Tensor) -> Tensor:
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=CUDA)

    with mode:
        for module in model.modules():
            for key, parameter in module._parameters.items():
                if parameter is not None:
                    module._parameters[key] = nn.Parameter(moved(parameter))
            for key, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[key] = moved(buffer)
    return model


def images(size: int) -> Tensor:
    return torch.empty(2, 3, size, size, device=CUDA).contiguous(memory_format=torch.channels_last)


def check_devices(output: Any) -> None:
    """Check that every tensor of an output is on CUDA."""
    tensors = [value for value in tree_leaves(output) if isinstance(value, Tensor)]
    assert tensors
    assert all(isinstance(value, FakeTensor) and value.device == CUDA for value in tensors)


def check_passes(model: Any, size: int) -> None:
    """Run the model in training, in eval mode and fused."""
    check_devices(model.train()(images(size)))
    for again in (model.eval, model.fuse):
        with torch.inference_mode():
            check_devices(again()(images(size)))


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_passes_of_every_kind_of_model_remain_on_the_device(name: str, fake: FakeTensorMode) -> None:
    model = on_cuda(name, fake)
    size = 2 * int(model.stride.max())
    with fake:
        check_passes(model, size)


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("base", [CONFIG, SEGMENT_CONFIG, CLASSIFY_CONFIG], ids=task_of)
def test_every_design_of_the_gate_remains_on_the_device(
    base: dict[str, Any], design: str, fake: FakeTensorMode
) -> None:
    config = deepcopy(base)
    gate = [-1, 1, design, [7]]
    config["backbone"] = [*(row for row in config["backbone"] if row[2] != "LSKA"), gate]
    if base is not CLASSIFY_CONFIG:
        config["head"][-1][0] = [3, 4]
    model = on_cuda(config, fake)
    size = 2 * int(model.stride.max())
    with fake:
        check_passes(model, size)


def test_a_tensor_on_another_device_is_refused(fake: FakeTensorMode) -> None:
    model = on_cuda(CONFIG, fake)
    with fake, pytest.raises(RuntimeError, match="device"):
        model.model[0](torch.empty(1, 3, 32, 32, device=CUDA)) + torch.ones(1)


def test_the_terms_of_the_detection_loss_remain_on_the_device(fake: FakeTensorMode) -> None:
    model = on_cuda(CONFIG, fake)
    batch, strides = DrawnLoader().batch(0, 0), model.stride
    anchors = torch.tensor(CONFIG["anchors"]).view(2, -1, 2) / strides.view(-1, 1, 1)
    loss = DetectionLoss(anchors, strides, 2, {**GAINS, "cls_pw": 0.9, "fl_gamma": 1.5})
    sizes = [torch.empty(4, 2, side, side, 7) for side in (8, 4)]
    matches = loss.assign(sizes, batch.targets)  # on the CPU, as in training
    with fake:
        maps = model.train()(images(64))
        moved = [found.to(CUDA) for found in matches]
        terms, _ = loss.weighted_terms(maps, moved, lambda counts: [2 * count for count in counts])
        check_devices(terms)


def test_the_classification_loss_remains_on_the_device(fake: FakeTensorMode) -> None:
    model = on_cuda(CLASSIFY_CONFIG, fake)
    with fake:
        check_devices(ClassificationLoss(0.1)(model.train()(images(32)), torch.zeros(2, 2)))


@pytest.mark.parametrize("config", [CONFIG, SEGMENT_CONFIG])
def test_decoding_nms_and_masks_give_the_same_on_the_simulated_device(config: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = make_model(config).eval()
    drawn = torch.rand(2, 3, 64, 64)
    on_device = deepcopy(model)
    move(on_device)

    with torch.no_grad():
        expected = _detect(model, drawn)
        with simulated():
            found = _detect(on_device, drawn.to(DEVICE))

    assert all(len(each) for each in expected)
    for one, two in zip(found, expected, strict=True):
        assert isinstance(one, OnDevice)
        torch.testing.assert_close(one.on_cpu, two)


def _detect(model: Any, drawn: Tensor) -> list[Tensor]:
    """Return the detections of each image, and their masks."""
    decoded, *more = model(drawn)
    nm = model.head.linear
    found = non_max_suppression(decoded, 0.0, 0.6, classes=[0, 1], max_det=20, multi_label=True, nm=nm)
    if not nm:
        return found
    masks = [
        process_mask(protos, rows[:, 6:], rows[:, :4], (64, 64)).float()
        for protos, rows in zip(more[0], found, strict=True)
    ]
    return [*found, *masks]
