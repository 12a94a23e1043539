"""Share of the time of each kind of layer, by runtime: 1-D convolutions of attention and all others.

python benchmarks/layers.py --cfg yolov5n-head-LSKA.yaml --img 320

The number in brackets is the share of the time over the share of the multiply-adds. About 1 is usual; much
more means that the runtime has no good kernel. Depth-wise convolutions are memory-bound: for them, more is
usual in any runtime, and PyTorch is the reference.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # idle threads do not spin; before torch is imported

KINDS = {
    "1-D depth-wise, plain": re.compile(r"conv0[hv]\b"),
    "1-D depth-wise, dilated": re.compile(r"conv_spatial_[hv]\b"),
    "1x1 of attention": re.compile(r"\bconv1\b"),
}
REST = "other convolutions"
Times = Counter[str]  # ms by kind of layer, "all" among them


def main() -> None:
    """Run the benchmark."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument(
        "--cfg", nargs="+", default=["yolov5n-LSKA.yaml", "yolov5n-head-LSKA.yaml"], help="model yaml(s)"
    )
    p.add_argument("--img", type=int, default=320, help="image size (pixels)")
    p.add_argument("--rounds", type=int, default=30, help="number of forward passes")
    opt = p.parse_args()
    for cfg in opt.cfg:
        report(cfg, opt.img, opt.rounds)


def report(cfg: str, side: int, rounds: int) -> None:
    """Print the table of one model."""
    import torch

    from models.yolo import DetectionModel
    from utils.export.export_job import example_images
    from utils.export.export_settings import ExportSettings
    from utils.export.onnx import export_onnx

    torch.manual_seed(0)
    model = DetectionModel(cfg).eval().requires_grad_(False).fuse()
    images = example_images((side, side), 1)
    work = multiply_adds(model, images)
    model.head.export = True
    total = sum(work.values())
    print(f"\n{cfg} at {side}, batch 1, {torch.get_num_threads()} threads")
    print(
        f"{'':28}{'of multiply-adds':>18}  of the time, by runtime: share (times its share of multiply-adds)"
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.onnx")
        export_onnx(model, images, file, ExportSettings(include=["onnx"], stride=32, names={0: "x"}))
        results = {
            "PyTorch": in_pytorch(model, images, rounds),
            "ONNX Runtime": in_onnxruntime(file, images, rounds, Path(folder)),
            "OpenVINO": in_openvino(model, images, rounds),
        }
    print(f"{'total ms':46}  " + "  ".join(f"{name} {times['all']:.1f}" for name, times in results.items()))
    for kind in (*KINDS, REST):
        share = work[kind] / total
        cells = []
        for name, times in results.items():
            time_share = times[kind] / times["all"]
            cells.append(f"{name} {time_share:.1%} ({time_share / share:.1f})")
        print(f"{kind:28}{share:>18.2%}  " + "  ".join(cells))


def kind_of(name: str) -> str:
    """Return the kind of a convolution from its name, which contains the module's path."""
    return next((kind for kind, pattern in KINDS.items() if pattern.search(name)), REST)


def multiply_adds(model: Any, images: Any) -> Counter[str]:
    """Count the multiply-adds of every kind of convolution."""
    import torch

    counted: Counter[str] = Counter()

    def count(name: str) -> Any:
        def hook(module: Any, inputs: Any, out: Any) -> None:
            counted[kind_of(name)] += out.numel() * module.weight[0].numel()

        return hook

    hooks = [
        module.register_forward_hook(count(name))
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Conv2d)
    ]
    with torch.inference_mode():
        model(images)
    for hook in hooks:
        hook.remove()
    return counted


def in_pytorch(model: Any, images: Any, rounds: int) -> Times:
    """Time each convolution with hooks, which also make attention run without the compiled kernels."""
    import time

    import torch

    times: Times = Counter()
    starts: dict[Any, float] = {}
    names = {module: name for name, module in model.named_modules() if isinstance(module, torch.nn.Conv2d)}

    def before(module: Any, inputs: Any) -> None:
        starts[module] = time.perf_counter()

    def after(module: Any, inputs: Any, out: Any) -> None:
        times[kind_of(names[module])] += 1e3 * (time.perf_counter() - starts[module]) / rounds

    hooks = [module.register_forward_pre_hook(before) for module in names]
    hooks += [module.register_forward_hook(after) for module in names]
    images = images.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        model(images)
        times.clear()
        start = time.perf_counter()
        for _ in range(rounds):
            model(images)
        times["all"] = 1e3 * (time.perf_counter() - start) / rounds
    for hook in hooks:
        hook.remove()
    return times


def in_onnxruntime(file: Path, images: Any, rounds: int, folder: Path) -> Times:
    """Read the times from ONNX Runtime's profile."""
    from utils.base.device import disable_ort_telemetry

    disable_ort_telemetry()
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(folder / "profile")
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    array = images.contiguous().numpy()
    for _ in range(rounds):
        session.run(None, {"images": array})
    times: Times = Counter()
    for event in json.loads(Path(session.end_profiling()).read_text()):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            milliseconds = event["dur"] / 1e3 / rounds
            times["all"] += milliseconds
            if "Conv" in event["args"]["op_name"]:
                times[kind_of(event["name"].replace("/", " "))] += milliseconds
    return times


def in_openvino(model: Any, images: Any, rounds: int) -> Times:
    """Read the times from OpenVINO's performance counters."""
    import openvino
    import torch

    network = openvino.convert_model(model, example_input=images.contiguous(), input=list(images.shape))
    settings = {"PERF_COUNT": True, "INFERENCE_PRECISION_HINT": "f32"}
    settings["INFERENCE_NUM_THREADS"] = torch.get_num_threads()
    request = openvino.Core().compile_model(network, "CPU", settings).create_infer_request()
    times: Times = Counter()
    for _ in range(rounds):
        request.infer([images.contiguous().numpy()])
        for node in request.profiling_info:
            milliseconds = node.real_time.total_seconds() * 1e3 / rounds
            times["all"] += milliseconds
            if "Conv" in node.node_type:
                times[kind_of(node.node_name.replace("/", " "))] += milliseconds
    return times


if __name__ == "__main__":
    main()
