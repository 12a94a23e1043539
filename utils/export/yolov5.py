"""YOLOv5's own .pt format: a pickle of its modules, which YOLOv5 and programs made for it open.

The modules of a model become records of the original's classes, with the attributes that its code reads;
`models.pickles` writes them without importing a class (docs/design/0004-checkpoints-are-data.md).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.attention.lska import DESIGNS
from models.blocks.conv import Conv, MixConv2d, Projection
from models.blocks.csp import TransformerBlock
from models.head import Detect
from models.pickles import Record, make_record, record_class, write_torch_file
from models.weights import Checkpoint, build_model, read_checkpoint
from models.yolo import BaseModel
from utils.base.log import LOG
from utils.base.paths import ROOT, atomic_write, relative_to_cwd
from utils.base.yaml_io import plain
from utils.export.export_settings import ExportSettings
from utils.tasks.classify.head import TorchVision
from utils.tasks.classify.transforms import MEAN, STD
from utils.tasks.segment.head import Segment

PASTE = ROOT / "data" / "blocks_for_yolov5.py"  # the blocks that YOLOv5 lacks, for its models/common.py
IMGSZ = 224  # of a classifier whose file does not say it

_BLOCKS_OF_YOLOV5 = {
    *("Conv", "DWConv", "DWConvTranspose2d", "CrossConv", "GhostConv", "GhostBottleneck"),
    *("Bottleneck", "BottleneckCSP", "C3", "C3x", "C3TR", "C3Ghost", "C3SPP", "SPP", "SPPF", "Focus"),
    *("Concat", "Contract", "Expand", "TransformerLayer", "TransformerBlock", "Proto", "Classify"),
}
_MODELS = {"detect": "DetectionModel", "segment": "SegmentationModel", "classify": "ClassificationModel"}
_ONLY_OURS = ("repeats", "args", "sizes", "_packed")  # attributes that the original's modules lack
_ATTRIBUTES_OF_MODULES = frozenset(vars(nn.Module()))


def export_yolov5(model: nn.Module, images: Tensor, path: Path, settings: ExportSettings) -> None:
    """Write a checkpoint as YOLOv5 leaves it after training: FP16, without optimizer.

    Args:
        model: the model of the checkpoint, fused; the file gets the one that is not.
        images: not used.
        path: the file to write.
        settings: `weights` names the checkpoint.
    """
    checkpoint = read_checkpoint(settings.weights[0])
    unfused = build_model(checkpoint)
    with atomic_write(path) as file:
        write_torch_file(file, yolov5_content(unfused, checkpoint))
    if missing := blocks_to_paste(unfused):
        own = [name for name in missing if f"class {name}(" not in PASTE.read_text(encoding="utf-8")]
        also = f" and the code of {', '.join(own)}" if own else ""
        LOG.warning(
            f"{path.name}: YOLOv5 lacks {', '.join(missing)}; it opens the file when the content of "
            f"{relative_to_cwd(PASTE)}{also} has been appended to its models/common.py"
        )


def blocks_to_paste(model: BaseModel) -> list[str]:
    """Return the names of the classes in a model that YOLOv5 does not have."""
    used = {origin_of(type(module)).rpartition(".") for module in _parts(model).modules()}
    return sorted({name for folder, _, name in used if folder == "models.common"} - _BLOCKS_OF_YOLOV5)


def yolov5_content(model: BaseModel, checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the content of a stripped file of YOLOv5, to be written by `write_torch_file`.

    Args:
        model: the checkpoint's model, not fused, unless the checkpoint is.
        checkpoint: what `read_checkpoint` returned.
    """
    return {
        "epoch": -1,
        "best_fitness": None,
        "model": _model_record(model, checkpoint),
        "ema": None,
        "updates": None,
        "optimizer": None,
        "opt": checkpoint.opt,
        "git": checkpoint.metadata.get("git"),
        "date": checkpoint.metadata.get("date"),
    }


def origin_of(cls: type[nn.Module]) -> str:
    """Return module and name of the class that takes the place of one of ours in files of YOLOv5."""
    if cls is Projection:
        cls = nn.Conv2d
    if cls.__module__.partition(".")[0] in ("torch", "torchvision"):
        return f"{cls.__module__}.{cls.__qualname__}"
    folder = "experimental" if cls is MixConv2d else "yolo" if issubclass(cls, Detect) else "common"
    return f"models.{folder}.{cls.__name__}"


def _parts(model: BaseModel) -> nn.Module:
    """Return the layers of a model, or the model of torchvision, which YOLOv5 saves as it is."""
    first = model.model[0]
    return first.model if isinstance(first, TorchVision) else model.model


def _model_record(model: BaseModel, checkpoint: Checkpoint) -> Record:
    """Return the record of a whole model, with its names and what the task adds."""
    names = dict(sorted(model.names.items()))
    fields: dict[str, Any] = {
        "yaml": plain({key: value for key, value in model.yaml.items() if key != "yaml_file"}),
        "save": model.save,
        "names": names,
        "stride": torch.tensor(checkpoint.stride) if checkpoint.stride else model.stride,
        "nc": model.nc,
    }
    if model.task == "classify":
        size = checkpoint.imgsz or IMGSZ
        fields |= {"names": list(names.values()), "transforms": _transforms(size)}
    else:
        fields |= {"yaml_file": model.yaml_file, "inplace": True}
        trained = {"hyp": checkpoint.hyp, "class_weights": checkpoint.class_weights}
        fields |= {key: value for key, value in trained.items() if value is not None}
    layers = _Converter().record(_parts(model))
    if isinstance(model.model[0], TorchVision):
        layers.fields.update(fields)
        return layers
    own = {key: value for key, value in vars(model).items() if key in _ATTRIBUTES_OF_MODULES}
    return make_record(f"models.yolo.{_MODELS[model.task]}", own | {"_modules": {"model": layers}} | fields)


class _Converter:
    """Converter of modules to records; a module that is used in several places becomes one record."""

    def __init__(self) -> None:
        self.records: dict[nn.Module, Record] = {}

    def record(self, module: nn.Module) -> Record:
        """Return the record of a module, with those of the modules inside it and its tensors in FP16."""
        if module not in self.records:
            record = self.records[module] = make_record(origin_of(type(module)))
            record.fields.update(self._fields(module, record))
        return self.records[module]

    def _fields(self, module: nn.Module, record: Record) -> dict[str, Any]:
        fields = {key: value for key, value in vars(module).items() if key not in _ONLY_OURS}
        children = {name: child and self.record(child) for name, child in module._modules.items()}
        if isinstance(module, Conv) and module.bn is None:  # fused: YOLOv5 calls another method of it
            del children["bn"]
            fields["forward"] = make_record("builtins.getattr", args=(record, "forward_fuse"))
        fields["_parameters"] = {
            name: None if value is None else nn.Parameter(_fp16(value), requires_grad=False)
            for name, value in module._parameters.items()
        }
        fields["_buffers"] = {
            name: None if value is None else _fp16(value) for name, value in module._buffers.items()
        }
        fields["_modules"] = children
        if isinstance(module, TransformerBlock):
            fields["c2"] = module.linear.out_features
        elif type(module) in DESIGNS.values():
            fields["k_size"] = fields["k"]  # its name in the code of the authors
        elif isinstance(module, Detect):
            fields = _head_fields(module, fields)
        return fields


def _head_fields(head: Detect, fields: dict[str, Any]) -> dict[str, Any]:
    """Replace the attributes of our head by those of the original's."""
    kept = {key: value for key, value in fields.items() if key in _ATTRIBUTES_OF_MODULES}
    kept |= {key: fields[key] for key in ("nc", "no", "nl", "na")}
    kept |= {key: [torch.empty(0).half() for _ in range(head.nl)] for key in ("grid", "anchor_grid")}
    kept["inplace"] = True
    if isinstance(head, Segment):
        forward = make_record("builtins.getattr", args=(record_class("models.yolo.Detect"), "forward"))
        kept |= {"nm": head.nm, "npr": head.npr, "detect": forward}
    return kept | {key: fields[key] for key in ("i", "f", "type", "np")} | {"stride": head.stride.half()}


def _fp16(value: Tensor) -> Tensor:
    value = value.detach().to("cpu").contiguous()
    return value.half() if value.is_floating_point() else value


def _transforms(size: int) -> Record:
    """Return the transforms that classifiers have: centre square of `size` pixels, RGB 0-1, normalized."""
    normalize = vars(nn.Module()) | {"mean": MEAN, "std": STD, "inplace": False}
    steps = [
        make_record("utils.augmentations.CenterCrop", {"h": size, "w": size}),
        make_record("utils.augmentations.ToTensor", {"half": False}),
        make_record("torchvision.transforms.transforms.Normalize", normalize),
    ]
    return make_record("torchvision.transforms.transforms.Compose", {"transforms": steps})
