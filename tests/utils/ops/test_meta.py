"""Sizes on the meta device are those of a real pass; neither they nor training import PyTorch's compiler."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from utils.base.paths import ROOT
from utils.ops.meta import _Sizes, on_meta

RANDOM = np.random.default_rng(0)


def pick(*values: Any) -> Any:
    return values[RANDOM.integers(len(values))]


def convolution() -> nn.Module:
    groups, kernel = pick(1, 2), pick(1, 2, 3, (1, 5), (4, 3))
    sizes = {
        "stride": pick(1, 2, (1, 2)),
        "padding": pick(0, 1, (2, 0), "valid"),
        "dilation": pick(1, 2, (1, 3)),
    }
    return nn.Conv2d(4, 6, kernel, groups=groups, bias=pick(True, False), **sizes)


def pool() -> nn.Module:
    kernel = pick(2, 3, 5, (3, 2))
    return nn.MaxPool2d(kernel, pick(None, 1, 2), pick(0, 1), ceil_mode=pick(True, False))


MODULES: dict[str, Callable[[], nn.Module]] = {
    "convolution": convolution,
    "pool": pool,
    "norm": lambda: nn.BatchNorm2d(4).train(pick(True, False)),
    "upsample": lambda: (
        nn.Upsample(12, None, "nearest")
        if pick(True, False)
        else nn.Upsample(None, pick(2, 3, 1.5), pick("nearest", "bilinear"))
    ),
    "adaptive pool": lambda: nn.AdaptiveAvgPool2d(pick(1, (1, 1), 2, (None, 1))),
    "linear": lambda: nn.Linear(15, 3),
    "layer norm": lambda: nn.LayerNorm(15),
    "activation": lambda: pick(nn.SiLU(), nn.SiLU(inplace=True), nn.GELU(), nn.GELU("tanh"), nn.ReLU()),
}
BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": lambda x, y: x + y,
    "add with alpha": lambda x, y: torch.add(x, y, alpha=2),
    "multiply": lambda x, y: x * y,
    "scale": lambda x, y: x * 2 + 1,
    "join by keyword": lambda x, y: torch.cat(tensors=(x, x), dim=1),
    "convolve by keyword": lambda x, y: functional.conv2d(input=x.float(), weight=x[:1].float()),
    "norm by keyword": lambda x, y: functional.layer_norm(x.float(), normalized_shape=[5]),
    "add into": lambda x, y: torch.add(x, x, out=torch.empty_like(x)),
    "concatenate": lambda x, y: torch.cat((x, y), 1),
    "concatenate rows": lambda x, y: torch.cat((x, y), -1),
}


@pytest.mark.parametrize("name", MODULES)
def test_sizes_of_modules_are_those_of_a_real_pass(name: str) -> None:
    for _ in range(30):
        module, x = MODULES[name](), torch.rand(pick(1, 2), 4, pick(7, 8, 11), 15)
        with torch.no_grad():
            expected = module(x.clone())
        found = on_meta(module, x.to("meta"))
        assert (found.shape, found.dtype, found.device.type) == (expected.shape, expected.dtype, "meta"), (
            module
        )


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("dtypes", [(torch.float32, torch.float32), (torch.int64, torch.float32)])
@pytest.mark.parametrize("other", [(2, 4, 5, 5), (1, 4, 1, 1), (4, 1, 5)])
def test_sizes_and_types_of_products_and_sums(
    name: str, dtypes: tuple[Any, Any], other: tuple[int, ...]
) -> None:
    x, y = torch.zeros(2, 4, 5, 5, dtype=dtypes[0]), torch.zeros(other, dtype=dtypes[1])
    if name.startswith("concatenate") and other != x.shape:
        with pytest.raises(RuntimeError), _Sizes():
            BINARY[name](x.to("meta"), y.to("meta"))
        return
    expected = BINARY[name](x, y)
    with _Sizes():
        found = BINARY[name](x.to("meta"), y.to("meta"))
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: functional.conv2d(x, torch.empty(3, 5, 1, 1, device="meta")),  # other channels
        lambda x: functional.conv2d(x, torch.empty(3, 4, 9, 9, device="meta")),  # larger than the map
        lambda x: functional.max_pool2d(x, 2, 1, 2),
        lambda x: functional.linear(x, torch.empty(3, 4, device="meta")),
        lambda x: functional.batch_norm(x[:1, :, :1, :1], None, None, training=True),  # one value
        lambda x: x + torch.empty(2, 3, 5, 5, device="meta"),
    ],
)
def test_what_does_not_fit_is_an_error_of_pytorch(call: Callable[[Tensor], Any]) -> None:
    with pytest.raises((RuntimeError, ValueError)), _Sizes():
        call(torch.empty(2, 4, 5, 5, device="meta"))


@pytest.mark.parametrize(
    "module",
    [
        nn.MaxPool2d(2, stride=-1),
        nn.MaxPool2d((2, 2, 2)),
        nn.BatchNorm2d(4, eps=[1.0]),  # type: ignore[arg-type]
        nn.BatchNorm2d(4, momentum="x"),  # type: ignore[arg-type]
        nn.GELU("x"),
        nn.LayerNorm(5, eps="x"),  # type: ignore[arg-type]
    ],
    ids=str,
)
def test_modules_that_cannot_run_are_errors(module: nn.Module) -> None:
    with pytest.raises((RuntimeError, ValueError, TypeError)):
        module(torch.rand(2, 4, 5, 5))
    with pytest.raises((RuntimeError, ValueError, TypeError)):
        on_meta(module, torch.empty(2, 4, 5, 5, device="meta"))


SCRIPT = """
import sys
import torch
from models.yolo import {model} as Model
from utils.train.hyp import check_hyp
from utils.train.optim import make_optimizer

model = Model({cfg!r})
model.summary(640)
hyp = check_hyp({{}}, "test")
for name in ("SGD", "Adam", "AdamW", "RMSProp"):
    optimizer = make_optimizer(model, name, hyp, 16)
    model.train()
    output = model(torch.rand(2, 3, 64, 64))
    sum(x.sum() for x in (output if isinstance(output, list) else [output])).backward()
    optimizer.step()
    optimizer.zero_grad()
    optimizer.load_state_dict(optimizer.state_dict())
assert "torch._dynamo" not in sys.modules, "the compiler was imported"
"""


@pytest.mark.parametrize(
    ("model", "cfg"),
    [("DetectionModel", "yolov5n-neck-C3LSKA.yaml"), ("ClassificationModel", "yolov5n-cls-LSKA.yaml")],
)
def test_building_and_training_do_not_import_the_compiler(model: str, cfg: str) -> None:
    script = SCRIPT.format(model=model, cfg=cfg)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
