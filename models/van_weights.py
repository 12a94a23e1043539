"""Published weights of VAN and VAN-LSKA classifiers (arXiv:2202.09741, arXiv:2309.01439).

Their files hold the tensors of a whole classifier. In a detector the four stages become the backbone, and the
head is not used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from models.attention.van import DROP_PATH, PARTS, SIZES, rising_rates
from models.config import read_config
from utils.base.errors import ConfigError
from utils.base.log import LOG
from utils.tasks.classify.transforms import MEAN, STD

STAGES = range(1, 5)
SHIPPED = ("tiny", "small")  # sizes with a config in models/lska/
_CLASSIFIER_KEYS = (
    *("patch_embed1.proj.weight", "patch_embed1.proj.bias", "norm4.weight"),
    "block1.0.attn.spatial_gating_unit.conv1.weight",
)
_GATE = "block.0.attn.spatial_gating_unit."  # this and the next two: keys within a stage
_WIDEN = "block.0.mlp.fc1.weight"
_EMBED = "patch_embed.proj.weight"


def classifier_state(content: Any) -> dict[str, Tensor] | None:
    """Return the tensors of a VAN classifier by the authors' names; None if a file holds something else.

    They are at the top level of the file or under `state_dict`; after parallel training each name starts
    with `module.`.
    """
    held = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(held, Mapping):
        return None
    state = {str(key).removeprefix("module."): v for key, v in held.items() if isinstance(v, Tensor)}
    return state if all(key in state for key in _CLASSIFIER_KEYS) else None


def stage_tensors(
    state: Mapping[str, Tensor], number: int, normalized: bool = False
) -> dict[str, tuple[str, Tensor]]:
    """Return the tensors of a stage: name in the file -> (name within a `VANStage`, tensor).

    The images of a detector are in 0-1, so the normalization by MEAN and STD is folded into the convolution
    of the first stage. This is exact except in the first row and column of its output, which depend on
    the padding: black in the detector, ImageNet's mean colour in the classifier.

    Args:
        state: as `classifier_state` gives it.
        number: number of the stage, from 1.
        normalized: the images of the model are normalized, as those of a classifier; nothing is folded.
    """
    tensors = {name: (inner, state[name]) for inner, name in _names(state, number).items()}
    weight, bias = f"patch_embed{number}.proj.weight", f"patch_embed{number}.proj.bias"
    if number == 1 and state[weight].shape[1] == len(MEAN) and not normalized:
        exact = state[weight].double()
        mean, std = (exact.new_tensor(values).view(1, -1, 1, 1) for values in (MEAN, STD))
        exact = exact / std
        tensors[weight] = tensors[weight][0], exact.float()
        tensors[bias] = tensors[bias][0], (state[bias].double() - (exact * mean).sum((1, 2, 3))).float()
    return tensors


def check_stages(path: Path, state: Mapping[str, Tensor], stages: Sequence[nn.Module], target: str) -> None:
    """Compare the stages of a classifier with those of the model to fill; warn if their gates differ.

    Raises:
        ConfigError: a stage has another size.
    """
    gates = []
    for number, stage in zip(STAGES, stages, strict=False):
        source_stage, target_stage = _inner(state, number), stage.state_dict()
        if (source_size := _size(source_stage)) != (target_size := _size(target_stage)):
            name = size_name(state)
            known = f"use --cfg yolov5-van-{name}.yaml, or train.py" if name in SHIPPED else "use train.py"
            raise ConfigError(
                f"{path}: stage {number} has {source_size}; in {target} {target_size}; {known} without --cfg"
            )
        gates.append((stage_gate(source_stage), stage_gate(target_stage)))
    for gate, own in gates:
        if gate != own:
            words = " ".join(f"{key}={value}" for key, value in gate.items())
            LOG.warning(
                f"{path}: its gates are {words}, those of {target} {own['design']} k={own['k']}, whose "
                f"depth-wise kernels are not filled; train.py --attention {words} would fill them"
            )
            break


def stage_gate(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return design, k and dilation of a stage's gates, read from the shapes of their kernels."""
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
    """Return tiny, small or base; None for a size that the paper does not have."""
    stages = [_inner(state, number) for number in STAGES]
    sizes = tuple(_channels(stage) for stage in stages), tuple(_blocks(stage) for stage in stages)
    return next((name for name, size in SIZES.items() if (size.channels, size.blocks) == sizes), None)


def detector_config(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the content of a model yaml whose stages have a classifier's sizes, design and kernel.

    Neck and head are those of the shipped config of the same width.
    """
    name = size_name(state)
    stages = [_inner(state, number) for number in STAGES]
    wide = _channels(stages[-1]) > SIZES["tiny"].channels[-1]
    config, _ = read_config(f"yolov5-van-{SHIPPED[wide]}.yaml")
    config["yaml_file"] = f"yolov5-van-{name}.yaml" if name else "yolov5-van.yaml"
    blocks = [_blocks(stage) for stage in stages]
    rows = config["backbone"][: len(stages)]
    for row, stage, n, rates in zip(rows, stages, blocks, rising_rates(blocks, DROP_PATH), strict=True):
        _, _, stride, keywords = row[3]
        ratio = stage[_WIDEN].shape[0] / _channels(stage)
        keywords |= {"ratio": ratio, "drop_path": list(rates)} | stage_gate(stage)
        row[1], row[3] = n, [_channels(stage), stage[_EMBED].shape[-1], stride, keywords]
    return config


def classifier_config(detector: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the yaml of a VAN classifier with the stages of a detector; None if it has none."""
    stages = [*detector["backbone"]][: len(STAGES)]
    if [row[2] for row in stages] != ["VANStage"] * len(STAGES):
        return None
    kept = {key: value for key, value in detector.items() if key not in ("backbone", "head", "anchors")}
    return kept | {"backbone": stages, "head": [[-1, 1, "ClassifyLinear", ["nc"]]]}


def _names(state: Mapping[str, Tensor], number: int) -> dict[str, str]:
    """Map names within a `VANStage` to names in the file: `block.0.norm1.bias` -> `block2.0.norm1.bias`."""
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
