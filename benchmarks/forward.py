"""The forward pass of a .pt file beside ONNX Runtime's of the same model, each in a process of its own.

    python benchmarks/forward.py --weights yolov5n.pt

Needs onnx and onnxruntime.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from timing import ROOT, ResultTable, TimedProcess, alternate, parser, serve, slower

BATCHES = (1, 8)


def main() -> None:
    """Measure and print."""
    p = parser(__doc__)
    p.add_argument("--weights", default=str(ROOT.parent / "shared" / "weights" / "yolov5n.pt"))
    p.add_argument("--img", type=int, default=640)
    p.add_argument("--batch", type=int, default=1, help="of a side in its own process")
    p.add_argument("--side", default="", help="of a side in its own process")
    p.add_argument("--onnx", default="", help="of a side in its own process")
    opt = p.parse_args()
    if opt.side:
        _serve(opt)
        return
    if not Path(opt.weights).is_file():
        p.error(f"--weights {opt.weights}: no such file")
    table = ResultTable("Forward pass", opt.csv)
    with tempfile.TemporaryDirectory() as folder:
        onnx = export(opt.weights, Path(folder) / "model.onnx", opt.img)
        for batch in BATCHES:
            settings = [
                "--weights",
                opt.weights,
                "--img",
                str(opt.img),
                "--batch",
                str(batch),
                "--onnx",
                onnx,
            ]
            names = {"ours": True, "ONNX Runtime": True, "plain eager": False}
            sides = {
                name: TimedProcess(__file__, "--side", name, *settings, native=own)
                for name, own in names.items()
            }
            seconds = alternate(
                dict(sides), opt.rounds * (3 if batch == 1 else 1), warm=3, least=0, pause=0.1
            )
            name = f"{Path(opt.weights).stem} at {opt.img}, batch {batch}"
            table.add(slower(f"{name}: over ONNX Runtime", "<= 1.15", seconds, "ours", "ONNX Runtime"))
            table.add(slower(f"{name}: over plain eager", "", seconds, "ours", "plain eager"))
            for side in sides.values():
                side.close()


def export(weights: str, path: Path, img: int) -> str:
    """The model as ONNX, for batches of any size."""
    import contextlib
    import io

    import export as script

    with contextlib.redirect_stdout(io.StringIO()):
        copied = path.with_name(Path(weights).name)
        copied.write_bytes(Path(weights).read_bytes())
        script.run(weights=str(copied), imgsz=[img], include=["onnx"], dynamic=True)
    return str(copied.with_suffix(".onnx"))


def _serve(opt: Any) -> None:
    import torch

    images = torch.rand(opt.batch, 3, opt.img, opt.img, generator=torch.Generator().manual_seed(0))
    if opt.side == "ONNX Runtime":
        from utils.base.device import disable_ort_telemetry

        disable_ort_telemetry()
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(opt.onnx, settings, providers=["CPUExecutionProvider"])
        given = {session.get_inputs()[0].name: images.numpy()}

        def work() -> None:
            session.run(None, given)
    else:
        work = _torch_work(opt, images)
    serve(work)


def _torch_work(opt: Any, images: Any) -> Any:
    import torch

    if opt.side == "ours":
        from models.backends import load_backend
        from utils.base.device import select_device

        backend = load_backend([opt.weights], select_device("cpu", verbose=False))
        given = images.to(memory_format=torch.channels_last)

        def infer() -> None:
            backend(given)

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
