"""Flags of classify/*.py: those of the original, and no flags that mean nothing here."""

from __future__ import annotations

from typing import Any

import pytest

from utils.base.errors import ConfigError
from utils.base.options import Options, options_from, parse_options
from utils.tasks.classify.options import ClassifyPredictOptions, ClassifyTrainOptions, ClassifyValOptions
from utils.tasks.task import get_task

ALL = (ClassifyTrainOptions, ClassifyValOptions, ClassifyPredictOptions)
# Flags of the original with their defaults; data and weights differ.
TRAIN = {
    "model": "yolov5s-cls.pt", "epochs": 10, "batch-size": 64, "imgsz": 224, "nosave": False, "cache": None,
    "device": "", "workers": 8, "name": "exp", "exist-ok": False, "pretrained": True, "optimizer": "Adam",
    "lr0": 0.001, "decay": 5e-5, "label-smoothing": 0.1, "cutoff": None, "dropout": None, "verbose": False,
    "seed": 0,
}  # fmt: skip
VAL = {
    "weights": ["yolov5s-cls.pt"], "batch-size": 128, "imgsz": 224, "device": "", "workers": 8,
    "verbose": True, "name": "exp", "exist-ok": False, "half": False, "dnn": False,
}  # fmt: skip
PREDICT = {
    "weights": ["yolov5s-cls.pt"], "imgsz": (224, 224), "device": "", "view-img": False, "save-txt": False,
    "nosave": False, "update": False, "name": "exp", "exist-ok": False, "half": False, "dnn": False,
    "vid-stride": 1,
}  # fmt: skip


@pytest.mark.parametrize(("cls", "known"), [*zip(ALL, (TRAIN, VAL, PREDICT), strict=True)])
def test_defaults_are_those_of_the_original(cls: type[Any], known: dict[str, Any]) -> None:
    made = parse_options(cls, [])
    assert made == options_from(cls, {})
    field = {"model": "weights"}
    own = {name: getattr(made, field.get(name, name.replace("-", "_"))) for name in known}
    assert own == known
    assert str(made.project).endswith(f"{made.prog.split('/')[1].removesuffix('.py')}-cls")


@pytest.mark.parametrize("flag", ["--imgsz", "--img", "--img-size"])
@pytest.mark.parametrize("cls", ALL)
def test_the_image_size_has_three_spellings(cls: type[Options], flag: str) -> None:
    made: Any = parse_options(cls, [flag, "96"])
    assert made.imgsz in (96, (96, 96))


@pytest.mark.parametrize("cls", ALL)
def test_flags_of_detection_are_refused(cls: type[Options], capsys: pytest.CaptureFixture[str]) -> None:
    for name in cls.hidden:
        flag = "--" + name.replace("_", "-")
        with pytest.raises(SystemExit) as ended:
            parse_options(cls, [flag])
        assert ended.value.code == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and flag in lines[0], lines
        with pytest.raises(ConfigError, match=f"has no option '{name}'"):
            options_from(cls, {name: 1})


@pytest.mark.parametrize(
    ("text", "expected"),
    [(None, True), ("True", True), ("true", True), ("TRUE", True), ("False", False), ("false", False),
     ("0", False), ("1", False), ("no", False)],
)  # fmt: skip
def test_pretrained_is_true_for_that_text_only(text: str | None, expected: bool) -> None:
    words = ["--pretrained"] if text is None else ["--pretrained", text]
    made = parse_options(ClassifyTrainOptions, words)
    assert made.pretrained is expected and get_task("classify").uses_weights(made) is expected


@pytest.mark.parametrize("value", [True, False])
def test_pretrained_can_be_a_keyword(value: bool) -> None:
    assert options_from(ClassifyTrainOptions, {"pretrained": value}).pretrained is value


@pytest.mark.parametrize(
    ("words", "expected"),
    [([], True), (["--verbose"], True), (["--verbose", "True"], True), (["--verbose", "False"], False),
     (["--verbose", "false"], False)],
)  # fmt: skip
def test_verbose_of_val_has_a_value(words: list[str], expected: bool) -> None:
    assert parse_options(ClassifyValOptions, words).verbose is expected


def test_model_is_also_weights_and_a_keyword() -> None:
    assert parse_options(ClassifyTrainOptions, ["--weights", "a.pt"]).weights == "a.pt"
    assert parse_options(ClassifyTrainOptions, ["--model", "resnet18"]).weights == "resnet18"
    assert options_from(ClassifyTrainOptions, {"model": "b.pt"}).weights == "b.pt"


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW", "RMSProp"])
def test_optimizers_of_the_original_are_accepted(optimizer: str) -> None:
    assert parse_options(ClassifyTrainOptions, ["--optimizer", optimizer]).optimizer == optimizer


@pytest.mark.parametrize(
    ("name", "value"),
    [("dropout", 1.5), ("dropout", -0.1), ("lr0", 0), ("lr0", -1), ("decay", -1e-5), ("cutoff", -1),
     ("imgsz", 0), ("epochs", 0), ("batch_size", 0), ("optimizer", "LAMB"), ("imgsz", 1.5)],
)  # fmt: skip
def test_a_value_out_of_range_is_an_error_that_names_the_flag(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')} "):
        options_from(ClassifyTrainOptions, {name: value})


@pytest.mark.parametrize("value", [-0.1, 1.5])
def test_a_smoothing_out_of_range_is_an_error(value: float) -> None:
    with pytest.raises(ConfigError, match="--label-smoothing "):
        options_from(ClassifyTrainOptions, {"label_smoothing": value})


def test_val_has_no_study() -> None:
    with pytest.raises(ConfigError, match="--task study: expected one of train, val, test, speed"):
        options_from(ClassifyValOptions, {"task": "study"})


def test_a_detector_is_cut_at_ten_layers_unless_said_otherwise() -> None:
    from models.config import read_config

    task, (config, _) = get_task("classify"), read_config("yolov5n.yaml")
    for given, layers in ((None, 10), (0, 10), (7, 7), (11, 11)):
        made = options_from(ClassifyTrainOptions, {"cutoff": given})
        cut = task.model_config(made, config)
        assert len(cut["backbone"]) + len(cut["head"]) == layers and "anchors" not in cut
    with pytest.raises(ConfigError, match="--cutoff is for detectors"):
        task.model_config(
            options_from(ClassifyTrainOptions, {"cutoff": 5}), read_config("yolov5n-cls.yaml")[0]
        )


@pytest.mark.parametrize(
    ("given", "expected"),
    [({"model": "resnet18"}, "resnet18"), ({"model": "resnet18.pt"}, ""), ({}, ""),
     ({"model": "", "cfg": "a.yaml"}, "")],
)  # fmt: skip
def test_a_model_without_a_suffix_is_of_torchvision(given: dict[str, str], expected: str) -> None:
    from utils.tasks.classify.task import torchvision_name

    assert torchvision_name(options_from(ClassifyTrainOptions, given)) == expected


def test_messages_name_the_flags_of_classification() -> None:
    with pytest.raises(ConfigError, match="^--model '' needs --cfg .* yolov5s-cls-LSKA.yaml$"):
        options_from(ClassifyTrainOptions, {"model": ""})
    with pytest.raises(ConfigError, match="--model resnet18: a model of torchvision takes no --cfg"):
        options_from(ClassifyTrainOptions, {"model": "resnet18", "cfg": "yolov5n-cls.yaml"})
    with pytest.raises(ConfigError, match="--decay"):
        options_from(ClassifyTrainOptions, {"decay": 5.0})


def test_dropout_changes_every_dropout_layer() -> None:
    from models.yolo import make_model

    task, model = get_task("classify"), make_model("yolov5n-cls.yaml", nc=3)
    task.prepare_model(model, options_from(ClassifyTrainOptions, {}))
    assert model.model[-1].drop.p == 0
    task.prepare_model(model, options_from(ClassifyTrainOptions, {"dropout": 0.25}))
    assert model.model[-1].drop.p == 0.25
