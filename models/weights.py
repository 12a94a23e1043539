"""Weights: read official and own checkpoints, build models from them, save and strip."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.pickles import Record, read_torch_file, state_of
from models.van_weights import classifier_state, detector_config
from models.yolo import DetectionModel
from utils.base.errors import ConfigError, DataError
from utils.base.log import LOG
from utils.base.paths import ROOT, atomic_write, typed
from utils.base.yaml_io import plain

FORMAT = "yolov5-lska"  # the value of `format` in files of our own
VERSION = 1

_METADATA = ("date", "git", "versions", "data", "command", "seed")  # of the run: which one it was


@dataclass
class Checkpoint:
    """What a checkpoint file holds, as plain data."""

    path: Path
    state: dict[str, Tensor]  # the EMA's if there is one, in the precision of the file
    yaml: dict[str, Any]
    names: dict[int, str]
    stride: list[float]
    nc: int
    hyp: dict[str, Any] | None = None
    opt: dict[str, Any] | None = None
    epoch: int = -1
    best_fitness: float | None = None
    training: dict[str, Any] | None = None  # the whole content of a resumable file of our own
    classifier: bool = False  # VAN's: its stages fit `yaml`, the rest of that detector is not there
    metadata: dict[str, Any] = field(default_factory=dict)  # _METADATA


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a .pt file of the original (v3 to v7, forks), of our own, or a VAN classifier's, as inert data.

    Raises:
        ConfigError: there is no such file.
        DataError: it is not a checkpoint of a detection model.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: no such weights file")
    content = read_torch_file(path)
    if isinstance(content, Record):
        content = {"model": content}
    if not isinstance(content, dict):
        raise DataError(f"{path}: not a YOLOv5 checkpoint (it holds {type(content).__name__})")
    if (state := classifier_state(content)) is not None:
        return _classifier(path, state)
    model = content.get("ema") or content.get("model")
    if content.get("format") == FORMAT and isinstance(model, dict):
        return _own(path, content, model)
    if isinstance(model, Record):
        return _official(path, content, _unwrapped(model))
    raise DataError(f"{path}: not a YOLOv5 checkpoint (no model in it)")


def _classifier(path: Path, state: dict[str, Tensor]) -> Checkpoint:
    try:
        yaml = detector_config(state)
    except (KeyError, IndexError, TypeError, ValueError, ZeroDivisionError) as error:
        raise DataError(f"{path}: a damaged VAN classifier ({type(error).__name__}: {error})") from error
    return Checkpoint(path, state, yaml, names={}, stride=[], nc=yaml["nc"], classifier=True)


def _own(path: Path, content: dict[str, Any], model: dict[str, Any]) -> Checkpoint:
    if content.get("version", 0) > VERSION:
        raise DataError(f"{path}: written by a newer version of this program; update it")
    try:
        return Checkpoint(
            path=path,
            state=dict(model["state_dict"]),
            yaml=dict(model["yaml"]),
            names={int(key): str(name) for key, name in model["names"].items()},
            stride=[float(s) for s in model["stride"]],
            nc=int(model["yaml"]["nc"]),
            hyp=model.get("hyp"),
            opt=content.get("opt"),
            epoch=int(content.get("epoch", -1)),
            best_fitness=content.get("best_fitness"),
            training=content if content.get("optimizer") is not None else None,
            metadata={key: content[key] for key in _METADATA if key in content},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: a damaged checkpoint ({type(error).__name__}: {error})") from error


def _official(path: Path, content: dict[str, Any], model: Record) -> Checkpoint:
    yaml = model.get("yaml")
    head = next((child for _, child in _records(model) if child.kind == "Detect"), None)
    if not isinstance(yaml, dict) or head is None:
        raise DataError(f"{path}: not a YOLOv5 detection model (it holds a {model.origin})")
    state = {key: value for key, value in state_of(model) if not key.endswith("anchor_grid")}
    stride = model.get("stride")
    names = model.get("names")
    nc = int(head.get("nc") or yaml["nc"])
    yaml = {key: value for key, value in plain(yaml).items() if value is not None} | {"nc": nc}
    for key, kind in (("activation", "Conv"), ("csp_activation", "BottleneckCSP")):
        if activation := _activation(model, kind):
            yaml[key] = activation
    if isinstance(names, dict | list | tuple):
        listed = names.items() if isinstance(names, dict) else enumerate(names)
        labels = {int(key): str(name) for key, name in listed}
    else:
        labels = {i: str(i) for i in range(nc)}
    epoch = content.get("epoch")
    return Checkpoint(
        path=path,
        state=state,
        yaml=yaml,
        names=labels,
        stride=[float(s) for s in stride] if isinstance(stride, Tensor) else [],
        nc=nc,
        hyp=_plain_or_none(model.get("hyp")),
        opt=_plain_or_none(content.get("opt")),
        epoch=epoch if isinstance(epoch, int) else -1,
        metadata={key: plain(content[key]) for key in _METADATA if content.get(key) is not None},
    )


def _unwrapped(model: Record) -> Record:
    inner = model.get("module")
    return inner if isinstance(inner, Record) and "DataParallel" in model.kind else model


def _records(record: Record, prefix: str = "") -> Iterator[tuple[str, Record]]:
    yield prefix, record
    for name, child in (record.fields.get("_modules") or {}).items():
        if isinstance(child, Record):
            yield from _records(child, f"{prefix}.{name}" if prefix else name)


def _activation(model: Record, kind: str) -> str | None:
    """The activation of the file's blocks of a kind as yaml text, where it is not SiLU (before v4)."""
    for _, record in _records(model):
        act = record.get("act") if record.kind == kind else None
        if isinstance(act, Record) and act.kind in ("LeakyReLU", "Hardswish", "ReLU", "Mish"):
            slope = act.get("negative_slope", 0.01) if act.kind == "LeakyReLU" else ""
            return f"nn.{act.kind}({slope})"
    return None


def _plain_or_none(value: Any) -> dict[str, Any] | None:
    return plain(value) if isinstance(value, dict) else None


def build_model(checkpoint: Checkpoint, nc: int | None = None) -> DetectionModel:
    """Build the checkpoint's model in float32, eval mode, and load its weights.

    Args:
        checkpoint: what `read_checkpoint` returned.
        nc: other classes than the file's; then the head's convolutions keep their fresh start.

    Raises:
        DataError: yaml and weights of the file don't belong together, or it holds no detector.
    """
    if checkpoint.classifier:
        raise DataError(
            f"{checkpoint.path}: a VAN classifier, which finds no boxes; it can be grafted into a detector "
            f"that is then to be trained: {typed('train.py')} --weights {checkpoint.path}"
        )
    nc = checkpoint.nc if nc is None else nc
    if nc != checkpoint.nc:
        model = DetectionModel(checkpoint.yaml, nc=nc, strides=checkpoint.stride)
        fits = {k: v.float() for k, v in checkpoint.state.items() if _fits(model, k, v)}
        model.load_state_dict(fits, strict=False)
    else:
        with torch.device("meta"):  # no random start is drawn for weights that are about to be replaced
            model = DetectionModel(checkpoint.yaml, nc=nc, strides=checkpoint.stride)
        fused = "model.0.conv.bias" in checkpoint.state
        if fused:
            model.fuse()
        state = {k: v.float() if v.is_floating_point() else v for k, v in checkpoint.state.items()}
        try:
            model.load_state_dict(state, assign=True)
        except RuntimeError as error:
            raise DataError(f"{checkpoint.path}: yaml and weights do not belong together: {error}") from error
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        model.names = checkpoint.names
    model.yaml_file = str(checkpoint.yaml.get("yaml_file") or f"{checkpoint.path.stem}.yaml")
    model.head.set_anchors(model.head.anchors_px())
    model.hyp = checkpoint.hyp
    return model.eval()


def _fits(model: nn.Module, key: str, value: Tensor) -> bool:
    own = model.state_dict()
    return key in own and own[key].shape == value.shape


class Ensemble(nn.Module):
    """Several models whose boxes are pooled before suppression."""

    def __init__(self, members: Sequence[DetectionModel]) -> None:
        super().__init__()
        first = members[0]
        if any(member.nc != first.nc for member in members):
            raise ConfigError(f"--weights: an ensemble needs equal classes, found {[m.nc for m in members]}")
        self.members = nn.ModuleList(members)
        self.names, self.nc, self.yaml = first.names, first.nc, first.yaml
        self.stride = max((member.stride for member in members), key=lambda s: float(s.max()))

    def forward(self, x: Tensor, augment: bool = False, visualize: Any = None) -> tuple[Tensor, None]:
        return torch.cat([member(x, augment, visualize)[0] for member in self.members], 1), None


def load_for_inference(
    weights: str | Path | Sequence[str | Path], device: torch.device, fuse: bool = True
) -> DetectionModel | Ensemble:
    """Build the model of each file for detection on `device`; several become an ensemble."""
    paths = [weights] if isinstance(weights, str | Path) else list(weights)
    models = []
    for path in paths:
        model = build_model(read_checkpoint(locate_weights(path))).requires_grad_(False)
        models.append(model.fuse().eval() if fuse else model)
    together = models[0] if len(models) == 1 else Ensemble(models)
    together.to(device)
    return together


def locate_weights(name: str | Path) -> Path:
    """Find a weights file: as given, in the project, in the cache folder, else download an official name.

    Raises:
        ConfigError: not there and not an official name.
        DataError: an official name that could not be downloaded; says what to do.
    """
    from models.release import OFFICIAL, download_official, is_official

    path = Path(name).expanduser()
    for candidate in (path, ROOT / path):
        if candidate.is_file():
            return candidate
    if is_official(path.name) and path.parent.resolve() in (Path().resolve(), ROOT):
        return download_official(path.name)
    files = [file.name for file in path.parent.glob("*.pt")] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, sorted({*files, *OFFICIAL}), n=3)
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    raise ConfigError(f"--weights {name}: no such file{hint}")


def model_record(model: DetectionModel, half: bool = False) -> dict[str, Any]:
    """A model as tensors and plain containers, for a checkpoint; tensors are copies on the CPU."""
    state = {}
    for key, value in model.state_dict().items():
        value = value.detach().to("cpu", copy=True).contiguous()
        state[key] = value.half() if half and value.is_floating_point() else value
    yaml = plain({key: value for key, value in model.yaml.items() if key != "yaml_file"})
    return {
        "yaml": yaml | {"nc": model.nc, "yaml_file": model.yaml_file},
        "state_dict": state,
        "names": dict(model.names),
        "stride": [float(s) for s in model.stride],
        "hyp": plain(model.hyp),
    }


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint whole or not at all; it must hold tensors and plain containers only."""
    content = {"format": FORMAT, "version": VERSION} | content
    with atomic_write(path) as file:
        torch.save(content, file)


def strip_checkpoint(path: Path, out: Path | None = None) -> None:
    """Keep what inference needs: the EMA as the model, half precision, nothing to resume."""
    content = read_torch_file(path)
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
    gone = {key: None for key in ("best_fitness", "ema", "updates", "optimizer")}
    save_checkpoint(out or path, {"epoch": -1, **gone, "model": {**model, "state_dict": state}, **kept})
    size = (out or path).stat().st_size / 1e6
    LOG.info(f"Optimizer stripped from {path},{f' saved as {out},' if out else ''} {size:.1f}MB")
