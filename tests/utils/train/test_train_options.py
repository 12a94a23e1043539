"""The command line of train.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from utils.base.errors import ConfigError
from utils.base.options import to_flags
from utils.base.paths import ROOT
from utils.train.train_options import options_from, parse_options

# Flag -> default, as interface.md section 1 has them (paths by their last part).
ORIGINAL = {
    "weights": "yolov5s.pt", "cfg": "", "hyp": "hyp.scratch-low.yaml", "epochs": 100, "batch_size": 16,
    "imgsz": 640, "rect": False, "resume": False, "nosave": False, "noval": False, "noautoanchor": False,
    "noplots": False, "evolve": None, "evolve_population": "hyps", "resume_evolve": None, "bucket": "",
    "cache": None, "image_weights": False, "device": "", "multi_scale": False, "single_cls": False,
    "optimizer": "SGD", "sync_bn": False, "workers": 8, "project": "train", "name": "exp", "exist_ok": False,
    "quad": False, "cos_lr": False, "label_smoothing": 0.0, "patience": 100, "freeze": [0], "save_period": -1,
    "seed": 0, "local_rank": -1, "entity": None, "upload_dataset": False, "bbox_interval": -1,
}  # fmt: skip
OURS = {
    "amp",
    "artifact_alias",
    "checkpoint_activations",
    "compile",
    "save_steps",
    "attention",
    "blocks",
    "deterministic",
    "download",
    "evolve_budget",
    "evolve_members",
    "evolve_method",
    "fast_decode",
    "graft",
    "graft_freeze",
    "graft_lr",
    "jobs",
    "loggers",
    "ray",
    "shuffle_buffer",
}


def test_every_flag_of_the_original_has_its_default() -> None:
    opt = parse_options([]).as_dict()

    for name, default in ORIGINAL.items():
        value = Path(opt[name]).name if isinstance(opt[name], str) and "/" in opt[name] else opt[name]
        assert value == default, name
    assert set(opt) - set(ORIGINAL) == OURS | {"data"}


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("--img 320", "imgsz", 320),
        ("--img-size 320", "imgsz", 320),
        ("--batch 8", "batch_size", 8),
        ("--cache", "cache", "ram"),
        ("--resume", "resume", True),
        ("--resume a/last.pt", "resume", "a/last.pt"),
        ("--freeze 3 5", "freeze", [3, 5]),
        ("--evolve", "evolve", 300),
    ],
)
def test_aliases_prefixes_and_optional_values(line: str, name: str, value: object) -> None:
    opt = parse_options(line.split())

    assert getattr(opt, name) == value
    assert opt.given == (name,)


@pytest.mark.parametrize(
    "line",
    ["--epochs 0", "--batch-size 0", "--img 0", "--workers -1", "--label-smoothing 1", "--freeze -1"]
    + ["--cache tape", "--image-weights --rect", "--patience -1"]
    + ["--loggers tensorbord", "--upload_dataset test", "--bbox_interval -2"],
)
def test_values_out_of_range_are_named(line: str) -> None:
    words = line.split()
    flag = "--imgsz" if words[0] == "--img" else words[0]
    with pytest.raises(ConfigError, match=flag):
        parse_options(words)


@pytest.mark.parametrize("line", ["--ray", "--jobs 2", "--evolve-budget 3", "--resume_evolve x.yaml"])
def test_flags_of_the_evolution_require_evolve(line: str) -> None:
    with pytest.raises(ConfigError, match=f"{line.split()[0]}: only with --evolve"):
        parse_options(line.split())
    parse_options(["--evolve", "3", *line.split()])


def test_options_become_the_flags_that_gave_them() -> None:
    line = "--weights= --img 64 --rect --cache --resume a/last.pt --freeze 3 5 --patience 0 --batch-size=-1"
    opt = parse_options(line.split())
    again = parse_options(to_flags(opt, opt.given))

    assert again == opt and sorted(again.given) == sorted(opt.given)
    assert to_flags(opt, ["rect", "quad", "cache"]) == ["--rect", "--cache"]


def test_no_weights_and_no_model_is_an_error() -> None:
    with pytest.raises(ConfigError, match="--cfg"):
        parse_options(["--weights", ""])


def test_keywords_stand_for_flags() -> None:
    opt = options_from({"img": 96, "epochs": 2})

    assert (opt.imgsz, opt.epochs, opt.optimizer) == (96, 2, "SGD")
    with pytest.raises(ConfigError, match="'epoch'.*epochs"):
        options_from({"epoch": 2})


def test_help_needs_no_torch() -> None:
    code = "import sys; sys.argv = ['train.py', '--help']; import train; train.main()"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "--cos-lr" in done.stdout
    for heavy in ("torch", "numpy", "cv2", "yaml"):
        assert f"| {heavy}\n" not in done.stderr and f" {heavy}\n" not in done.stderr, heavy
