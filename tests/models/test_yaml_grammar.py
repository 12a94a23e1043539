"""Random model yamls are built and run, or refused in one line, within time and memory."""

from __future__ import annotations

import random
import resource
import time
from collections import Counter
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from models import registry
from models.dry_run import SIDE
from models.yolo import make_model
from tests.odd_values import ODD
from utils.base.errors import YoloError, one_line
from utils.base.yaml_io import read_yaml

SECONDS, MEGABYTES = 2.0, 500
ROUNDS = 100  # of each kind; the slow tests run more
CHANNELS = (8, 16, 24, 32)
# Arguments that fit, by name: what a plausible row has.
FITTING: dict[str, tuple[Any, ...]] = {
    **{
        "c2": CHANNELS,
        "out_channels": CHANNELS,
        "k": (1, 3, 5),
        "kernel_size": (1, 3),
        "kernel": (7, 11, 23),
    },
    **{"s": (1, 2), "stride": (1,), "p": (None,), "g": (1, 2), "e": (0.5, 1.0, 0.25), "r": (4, 8)},
    **{"shortcut": (True, False), "act": (True, False, "nn.ReLU()"), "init": ("paper", "identity")},
    **{"dilation": (None, 1, 2, 3), "design": ("LSKA", "LKA", "SE", "Gate1x1"), "n": (1, 2)},
    **{"equal_ch": (True, False), "heads": (2, 4), "layers": (1, 2), "patch": (3, 7), "ratio": (2, 4)},
    **{"drop_path": (0.0, 0.1), "gain": (2,), "dimension": (1,), "size": ("None",), "scale_factor": (2,)},
    **{"mode": ("nearest",), "d": (1,), "inplace": (True, False), "negative_slope": (0.1,), "eps": (1e-3,)},
    **{"padding": (0, 1), "output_padding": (0,), "approximate": ("tanh",), "momentum": (0.03,)},
    **{"c1": CHANNELS, "ch": ()},
}
KERNELS = {"LSKA", "LKA", "LSKATrivial", "LKATrivial", "LSKAttention", "C3LSKA", "C3_LSKA", "Depthwise"}
HEADS = {"Detect", "Segment", "Classify", "ClassifyLinear", "TorchVision"}
ENLARGING = {"ConvTranspose2d", "DWConvTranspose2d", "Upsample"}
BLOCKS = sorted(set(registry.registered()) - HEADS)


def plausible_args(random_: random.Random, block: str) -> list[Any]:
    """Return arguments of which most fit the block: the required ones, and some more."""
    names = registry.argument_names(block)
    args: list[Any] = []
    for name in names[: random_.choice((1, 1, 2, 3, len(names)))]:
        if name not in FITTING or not FITTING[name]:
            break
        values: tuple[Any, ...] = FITTING[name]
        if name == "k":
            values = (7, 11, 23, 35) if block in KERNELS else ([3, 5],) if block == "MixConv2d" else values
            values = ([5, 9, 13],) if block in ("SPP", "C3SPP") else values
        args.append(random_.choice(values))
    return args


def plausible(random_: random.Random) -> dict[str, Any]:
    """Return a small model whose rows are ones that a person may write."""
    rows: list[list[Any]] = [[-1, 1, "Conv", [16, 3, 2]], [-1, 1, "Conv", [32, 3, 4]]]
    for _ in range(random_.randint(1, 5)):
        block = random_.choice(BLOCKS)
        if block == "Concat":
            rows.append([[-1, -1], 1, block, [1]])
        else:
            number = 1 if block in ENLARGING else random_.choice((1, 1, 2, 3))
            rows.append([-1, number, block, plausible_args(random_, block)])
    rows.append([-1, 1, "Conv", [32, 3, 2]])
    anchors = [[10, 13, 16, 30, 33, 23], [30, 61, 62, 45, 59, 119]]
    levels = [len(rows) - 2, len(rows) - 1]
    head = [
        [levels, 1, "Detect", ["nc", "anchors"]],
        [levels, 1, "Segment", ["nc", "anchors", 8, 16]],
        [-1, 1, "Classify", ["nc"]],
    ]
    config: dict[str, Any] = {"nc": random_.choice((1, 3, 80)), "anchors": anchors}
    config |= {"depth_multiple": random_.choice((0.33, 1.0)), "width_multiple": random_.choice((0.25, 1.0))}
    if random_.random() < 0.2:
        config["activation"] = random_.choice(("nn.ReLU()", "nn.SiLU()", "nn.LeakyReLU(0.1)"))
    return {**config, "backbone": rows, "head": [random_.choice(head)]}


def spoiled(random_: random.Random) -> dict[str, Any]:
    """Return a plausible model in which one to three values are odd."""
    config = deepcopy(plausible(random_))
    for _ in range(random_.choice((1, 1, 2, 3))):
        value = deepcopy(random_.choice(ODD))
        rows = [row for part in ("backbone", "head") for row in listed(config.get(part)) if listed(row)]
        kind = random_.random()
        if kind < 0.25 or not rows:
            key = random_.choice((*config, "ch", "activation", "init", "inplace", "csp_activation", "wrong"))
            if random_.random() < 0.3:
                config.pop(key, None)
            else:
                config[key] = value
        elif kind < 0.5:
            row = random_.choice(rows)
            row[random_.randrange(len(row))] = value
        elif kind < 0.55:
            rows[0].append(value)
        else:
            args = random_.choice(rows)[-1]
            if listed(args):
                args[random_.randrange(len(args))] = value
    return config


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def outcome(config: dict[str, Any], file: Path) -> str:
    """Return `runs`, or `refused`; any error but one of ours is raised."""
    file.write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    try:
        model = make_model(read_yaml(file)).eval()
    except YoloError as error:
        message = one_line(error)
        assert 10 < len(message) < 1000, message
        return "refused"
    attention = any(isinstance(module, torch.nn.MultiheadAttention) for module in model.modules())
    if not attention and model.gflops(SIDE) < 5:  # others are fine, and take seconds
        with torch.inference_mode():
            model(torch.zeros(1, model.yaml["ch"], SIDE, SIDE))
    return "runs"


def check(configs: list[dict[str, Any]], folder: Path) -> Counter[str]:
    """Count the outcomes; fail with the yaml of the first that is neither, or that takes too much."""
    counts: Counter[str] = Counter()
    for config in configs:
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        try:
            counts[outcome(config, folder / "model.yaml")] += 1
        except Exception as error:
            raise AssertionError(f"{type(error).__name__}: {one_line(error)[:300]}\n{config}") from error
        spent = time.process_time() - start
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        assert spent < SECONDS, f"{spent:.1f} s\n{config}"
        assert grown < MEGABYTES, f"{grown:.0f} MB\n{config}"
    return counts


@pytest.mark.parametrize("rounds", [ROUNDS, pytest.param(3000, marks=pytest.mark.slow)])
def test_plausible_models_are_built_and_run(rounds: int, tmp_path: Path) -> None:
    random_ = random.Random(rounds)
    counts = check([plausible(random_) for _ in range(rounds)], tmp_path)
    assert counts["runs"] > 0.67 * rounds, counts


@pytest.mark.parametrize("rounds", [2 * ROUNDS, pytest.param(6500, marks=pytest.mark.slow)])
def test_odd_values_are_refused_in_one_line(rounds: int, tmp_path: Path) -> None:
    random_ = random.Random(rounds)
    counts = check([spoiled(random_) for _ in range(rounds)], tmp_path)
    assert counts["refused"] > 0.77 * rounds, counts
