"""The device computes what the CPU does: forward pass, loss and gradients, NMS, and one trained epoch.

All in FP32 without TF32. Tolerances: the forward pass 1e-3 of the largest output, losses 1e-3, norms of
gradients 1 %, NMS 1e-4, the losses of an epoch 2 %, since differences grow from step to step.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from tests.gpu.cases import (
    CFG,
    flags,
    full_precision,
    run_training,
    seeded_batch,
    seeded_images,
    seeded_model,
    train_state,
)
from tests.gpu.checks import Check, Context, compare
from utils.ops.nms import non_max_suppression
from utils.train.loop import set_train_mode, to_device

CPU = torch.device("cpu")
MODELS = (
    "yolov5n.yaml", "yolov5n-LSKA.yaml", "yolov5n-backbone-C3LSKA.yaml",
    "yolov5n-seg.yaml", "yolov5n-seg-LSKA.yaml", "yolov5n-seg-backbone-C3LSKA.yaml",
    "yolov5n-cls.yaml", "yolov5n-cls-LSKA.yaml", "yolov5n-cls-backbone-C3LSKA.yaml",
)  # fmt: skip
EPOCH = 0.02
FORWARD = LOSS = 1e-3
GRADIENT = 0.01


def outputs(model: Any, images: Tensor) -> list[Tensor]:
    """Return all tensors that a model gives for images in 0-1, in float32 on the CPU."""
    with torch.inference_mode():
        return [each.float().cpu() for each in tree_leaves(model(images)) if isinstance(each, Tensor)]


def worst(found: list[Tensor], expected: list[Tensor], tolerance: float) -> float:
    """Compare outputs, relative to the largest value of each; return the largest difference."""
    differences = []
    for index, (one, two) in enumerate(zip(found, expected, strict=True)):
        scale = max(float(two.abs().max()), 1e-6)
        differences.append(compare(f"output {index}", one / scale, two / scale, 0, tolerance))
    return max(differences)


def forward(cfg: str, context: Context) -> str:
    """Compare the outputs of a model as it is, and fused."""
    images = seeded_images(2, context.imgsz)
    found: list[list[list[Tensor]]] = []
    with full_precision():
        for device in (context.device, CPU):
            model = seeded_model(cfg, device).eval()
            found.append([outputs(same(), to_device(images, device)) for same in (model.eval, model.fuse)])
    plain, fused = (worst(one, two, FORWARD) for one, two in zip(*found, strict=True))
    return f"largest relative difference {plain:.1e}, fused {fused:.1e} (allowed {FORWARD:g})"


def loss(cfg: str, context: Context) -> str:
    """Compare the items of the loss, and the norm of the gradients."""
    found = []
    with full_precision():
        for device in (context.device, CPU):
            own = Context(device, context.home)
            state = train_state(own, cfg)
            batch = seeded_batch(state.model.task, context.batch, context.imgsz)
            set_train_mode(state.model, list(state.model.model))  # batch norms as in the forward pass
            images = to_device(batch.images, device)
            total, items = state.loss(state.model(images), *batch.labels)
            total.backward()
            grads = [p.grad.norm() for p in state.model.parameters() if p.grad is not None]
            norm = torch.stack(grads).norm()
            found.append((items, norm))
    (items, norm), (expected, expected_norm) = found
    most = compare("loss", items, expected, LOSS, 1e-5)
    of_norm = compare("norm of the gradients", norm / expected_norm.to(norm.device), 1.0, 0, GRADIENT)
    return (
        f"losses differ by {most:.1e} (allowed {LOSS:g}), gradients by {of_norm:.1e} (allowed {GRADIENT:g})"
    )


def nms(context: Context) -> str:
    """Compare the detections of random boxes, with each way to choose classes."""
    draw = torch.Generator().manual_seed(0)
    decoded = torch.rand(4, 6000 if context.on_cuda else 500, 5 + 5 + 8, generator=draw)
    decoded[..., :2] *= 300
    decoded[..., 2:4] = decoded[..., 2:4] * 60 + 4
    decoded[0, ::7] = float("nan")
    count = 0
    ways: tuple[dict[str, Any], ...] = ({}, {"multi_label": True}, {"agnostic": True}, {"classes": [1, 3]})
    for way in ways:
        options: Any = {"conf_thres": 0.3, "iou_thres": 0.5, "nm": 8, **way}
        expected = non_max_suppression(decoded, **options)
        found = non_max_suppression(decoded.to(context.device), **options)
        for one, two in zip(found, expected, strict=True):
            assert one.device == context.device, f"detections are on {one.device}"
            compare(f"detections with {way}", one, two, 1e-4, 1e-4)
            count += len(two)
    assert count, "nothing was detected"
    return f"{count} detections are equal (allowed 1e-4)"


def epoch(task: str, context: Context) -> str:
    """Compare the losses of one epoch of training and of its validation."""
    with full_precision():
        expected = run_training(task, flags(context, task, f"cpu-{task}", device="cpu")).rows[0]
        found = run_training(task, flags(context, task, f"device-{task}")).rows[0]
    names = [name for name in expected if name.startswith(("train/", "val/")) and "loss" in name]
    assert names, f"results.csv has no losses: {list(expected)}"
    worst_of = 0.0
    for name in names:
        scale = max(abs(expected[name]), 1e-3)
        worst_of = max(worst_of, compare(name, found[name] / scale, expected[name] / scale, 0, EPOCH))
    shown = ", ".join(f"{name} {found[name]:.4g}" for name in names if name.startswith("train/"))
    return f"{shown}; largest relative difference {worst_of:.1e} (allowed {EPOCH:g})"


CHECKS = [
    *(Check(f"forward {cfg.removesuffix('.yaml')}", partial(forward, cfg)) for cfg in MODELS),
    *(Check(f"loss {cfg.removesuffix('.yaml')}", partial(loss, cfg)) for cfg in CFG.values()),
    Check("nms", nms),
    *(Check(f"epoch {task}", partial(epoch, task)) for task in CFG),
]
