"""PyTorch's own formats: checkpoints, one or several as an ensemble; TorchScript; AOTInductor packages.

An AOTInductor package (.pt2) holds machine code: load only files that you trust.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from models.backends.base import Backend, LayerCallback, Outputs
from models.backends.cuda_graphs import GraphedModel
from models.backends.metadata import Metadata
from models.base_model import BaseModel
from models.weights import Ensemble, load_for_inference
from models.yolo import DetectionModel
from utils.base.errors import ConfigError, DataError, first_line, one_line
from utils.base.formats import existing_file
from utils.base.log import LOG
from utils.base.names import class_names

BF16, GRAPH = "bf16", "graph"  # of `--runtime`


class PyTorchBackend(Backend):
    """A model of .pt files; the only runtime with test-time augmentation and feature maps."""

    pt = True

    def __init__(
        self,
        weights: Sequence[str],
        device: torch.device,
        *,
        half: bool = False,
        fuse: bool = True,
        runtime: str = "",
    ) -> None:
        super().__init__(", ".join(weights), device)
        chosen = _check_runtime(runtime)
        dtype = _precision(device, half, BF16 in chosen)
        model = load_for_inference(weights[0] if len(weights) == 1 else list(weights), device, fuse=fuse)
        if device.type in ("cpu", "cuda"):
            model = model.to(memory_format=torch.channels_last)
        self._set_model(model.to(dtype), graphs=GRAPH in chosen)

    @classmethod
    def from_model(cls, model: BaseModel | Ensemble) -> PyTorchBackend:
        """Wrap a model that is in memory, on its device and in its precision; it is put into eval mode."""
        backend = cls.__new__(cls)
        Backend.__init__(backend, "the model", next(model.parameters()).device)
        backend._set_model(model)
        return backend

    def _set_model(self, model: BaseModel | Ensemble, graphs: bool = False) -> None:
        self.model = model.eval()
        self._graphs = graphs
        self.task = model.task
        self.trained_imgsz = getattr(model, "trained_imgsz", None)  # None of an ensemble
        if isinstance(model, DetectionModel):
            self.mask_ratio = model.head.mask_ratio
        self.stride = max(int(model.stride.max()), 32)
        self.names = class_names(model.names)
        self.sync_device()

    def sync_device(self) -> None:
        """Expect images on the device and in the precision that the model has now; forget its graphs."""
        weight = next(self.model.parameters())
        self.device, self.dtype, self.fp16 = weight.device, weight.dtype, weight.dtype == torch.float16
        self._graphed = GraphedModel(self._run) if self._graphs and self.device.type == "cuda" else None
        if self._graphs and self._graphed is None:
            LOG.warning(f"--runtime {GRAPH}: for CUDA only, so without graphs on {self.device.type}")

    def infer(self, images: Tensor) -> Outputs:
        """Run the model."""
        return self._parts(self.model(images))

    @torch.inference_mode()
    def __call__(self, images: Tensor, augment: bool = False, visualize: LayerCallback | None = None) -> Any:
        """Return decoded boxes, and prototypes of a segmentation model; see `Backend`.

        `visualize` is called with each layer and its output.
        """
        images = images.to(self.device, self.dtype)
        if self._graphed is not None and not augment and visualize is None:
            return self._graphed(images)
        return self._run(images, augment=augment, visualize=visualize)

    def _run(self, images: Tensor, **options: Any) -> Any:
        output = self._parts(self.model(images, **options))
        return output.float() if isinstance(output, Tensor) else tuple(part.float() for part in output)

    def _parts(self, output: Any) -> Outputs:
        """Return what a runtime gives: logits, or boxes and prototypes without raw maps."""
        if self.task == "classify":
            return cast("Tensor", output)
        return cast("Outputs", output[:2] if self.task == "segment" else output[0])


def _check_runtime(runtime: str) -> set[str]:
    """Return the words of `--runtime`."""
    words = set(runtime.split(",")) if runtime else set()
    if words - {BF16, GRAPH}:
        raise ConfigError(
            f"--runtime {runtime}: for a .pt file {BF16} (bfloat16), {GRAPH} (CUDA graphs), or {BF16},{GRAPH}"
        )
    return words


def _precision(device: torch.device, half: bool, bf16: bool) -> torch.dtype:
    """Return in which precision a checkpoint runs; boxes are decoded in float32 in any."""
    if bf16:
        # Without instructions for it, bfloat16 is emulated, which takes several times as long.
        if device.type == "cpu" and not has_bf16():
            LOG.warning("--runtime bf16: this processor has no instructions for it (AVX512-BF16), so float32")
        elif device.type in ("cpu", "cuda"):
            return torch.bfloat16
        else:
            LOG.warning(f"--runtime bf16: for CPU and CUDA only, so float32 on {device.type}")
    return torch.float16 if half and device.type == "cuda" else torch.float32


def has_bf16() -> bool:
    """Return whether the processor has instructions for bfloat16: AVX512-BF16, AMX, or those of ARM."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class AotiBackend(Backend):
    """A model compiled by AOTInductor, for machines like the one on which it was exported."""

    def __init__(self, weights: str, device: torch.device) -> None:
        from torch._inductor import aoti_load_package

        super().__init__(weights, device)
        path = existing_file(weights)
        try:
            self.model = aoti_load_package(str(path))
            metadata = self.model.loader.get_metadata()
        except (RuntimeError, OSError) as error:
            raise DataError(f"{weights}: not an AOTInductor package ({first_line(error)})") from error
        values: dict[str, str] = {
            key: metadata[key] for key in ("task", "stride", "names", "imgsz", "batch") if key in metadata
        }
        self.apply_metadata(Metadata.of(values, weights))

    def infer(self, images: Tensor) -> Outputs:
        """Run the compiled model."""
        outputs: Outputs = self.model(images.contiguous())
        return outputs


class TorchScriptBackend(Backend):
    """A traced model, for the image size of its trace."""

    def __init__(self, weights: str, device: torch.device, *, half: bool = False) -> None:
        super().__init__(weights, device)
        path = existing_file(weights)
        extra = {"config.txt": ""}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # TorchScript is deprecated
                self.model = torch.jit.load(str(path), map_location=device, _extra_files=extra)
        except (RuntimeError, ValueError) as error:
            raise DataError(f"{weights}: not a TorchScript file ({first_line(error)})") from error
        self.fp16 = half and device.type == "cuda"
        self.model = self.model.half() if self.fp16 else self.model.float()
        (returned,) = self.model.forward.schema.returns
        if returned.type.kind() == "TupleType":
            self.count_outputs(len(returned.type.elements()))
        else:  # YOLOv5's detectors return a tuple of one
            self.count_outputs(1, dimensions=2)
        if extra["config.txt"]:
            self._read_config(extra["config.txt"])

    def infer(self, images: Tensor) -> Outputs:
        """Run the traced model."""
        outputs: Outputs = self.model(images)
        return outputs

    def _read_config(self, text: str | bytes) -> None:
        try:
            config = dict(json.loads(text))
            shape = config.pop("shape", None)
            size = [shape[2], shape[3]] if shape else None
        except (IndexError, TypeError, ValueError) as error:
            raise DataError(f"{self.file}: config.txt in it is corrupt ({one_line(error)})") from error
        self.apply_metadata(Metadata.of({**config, "imgsz": size}, self.file))
