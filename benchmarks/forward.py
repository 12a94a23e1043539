"""Forward pass of a .pt file against ONNX Runtime with the same model, each in its own process.

    python benchmarks/forward.py --weights yolov5n.pt

Needs onnx and onnxruntime.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

from timing import ROOT, ResultTable, TimedProcess, alternate, parser, run_rounds, slower

BATCHES = (1, 8)


def main() -> None:
    """Run the benchmark."""
    p = parser(__doc__)
    p.add_argument(
        "--weights", default=str(ROOT.parent / "shared" / "weights" / "yolov5n.pt"), help="checkpoint path"
    )
    p.add_argument("--img", type=int, default=640, help="image size (pixels)")
    p.add_argument("--batch", type=int, default=1, help=argparse.SUPPRESS)
    p.add_argument("--side", default="", help=argparse.SUPPRESS)
    p.add_argument("--onnx", default="", help=argparse.SUPPRESS)
    opt = p.parse_args()
    if opt.side:
        _run_side(opt)
        return
    if not Path(opt.weights).is_file():
        p.error(f"--weights {opt.weights}: no such file")
    from models.backends.pytorch import has_bf16

    table = ResultTable("Forward pass", opt.csv)
    with tempfile.TemporaryDirectory() as folder:
        onnx = export(opt.weights, Path(folder) / "model.onnx", opt.img)
        for batch in BATCHES:
            flags = ["--weights", opt.weights, "--img", str(opt.img), "--batch", str(batch), "--onnx", onnx]
            names = {"ours": True, "plain eager": False}
            # ONNX Runtime cannot be kept from AVX-512, as `all.py forward-avx2` keeps the others.
            names |= {} if "ONEDNN_MAX_CPU_ISA" in os.environ else {"ONNX Runtime": True}
            names |= {"bf16": True} if has_bf16() else {}
            sides = {
                name: TimedProcess(__file__, "--side", name, *flags, native=native)
                for name, native in names.items()
            }
            seconds = alternate(
                dict(sides), opt.rounds * (3 if batch == 1 else 1), warm=3, least=0, pause=0.1
            )
            name = f"{Path(opt.weights).stem} at {opt.img}, batch {batch}"
            if "ONNX Runtime" in names:
                table.add(slower(f"{name}: over ONNX Runtime", "<= 1.15", seconds, "ours", "ONNX Runtime"))
            table.add(slower(f"{name}: over plain eager", "", seconds, "ours", "plain eager"))
            if "bf16" in names:
                table.add(slower(f"{name}: --runtime bf16 over float32", "", seconds, "bf16", "ours"))
            for side in sides.values():
                side.close()


def export(weights: str, path: Path, img: int) -> str:
    """Export the model to ONNX with dynamic batch size; return the file."""
    import contextlib
    import io

    import export as script

    with contextlib.redirect_stdout(io.StringIO()):
        copy = path.with_name(Path(weights).name)
        copy.write_bytes(Path(weights).read_bytes())
        script.run(weights=str(copy), imgsz=[img], include=["onnx"], dynamic=True)
    return str(copy.with_suffix(".onnx"))


def _run_side(opt: Any) -> None:
    import torch

    images = torch.rand(opt.batch, 3, opt.img, opt.img, generator=torch.Generator().manual_seed(0))
    if opt.side == "ONNX Runtime":
        from utils.base.device import disable_ort_telemetry

        disable_ort_telemetry()
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(opt.onnx, settings, providers=["CPUExecutionProvider"])
        inputs = {session.get_inputs()[0].name: images.numpy()}

        def work() -> None:
            session.run(None, inputs)
    else:
        work = _torch_work(opt, images)
    run_rounds(work)


def _torch_work(opt: Any, images: Any) -> Any:
    import torch

    if opt.side in ("ours", "bf16"):
        from models.backends import load_backend
        from utils.base.device import select_device

        runtime = "" if opt.side == "ours" else opt.side
        backend = load_backend([opt.weights], select_device("cpu", verbose=False), runtime=runtime)
        channels_last = images.to(memory_format=torch.channels_last)

        def infer() -> None:
            backend(channels_last)

        return infer
    from models.weights import load_for_inference

    model = load_for_inference(opt.weights, torch.device("cpu"))
    for module in model.modules():
        if hasattr(module, "_packed"):
            module._packed = None

    def work() -> None:
        with torch.inference_mode():
            model(images)

    return work


if __name__ == "__main__":
    main()
