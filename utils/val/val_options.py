"""The flags of val.py; needs nothing but the standard library."""

from __future__ import annotations

import argparse
import difflib
from argparse import Namespace
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from utils.base.errors import ConfigError
from utils.base.log import LOG
from utils.base.paths import ROOT, relative_to_cwd, runs_folder
from utils.base.script import parser

TASKS = ("train", "val", "test", "speed", "study")
METRIC_CONF = 0.001  # mAP integrates over all confidences, so nearly all boxes are needed


def build_parser() -> argparse.ArgumentParser:
    """The parser of val.py, its flags grouped by purpose."""
    parse = parser("Measure a model on labelled images.", prog="val.py")
    _what(parse.add_argument_group("what to measure, on what"))
    _how(parse.add_argument_group("how"))
    _output(parse.add_argument_group("what to show and write"))
    return parse


def _what(group: argparse._ArgumentGroup) -> None:
    weights, data = "yolov5s.pt", relative_to_cwd(ROOT / "data" / "coco128.yaml")
    group.add_argument("--weights", nargs="+", default=[weights], help="model file; several .pt vote")
    group.add_argument("--data", default=data, help="dataset yaml")
    group.add_argument("--download", action="store_true", help="download the dataset where its yaml says")
    group.add_argument(
        "--task", choices=TASKS, default="val", help="a split, or the speed, or a study of image sizes"
    )
    group.add_argument("--imgsz", "--img", "--img-size", type=int, default=640, help="image size in pixels")
    group.add_argument("--single-cls", action="store_true", help="treat all classes as one")


def _how(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--batch-size", type=int, default=32, help="images in a batch")
    group.add_argument("--conf-thres", type=float, default=METRIC_CONF, help="lowest confidence")
    group.add_argument("--iou-thres", type=float, default=0.6, help="overlap that makes two boxes one")
    group.add_argument("--max-det", type=int, default=300, help="most boxes an image")
    group.add_argument(
        "--match",
        choices=("legacy", "coco"),
        default="legacy",
        help="which detection gets a label: as in the original, or as COCO's tools do it",
    )
    group.add_argument("--augment", action="store_true", help="look three times: as is, and smaller")
    group.add_argument("--half", action="store_true", help="16-bit numbers, on a GPU")
    group.add_argument("--dnn", action="store_true", help="run ONNX files with OpenCV")
    group.add_argument("--runtime", default="", help="providers of ONNX Runtime, or a device of OpenVINO")
    group.add_argument("--device", default="", help="cpu, mps, or a GPU's number; empty: the best there is")
    group.add_argument("--workers", type=int, default=8, help="processes that load images, at most")


def _output(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--verbose", action="store_true", help="a row for each class, however many")
    group.add_argument("--save-txt", action="store_true", help="labels/*.txt with what is found")
    group.add_argument("--save-hybrid", action="store_true", help="the same, the true labels among them")
    group.add_argument("--save-conf", action="store_true", help="confidences in labels/*.txt")
    group.add_argument("--save-json", action="store_true", help="a COCO results file; for coco.yaml always")
    group.add_argument("--project", default=runs_folder("val"), help="folder of runs")
    group.add_argument("--name", default="exp", help="this run's folder")
    group.add_argument("--exist-ok", action="store_true", help="write into that folder even if it exists")


def parse_options(argv: Sequence[str] | None = None) -> Namespace:
    """Parse a command line."""
    return check_options(build_parser().parse_args(argv))


def options_from(keywords: dict[str, Any]) -> Namespace:
    """Options from keywords, which are the flags with underscores.

    Raises:
        ConfigError: a keyword that is no flag.
    """
    opt = build_parser().parse_args([])
    for key in keywords:
        if not hasattr(opt, key):
            near = difflib.get_close_matches(key, vars(opt), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"val.run has no option {key}{hint}")
    return check_options(Namespace(**{**vars(opt), **keywords}))


def check_options(opt: Namespace) -> Namespace:
    """Bring values into their final form, and warn of those that spoil the figures.

    Raises:
        ConfigError: a value that cannot be used.
    """
    listed = not isinstance(opt.weights, str | Path) and isinstance(opt.weights, Iterable)
    opt.weights = [str(file) for file in opt.weights] if listed else [str(opt.weights)]
    opt.save_json |= str(opt.data).endswith("coco.yaml")
    opt.save_txt |= opt.save_hybrid
    for key, holds, expected in (
        ("task", opt.task in TASKS, f"one of {', '.join(TASKS)}"),
        ("batch_size", opt.batch_size >= 1, "a whole number from 1"),
        ("max_det", opt.max_det >= 1, "a whole number from 1"),
        ("conf_thres", 0 <= opt.conf_thres <= 1, "a number from 0 to 1"),
        ("iou_thres", 0 <= opt.iou_thres <= 1, "a number from 0 to 1"),
        ("workers", opt.workers >= 0, "a whole number from 0"),
    ):
        if not holds:
            raise ConfigError(f"--{key.replace('_', '-')} {getattr(opt, key)}: expected {expected}")
    if opt.task in ("train", "val", "test"):
        if opt.conf_thres > METRIC_CONF:
            LOG.warning(f"--conf-thres {opt.conf_thres} > {METRIC_CONF} leaves out boxes: the mAP is too low")
        if opt.save_hybrid:
            LOG.warning("--save-hybrid: the mAP is that of the labels and the boxes together, so too high")
    return opt
