"""Inference in FP16, in both memory formats, and with ONNX Runtime and TensorRT where they are installed."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import detect
import export
import val
from models.backends import load_backend
from models.backends.cuda_graphs import USES, GraphedModel
from models.backends.pytorch import PyTorchBackend
from tests.gpu.cases import CFG, full_precision, good_detector, seeded_images, seeded_model
from tests.gpu.checks import Check, Context, SkippedCheck
from tests.gpu.parity import outputs, worst
from tests.gpu.speed import seconds_of
from utils.base.device import disable_ort_telemetry
from utils.train.loop import to_device

HALF_BOXES, HALF_SCORES = 2.0, 0.05  # pixels and scores that FP16 may differ by
HALF_MAP = 0.03  # of mAP50
CHANNELS = 1e-3
RUNTIME = 5e-3  # of the largest output; TensorRT and ONNX Runtime compute in TF32 where the GPU has it


def half_val(context: Context) -> str:
    """Measure a trained model with val.py and with val.py --half."""
    settings: dict[str, Any] = {
        "weights": str(good_detector(context).weights), "imgsz": context.imgsz, "batch_size": context.batch,
        "workers": 0, "device": context.flag, "project": str(context.home / "val"),
    }  # fmt: skip
    plain, half = (
        val.run(str(good_detector(context).data), half=chosen, **settings).map50 for chosen in (False, True)
    )
    assert abs(plain - half) <= HALF_MAP, f"mAP50 {half:.4f} with --half, {plain:.4f} without"
    if context.on_cuda:
        assert plain > 0.1, f"mAP50 {plain:.4f}: the model has not learned, so that this compares nothing"
    return f"mAP50 {half:.4f} with --half, {plain:.4f} without (allowed {HALF_MAP:g}){_precision(context)}"


def half_detect(context: Context) -> str:
    """Detect objects with detect.py and with detect.py --half."""
    good = good_detector(context)
    settings: dict[str, Any] = {
        "weights": str(good.weights), "source": str(good.images), "imgsz": context.imgsz, "save_txt": True,
        "device": context.flag, "project": str(context.home / "detect"),
    }  # fmt: skip
    plain, half = (detect.run(half=chosen, **settings) for chosen in (False, True))
    assert half.frames == plain.frames > 0, f"{half.frames} images with --half, {plain.frames} without"
    allowed = max(2, 0.05 * plain.detections)
    counts = f"{half.detections} boxes with --half, {plain.detections} without"
    assert abs(half.detections - plain.detections) <= allowed, counts
    return f"{counts} (allowed {allowed:.0f} more or fewer){_precision(context)}"


def half_boxes(context: Context) -> str:
    """Compare decoded boxes and scores of the same images in FP16 and FP32."""
    images = seeded_images(2, context.imgsz)
    found = []
    for half in (False, True):
        backend = load_backend(good_detector(context).weights, context.device, half=half)
        prepared = to_device(images, context.device)
        decoded = backend(prepared.half() if backend.fp16 else prepared)
        found.append((decoded[0] if isinstance(decoded, (tuple, list)) else decoded).float())
    difference = (found[0] - found[1]).abs()
    boxes, scores = float(difference[..., :4].flatten().quantile(0.99)), float(difference[..., 4:].max())
    said = (
        f"99 % of the coordinates differ by at most {boxes:.2g} px (allowed {HALF_BOXES:g}), scores by "
        f"{scores:.2g} ({HALF_SCORES:g})"
    )
    assert torch.isfinite(found[1]).all(), "an output in FP16 is not finite"
    assert boxes <= HALF_BOXES and scores <= HALF_SCORES, said
    return said + _precision(context)


def _precision(context: Context) -> str:
    return "" if context.on_cuda else "; --half has no effect on the CPU"


def cuda_graph(task: str, context: Context) -> str:
    """Compare a graph with the model, on images that the graph has not seen; time both."""
    context.require_cuda("as CUDA graphs do")
    model = seeded_model(CFG[task], context.device).eval().to(memory_format=torch.channels_last)
    plain, graphed = PyTorchBackend.from_model(model), GraphedModel(PyTorchBackend.from_model(model)._run)
    before, most = torch.cuda.current_stream(context.device), 0.0
    with full_precision(), torch.inference_mode():
        for height, width in ((context.imgsz, context.imgsz), (context.imgsz // 2, context.imgsz)) * (
            USES + 2
        ):
            batch = torch.rand(1, 3, height, width, device=context.device)
            most = max(most, worst([_decoded(graphed(batch))], [_decoded(plain(batch))], CHANNELS))
        assert graphed.graphs == 2, "a graph was not captured"
        seconds = [seconds_of(context, partial(each, batch)) for each in (plain, graphed)]
    assert torch.cuda.current_stream(context.device) == before, "the capture left another stream"
    return (
        f"largest relative difference {most:.1e} (allowed {CHANNELS:g}); "
        f"one image {seconds[1] * 1e3:.2f} ms, without a graph {seconds[0] * 1e3:.2f} ms"
    )


def graph_fallback(context: Context) -> str:
    """Run a model that cannot be captured, as it reads a value, and then another."""
    context.require_cuda("as CUDA graphs do")
    before = torch.cuda.current_stream(context.device)
    graphed = GraphedModel(lambda x: x + float(x.sum().item() * 0))
    for _ in range(USES + 1):
        batch = torch.rand(1, 3, context.imgsz, context.imgsz, device=context.device)
        assert torch.equal(graphed(batch), batch)
    assert graphed.graphs == 0 and torch.cuda.current_stream(context.device) == before
    return "the model runs without a graph, on the stream of before"


def channels_last(task: str, context: Context) -> str:
    """Compare the outputs of a model and of images in both memory formats."""
    images = to_device(seeded_images(2, context.imgsz), context.device)
    found: list[list[Tensor]] = []
    with full_precision():
        for memory_format in (torch.channels_last, torch.contiguous_format):
            model = seeded_model(CFG[task], context.device).eval().to(memory_format=memory_format)
            found.append(outputs(model, images.contiguous(memory_format=memory_format)))
    most = worst(found[0], found[1], CHANNELS)
    return f"largest relative difference {most:.1e} (allowed {CHANNELS:g})"


def onnx_file(context: Context) -> Path:
    """Export the trained model to ONNX, once.

    Raises:
        SkippedCheck: a package is missing.
    """
    for name in ("onnx", "onnxruntime"):
        _require(name, f"pip install {'onnxruntime-gpu' if context.on_cuda else name} onnx onnxslim")
    if "onnx" not in context.cache:
        settings: dict[str, Any] = {"imgsz": [context.imgsz], "batch_size": 2, "device": "cpu"}
        files = export.run(weights=[str(good_detector(context).weights)], include=["onnx"], **settings)
        assert files, "the export to ONNX failed"
        context.cache["onnx"] = files[0]
    path: Path = context.cache["onnx"]
    return path


def _require(name: str, install: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise SkippedCheck(f"{name} is not installed ({install})") from error


def runtime(provider: str, context: Context) -> str:
    """Compare an ONNX file that a provider of ONNX Runtime runs with PyTorch on the CPU."""
    if provider != "CPUExecutionProvider":
        context.require_cuda("as the provider does")
    disable_ort_telemetry()
    path, onnxruntime = onnx_file(context), _require("onnxruntime", "pip install onnxruntime-gpu")
    available = onnxruntime.get_available_providers()
    if provider not in available:
        raise SkippedCheck(f"onnxruntime {onnxruntime.__version__} has {', '.join(available)} only")
    backend: Any = load_backend(path, context.device, runtime=provider)
    used = backend.session.get_providers()
    if used[0] != provider:
        raise SkippedCheck(f"onnxruntime could not load it and uses {', '.join(used)}: a library is missing")
    return _as_pytorch(backend, context)


def tensorrt(context: Context) -> str:
    """Export an engine with export.py, and compare it with PyTorch on the CPU."""
    context.require_cuda("as TensorRT does")
    _require("tensorrt", "pip install tensorrt")
    settings: dict[str, Any] = {"imgsz": [context.imgsz], "batch_size": 2, "device": context.flag}
    files = export.run(weights=[str(good_detector(context).weights)], include=["engine"], **settings)
    assert files, "the export to TensorRT failed"
    return _as_pytorch(load_backend(files[0], context.device), context)


def _as_pytorch(backend: Any, context: Context) -> str:
    """Compare the decoded boxes of a backend with those of PyTorch on the CPU."""
    images = to_device(seeded_images(2, context.imgsz), torch.device("cpu"))
    expected = _decoded(load_backend(good_detector(context).weights, torch.device("cpu"))(images))
    most = worst([_decoded(backend(images.to(context.device)))], [expected], RUNTIME)
    return f"largest relative difference to PyTorch on the CPU {most:.1e} (allowed {RUNTIME:g})"


def _decoded(output: Any) -> Tensor:
    first: Tensor = output[0] if isinstance(output, (tuple, list)) else output
    return first.float().cpu()


CHECKS = [
    Check("half val.py", half_val),
    Check("half detect.py", half_detect),
    Check("half boxes", half_boxes),
    *(Check(f"cuda graph {task}", partial(cuda_graph, task)) for task in CFG),
    Check("cuda graph fallback", graph_fallback),
    *(Check(f"channels_last {task}", partial(channels_last, task)) for task in CFG),
    *(
        Check(f"onnxruntime {name}", partial(runtime, f"{name}ExecutionProvider"))
        for name in ("CPU", "CUDA", "Tensorrt")
    ),
    Check("tensorrt engine", tensorrt),
]
