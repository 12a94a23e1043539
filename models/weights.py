"""Checkpoints: read their file, build the model, save and strip them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.checkpoint_checks import check_state, checked_strides, names_of_classes, warn_if_not_finite
from models.config import with_kernels
from models.official_weights import locate_weights
from models.pickles import Record, read_torch_file, save_torch, state_of
from models.registry import LATER
from models.van_weights import classifier_state, detector_config
from models.yolo import BaseModel, DetectionModel, make_model
from utils.base.errors import ConfigError, DataError
from utils.base.log import LOG
from utils.base.names import class_names
from utils.base.paths import atomic_write, command_for
from utils.base.yaml_io import plain
from utils.tasks.classify.official import config_of

_HEADS = ("Detect", "Segment", "Classify", "ClassifyLinear")
FORMAT = "yolov5-lska"  # the value of `format` in files of our own
VERSION = 1
_METADATA = ("date", "git", "versions", "data", "command", "seed")  # keys that describe the training run


@dataclass
class Checkpoint:
    """Content of a checkpoint file, as plain data."""

    path: Path
    state: dict[str, Tensor]  # of the EMA if the file has one, in the precision of the file
    yaml: dict[str, Any]
    names: dict[int, str]
    stride: list[float]
    nc: int
    hyp: dict[str, Any] | None = None
    opt: dict[str, Any] | None = None
    epoch: int = -1
    best_fitness: float | None = None
    class_weights: Tensor | None = None  # (nc,), in files of YOLOv5, for its training
    training: dict[str, Any] | None = None  # the whole content, where training can resume from it
    metadata: dict[str, Any] = field(default_factory=dict)  # the keys of _METADATA

    @property
    def imgsz(self) -> int | None:
        """Image size of the training, if the file says it."""
        imgsz = (self.opt or {}).get("imgsz")
        return imgsz if type(imgsz) is int and imgsz > 0 else None


@dataclass
class VANCheckpoint(Checkpoint):
    """Weights of a VAN classifier, which fill the backbone of the detector that `yaml` describes."""


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a .pt file as inert data: our own, one of YOLOv5 v3 to v7 or its forks, or a VAN classifier's.

    Raises:
        ConfigError: there is no such file.
        DataError: it is not a checkpoint of a detection model, nor of a VAN classifier (`VANCheckpoint`).
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: no such weights file")
    content = read_torch_file(path)
    if isinstance(content, Record):
        content = {"model": content}
    if not isinstance(content, dict):
        raise DataError(f"{path}: not a YOLOv5 checkpoint (it holds {type(content).__name__})")
    model = _model_in(path, content)
    if content.get("format") == FORMAT and isinstance(model, dict):
        return _from_state_dict(path, content, model)
    if isinstance(model, Record):
        return _from_pickled_module(path, content, _unwrapped(model))
    if (state := classifier_state(content)) is not None:
        return _from_van(path, state)
    raise DataError(f"{path}: not a YOLOv5 checkpoint (no model in it)")


def _model_in(path: Path, content: dict[str, Any]) -> Any:
    """Return the EMA of a file, or its model where it has none."""
    ema = content.get("ema")
    if ema is None or isinstance(ema, dict) and not ema:
        return content.get("model")
    if not isinstance(ema, dict | Record):
        raise DataError(f"{path}: a damaged checkpoint ('ema' is a {type(ema).__name__})")
    return ema


def _from_state_dict(path: Path, content: dict[str, Any], model: dict[str, Any]) -> Checkpoint:
    """Read the content of a file that `save_checkpoint` wrote."""
    try:
        if int(content.get("version", 0)) > VERSION:
            raise DataError(f"{path}: written by a newer version of this program; update it")
        state, nc = dict(model["state_dict"]), int(model["yaml"]["nc"])
        check_state(state, str(path))
        return Checkpoint(
            path=path,
            state=state,
            yaml=dict(model["yaml"]),
            names=names_of_classes(class_names(model["names"]), nc, str(path)),
            stride=checked_strides([float(s) for s in model["stride"]], str(path)),
            nc=nc,
            hyp=_plain_or_none(model.get("hyp")),
            opt=_plain_or_none(content.get("opt")),
            epoch=int(content.get("epoch", -1)),
            best_fitness=content.get("best_fitness"),
            training=content if content.get("optimizer") is not None else None,
            metadata={key: content[key] for key in _METADATA if key in content},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: a damaged checkpoint ({type(error).__name__}: {error})") from error


def _from_pickled_module(path: Path, content: dict[str, Any], model: Record) -> Checkpoint:
    """Read the content of a file of YOLOv5 or one of its forks, which holds the pickled model."""
    yaml, prefix = model.get("yaml"), ""
    head = next((module for module in _modules(model) if module.class_name in _HEADS), None)
    if not isinstance(yaml, dict) and head is not None and head.class_name == "Classify":
        yaml = _classifier_yaml(path, model)
    if isinstance(yaml, dict) and model.origin.startswith("torchvision."):  # which export.py has written
        head, prefix = model, "model.0.model."
    if not isinstance(yaml, dict) or head is None:
        raise DataError(f"{path}: not a model of YOLOv5 (it holds a {model.origin})")
    nc = int(head.get("nc") or yaml["nc"])
    yaml = {key: value for key, value in plain(yaml).items() if value is not None} | {"nc": nc}
    for key, block in (("activation", "Conv"), ("csp_activation", "BottleneckCSP")):
        if activation := _old_activation(model, block):
            yaml[key] = activation
    state = {key: value for key, value in state_of(model, prefix) if not key.endswith("anchor_grid")}
    check_state(state, str(path))
    yaml = with_kernels(yaml, state)
    if isinstance(model.get("yaml_file"), str):
        yaml["yaml_file"] = model.get("yaml_file")
    stride, names, epoch = model.get("stride"), model.get("names"), content.get("epoch")
    class_weights = model.get("class_weights")
    known = class_names(names) if isinstance(names, dict | list | tuple) else {i: str(i) for i in range(nc)}
    strides = stride.flatten().tolist() if isinstance(stride, Tensor) else []
    return Checkpoint(
        path=path,
        state=state,
        yaml=yaml,
        names=names_of_classes(known, nc, str(path)),
        stride=checked_strides([float(s) for s in strides], str(path)),
        nc=nc,
        hyp=_plain_or_none(model.get("hyp")),
        opt=_plain_or_none(content.get("opt")),
        epoch=epoch if isinstance(epoch, int) else -1,
        class_weights=class_weights if isinstance(class_weights, Tensor) else None,
        metadata={key: plain(content[key]) for key in _METADATA if content.get(key) is not None},
    )


def _classifier_yaml(path: Path, model: Record) -> dict[str, Any]:
    try:
        return config_of(model)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: not a classifier of YOLOv5 ({error})") from error


def _from_van(path: Path, state: dict[str, Tensor]) -> VANCheckpoint:
    try:
        yaml = detector_config(state)
    except (KeyError, IndexError, TypeError, ValueError, ZeroDivisionError) as error:
        raise DataError(f"{path}: a damaged VAN classifier ({type(error).__name__}: {error})") from error
    return VANCheckpoint(path, state, yaml, names={}, stride=[], nc=yaml["nc"])


def _unwrapped(model: Record) -> Record:
    inner = model.get("module")
    return inner if isinstance(inner, Record) and "DataParallel" in model.class_name else model


def _modules(module: Record) -> Iterator[Record]:
    """Yield a module's record and those of all modules inside it."""
    yield module
    for child in (module.fields.get("_modules") or {}).values():
        if isinstance(child, Record):
            yield from _modules(child)


def _old_activation(model: Record, block: str) -> str | None:
    """Return the activation of a model's blocks of one class, as yaml text; None for SiLU, used since v4."""
    for module in _modules(model):
        act = module.get("act") if module.class_name == block else None
        if isinstance(act, Record) and act.class_name in ("LeakyReLU", "Hardswish", "ReLU", "Mish"):
            slope = act.get("negative_slope", 0.01) if act.class_name == "LeakyReLU" else ""
            return f"nn.{act.class_name}({slope})"
    return None


def _plain_or_none(value: Any) -> dict[str, Any] | None:
    return plain(value) if isinstance(value, dict) else None


def build_model(checkpoint: Checkpoint, nc: int | None = None) -> Any:
    """Build the model of a checkpoint, in float32 and eval mode, with its weights.

    Args:
        checkpoint: what `read_checkpoint` returned.
        nc: number of classes, if another than the file's; the convolutions of the head then keep their
            random initialisation.

    Returns:
        A model of the class that its yaml asks for, see `make_model`.

    Raises:
        DataError: yaml and weights of the file do not belong together, or it holds a VAN classifier.
    """
    if isinstance(checkpoint, VANCheckpoint):
        raise DataError(
            f"{checkpoint.path}: a VAN classifier, which detects nothing; to train a detector with it as "
            f"the backbone: {command_for('train.py')} --weights {checkpoint.path}"
        )
    nc = checkpoint.nc if nc is None else nc
    if nc != checkpoint.nc:
        model = _make_empty(checkpoint, nc)
        own = model.state_dict()
        fits = {k: v.float() for k, v in checkpoint.state.items() if k in own and own[k].shape == v.shape}
        model.load_state_dict(fits, strict=False)
    else:
        with torch.device("meta"):  # draw no random weights, as all are replaced
            model = _make_empty(checkpoint, nc)
        if "model.0.conv.bias" in checkpoint.state:  # saved after fusing
            model.fuse()
        state = {k: v.float() if v.is_floating_point() else v for k, v in checkpoint.state.items()}
        warn_if_not_finite(state, str(checkpoint.path))
        if different := _first_difference(model, state):
            raise DataError(
                f"{checkpoint.path}: yaml and weights do not belong together: {different}. {_FORK}"
            )
        model.load_state_dict(state, assign=True)
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        model.names = checkpoint.names
    model.yaml_file = str(checkpoint.yaml.get("yaml_file") or f"{checkpoint.path.stem}.yaml")
    if isinstance(model, DetectionModel):
        model.head.set_anchors(model.head.anchors_px())
    model.hyp, model.trained_imgsz = checkpoint.hyp, checkpoint.imgsz
    return model.eval()


_FORK = (
    "If a fork of YOLOv5 has written the file, register its block with its own tensors, see "
    "docs/your-own-code.md, or use the fork"
)


def _make_empty(checkpoint: Checkpoint, nc: int) -> Any:
    """Make the model of a checkpoint's yaml, without its weights.

    Raises:
        DataError: the yaml has a block that is not ours, or arguments that ours do not take.
    """
    try:
        return make_model(checkpoint.yaml, nc=nc)
    except ConfigError as error:
        if "--blocks" in str(error):
            raise DataError(f"{checkpoint.path}: {error}") from error
        if LATER in str(error):
            raise DataError(
                f"{checkpoint.path}: a checkpoint of {LATER}; use the ultralytics package for it"
            ) from error
        raise DataError(
            f"{checkpoint.path}: the model inside cannot be built: {str(error).rstrip('.')}. {_FORK}"
        ) from error


def _first_difference(model: BaseModel, state: Mapping[str, Tensor]) -> str:
    """Return the first tensor of a model that a checkpoint lacks, has more, or has in another shape."""
    own = model.state_dict()
    layers: Any = model.model
    types = {str(layer.i): layer.type.rpartition(".")[2] for layer in layers}
    for key in (*own, *state):
        expected, found = (list(some[key].shape) if key in some else "absent" for some in (own, state))
        if expected != found:
            number = key.partition(".")[2].partition(".")[0]
            where = f" of layer {number} ({types[number]})" if number in types else ""
            return f"{key}{where} is {found} in the file, and {expected} in the model"
    return ""


class Ensemble(nn.Module):
    """Several models whose boxes go through NMS together."""

    def __init__(self, members: Sequence[DetectionModel]) -> None:
        super().__init__()
        first = members[0]
        if any(member.task != "detect" for member in members):
            raise ConfigError("--weights: give one model; only the boxes of detection models can be merged")
        if any(member.nc != first.nc for member in members):
            raise ConfigError(f"--weights: an ensemble needs equal classes, found {[m.nc for m in members]}")
        self.members = nn.ModuleList(members)
        self.task = first.task
        self.names, self.nc, self.yaml = first.names, first.nc, first.yaml
        self.stride = max((member.stride for member in members), key=lambda s: float(s.max()))

    def forward(self, x: Tensor, augment: bool = False, visualize: Any = None) -> tuple[Tensor, None]:
        return torch.cat([member(x, augment, visualize=visualize)[0] for member in self.members], 1), None


def load_for_inference(
    weights: str | Path | Sequence[str | Path], device: torch.device, fuse: bool = True
) -> DetectionModel | Ensemble:
    """Build the model of each file for inference on `device`; several form an ensemble."""
    paths = [weights] if isinstance(weights, str | Path) else list(weights)
    models = []
    for path in paths:
        model = build_model(read_checkpoint(locate_weights(path))).requires_grad_(False)
        models.append(model.fuse().eval() if fuse else model)
    return (models[0] if len(models) == 1 else Ensemble(models)).to(device)


def model_record(model: BaseModel, half: bool = False) -> dict[str, Any]:
    """Return a model as tensors and plain containers, for a checkpoint; tensors are copies on the CPU."""
    state = {}
    for key, value in model.state_dict().items():
        value = value.detach().to("cpu", copy=True).contiguous()
        state[key] = value.half() if half and value.is_floating_point() else value
    yaml = plain({key: value for key, value in model.yaml.items() if key != "yaml_file"})
    return {
        "yaml": yaml | {"nc": model.nc, "yaml_file": model.yaml_file},
        "state_dict": state,
        "names": dict(model.names),
        "stride": [float(s) for s in getattr(model, "stride", ())],
        "hyp": plain(model.hyp),
    }


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint atomically; it must hold tensors and plain containers only."""
    content = {"format": FORMAT, "version": VERSION} | content
    with atomic_write(path) as file:
        save_torch(file, content)


def is_foreign(content: Any) -> bool:
    """Return whether the content of a file comes from YOLOv5, a fork or another program.

    Modules that a script pickled with our classes do not: their layers have an attribute of ours.
    """
    if not isinstance(content, dict):
        return True
    model = content.get("ema") or content.get("model")
    layers = _modules(_unwrapped(model)) if isinstance(model, Record) else ()
    return content.get("format") != FORMAT and not any("repeats" in layer.fields for layer in layers)


def strip_checkpoint(path: Path, out: Path | None = None) -> bool:
    """Reduce a checkpoint to what inference needs: the EMA as the model, in FP16, without the optimizer.

    A file of another program, which could not open the result, is not overwritten; a warning says so.

    Args:
        path: the checkpoint.
        out: where to write the result, in this project's format; None: over `path`.

    Returns:
        Whether the result was written.
    """
    content = read_torch_file(path)
    in_place = out is None or out.exists() and out.samefile(path)
    if in_place and is_foreign(content):
        LOG.warning(
            f"{path}: not stripped, as the program that has written it (YOLOv5?) could not open the result; "
            f"for a copy that it opens: {command_for('export.py')} --weights {path} --include yolov5"
        )
        return False
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        checkpoint = read_checkpoint(path)
        content = {
            "model": model_record(build_model(checkpoint)),
            "opt": checkpoint.opt,
            **checkpoint.metadata,
        }
    model = content.get("ema") or content["model"]
    state = {k: v.half() if v.is_floating_point() else v for k, v in model["state_dict"].items()}
    kept = {key: content[key] for key in ("opt", *_METADATA) if key in content}
    removed = {key: None for key in ("best_fitness", "ema", "updates", "optimizer")}
    save_checkpoint(out or path, {"epoch": -1, **removed, "model": {**model, "state_dict": state}, **kept})
    size = (out or path).stat().st_size / 1e6
    LOG.info(f"Optimizer stripped from {path},{f' saved as {out},' if out else ''} {size:.1f}MB")
    return True
