"""Weights of VAN and VAN-LSKA classifiers, as their authors publish them: read, and made fit a detector.

Files of the VAN and LSKA papers (arXiv:2202.09741, arXiv:2309.01439) hold the tensors of a whole
classifier. Its four stages are a backbone; its head, which names ImageNet's classes, is not used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from models.attention.van import DROP_PATH, PARTS, SIZES, rising
from models.config import read_config
from utils.base.errors import ConfigError
from utils.base.log import LOG

# Of ImageNet's images, RGB in 0-1; the classifiers were trained on (image - MEAN) / STD.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STAGES = range(1, 5)
SHIPPED = ("tiny", "small")  # sizes with a config of their own
_SURE_SIGNS = (
    *("patch_embed1.proj.weight", "patch_embed1.proj.bias", "norm4.weight"),
    "block1.0.attn.spatial_gating_unit.conv1.weight",
)
_GATE = "block.0.attn.spatial_gating_unit."  # these three within a stage
_WIDEN = "block.0.mlp.fc1.weight"
_EMBED = "patch_embed.proj.weight"


def classifier_state(content: Any) -> dict[str, Tensor] | None:
    """Tensors of a VAN classifier by the authors' names; None if a file's content is something else.

    They stand at the top of the file or under `state_dict`, from parallel training with `module.`
    before each name.
    """
    held = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(held, Mapping):
        return None
    state = {str(key).removeprefix("module."): v for key, v in held.items() if isinstance(v, Tensor)}
    return state if all(sign in state for sign in _SURE_SIGNS) else None


def stage_tensors(state: Mapping[str, Tensor], number: int) -> dict[str, tuple[str, Tensor]]:
    """A stage's tensors: name in the file -> (name within a `VANStage`, tensor).

    The first stage takes images in 0-1, as all of this project does: the normalisation by MEAN and
    STD is folded into its convolution. That is exact but for the first row and column of its output,
    which look at padding: it is black now, where it was of ImageNet's mean colour.

    Args:
        state: as `classifier_state` gives it.
        number: of the stage, from 1.
    """
    found = {name: (inner, state[name]) for inner, name in _names(state, number).items()}
    weight, bias = f"patch_embed{number}.proj.weight", f"patch_embed{number}.proj.bias"
    if number == 1 and state[weight].shape[1] == len(MEAN):
        exact = state[weight].double()
        mean, std = (exact.new_tensor(values).view(1, -1, 1, 1) for values in (MEAN, STD))
        exact = exact / std
        found[weight] = found[weight][0], exact.float()
        found[bias] = found[bias][0], (state[bias].double() - (exact * mean).sum((1, 2, 3))).float()
    return found


def check_stages(path: Path, state: Mapping[str, Tensor], stages: Sequence[nn.Module], target: str) -> None:
    """Compare a classifier's stages with those that it shall fill; other gates are worth a warning.

    Raises:
        ConfigError: a stage has another size.
    """
    gates = []
    for number, stage in zip(STAGES, stages, strict=False):
        theirs, ours = _inner(state, number), stage.state_dict()
        if (found := _size(theirs)) != (wanted := _size(ours)):
            name = size_name(state)
            known = f"use --cfg yolov5-van-{name}.yaml, or train.py" if name in SHIPPED else "use train.py"
            raise ConfigError(
                f"{path}: stage {number} has {found}; in {target} {wanted}; {known} without --cfg"
            )
        gates.append((stage_gate(theirs), stage_gate(ours)))
    for gate, own in gates:
        if gate != own:
            words = " ".join(f"{key}={value}" for key, value in gate.items())
            LOG.warning(
                f"{path}: its gates are {words}, those of {target} {own['design']} k={own['k']}, whose "
                f"depth-wise kernels start again; train.py --attention {words} would take them over"
            )
            break


def stage_gate(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Design, k and dilation of a stage's gates, from the shapes of their kernels."""
    gate = {
        key.removeprefix(_GATE): max(value.shape[2:])
        for key, value in tensors.items()
        if key.startswith(_GATE) and key.endswith(".weight")
    }
    separable = "conv0h.weight" in gate
    near = gate["conv0h.weight" if separable else "conv0.weight"]
    far = gate.get("conv_spatial_h.weight" if separable else "conv_spatial.weight")
    design = "LSKA" if separable else "LKA"
    if far is None:
        return {"design": f"{design}Trivial", "k": near}
    dilation = (near + 1) // 2
    return {"design": design, "k": near + dilation * (far - 1), "dilation": dilation}


def size_name(state: Mapping[str, Tensor]) -> str | None:
    """tiny, small or base; None for a size that the paper does not have."""
    stages = [_inner(state, number) for number in STAGES]
    sizes = tuple(_channels(stage) for stage in stages), tuple(_blocks(stage) for stage in stages)
    return next((name for name, size in SIZES.items() if (size.channels, size.blocks) == sizes), None)


def detector_config(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Content of a model yaml whose stages have a classifier's sizes, design and kernel.

    Neck and head are those of the shipped config of like width.
    """
    name = size_name(state)
    stages = [_inner(state, number) for number in STAGES]
    wide = _channels(stages[-1]) > SIZES["tiny"].channels[-1]
    config, _ = read_config(f"yolov5-van-{SHIPPED[wide]}.yaml")
    config["yaml_file"] = f"yolov5-van-{name}.yaml" if name else "yolov5-van.yaml"
    blocks = [_blocks(stage) for stage in stages]
    rows = config["backbone"][: len(stages)]
    for row, stage, n, rates in zip(rows, stages, blocks, rising(blocks, DROP_PATH), strict=True):
        _, _, stride, keywords = row[3]
        ratio = stage[_WIDEN].shape[0] / _channels(stage)
        keywords |= {"ratio": ratio, "drop_path": list(rates)} | stage_gate(stage)
        row[1], row[3] = n, [_channels(stage), stage[_EMBED].shape[-1], stride, keywords]
    return config


def _names(state: Mapping[str, Tensor], number: int) -> dict[str, str]:
    """Name within a `VANStage` -> name in the file: `block.0.norm1.bias` -> `block2.0.norm1.bias`."""
    split = ((name, *name.partition(".")) for name in state)
    parts = {f"{part}{number}": part for part in PARTS}
    return {f"{parts[head]}.{rest}": name for name, head, _, rest in split if head in parts}


def _inner(state: Mapping[str, Tensor], number: int) -> dict[str, Tensor]:
    return {inner: state[name] for inner, name in _names(state, number).items()}


def _size(stage: Mapping[str, Tensor]) -> str:
    ratio = stage[_WIDEN].shape[0] / _channels(stage)
    return f"{_channels(stage)} channels, {_blocks(stage)} blocks, MLP ratio {ratio:g}"


def _channels(stage: Mapping[str, Tensor]) -> int:
    return stage["norm.weight"].shape[0]


def _blocks(stage: Mapping[str, Tensor]) -> int:
    return len({key.split(".")[1] for key in stage if key.startswith("block.")})
