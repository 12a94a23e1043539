"""Checkpoints whose parts have wrong values are refused in one line, or read with a warning."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from models.weights import load_for_inference, model_record, save_checkpoint
from models.yolo import DetectionModel
from tests.utils.train.small import CONFIG
from utils.base.errors import DataError

NAN = float("nan")
Change = Callable[[dict[str, Any]], Any]


def model(**changes: Any) -> Change:
    return lambda content: content["model"].update(changes)


def of_yaml(**changes: Any) -> Change:
    return lambda content: content["model"]["yaml"].update(changes)


def top(**changes: Any) -> Change:
    return lambda content: content.update(changes)


def weights(change: Callable[[Tensor], Any]) -> Change:
    def changed(content: dict[str, Any]) -> None:
        state = content["model"]["state_dict"]
        state.update({key: change(value) for key, value in state.items() if value.is_floating_point()})

    return changed


REFUSED: dict[str, tuple[Change, str]] = {
    "stride zero": (model(stride=[0.0, 0.0]), "its stride is 0.0"),
    "stride negative": (model(stride=[-8.0, 8.0]), "its stride is -8.0"),
    "stride nan": (model(stride=[NAN, 8.0]), "its stride is nan"),
    "stride huge": (model(stride=[1e30, 8.0]), "its stride is"),
    "names that are no numbers": (model(names={"x": "a", "y": "b"}), "damaged checkpoint"),
    "names of another kind": (model(names=5), "damaged checkpoint"),
    "no classes": (of_yaml(nc=0), "of 0 classes"),
    "too many classes": (of_yaml(nc=10**9), "more than 100,000 classes.*YOLOV5_MAX_CLASSES"),
    "no anchors": (of_yaml(anchors=[]), "anchors must be 2 lists"),
    "negative anchors": (of_yaml(anchors=[[-8, 8, 16, 12], [1, 2, 3, 4]]), "anchors: widths and heights"),
    "anchors nan": (of_yaml(anchors=[[NAN] * 4, [1, 2, 3, 4]]), "anchors: widths and heights"),
    "other anchors": (of_yaml(anchors=[[8, 8] * 9, [1, 2] * 9]), "do not belong together"),
    "depth": (of_yaml(depth_multiple=1e9), "depth_multiple is"),
    "width": (of_yaml(width_multiple=1e9), "width_multiple is"),
    "wide": (of_yaml(width_multiple=99.0, ch=10**6), "more than 200,000,000 parameters"),
    "rows": (of_yaml(backbone="x"), "expected rows"),
    "activation": (of_yaml(activation=5), "activation is 5; expected text"),
    "int8": (weights(lambda value: value.to(torch.int8)), "of type int8"),
    "bool": (weights(lambda value: value.bool()), "of type bool"),
    "complex": (weights(lambda value: value.to(torch.complex64)), r"x\.pt: "),
    "sparse": (weights(lambda value: value.to_sparse()), "no dense tensor"),
    "weights that are numbers": (weights(lambda value: 5), "no dense tensor"),
    "weights that are text": (model(state_dict="x"), "damaged checkpoint"),
    "a key that is a number": (model(state_dict={5: torch.ones(3)}), "a key of its weights is 5"),
    "no weights": (model(state_dict={}), "absent in the file"),
    "no yaml": (model(yaml=None), "damaged checkpoint"),
    "ema of text": (top(ema="x"), "'ema' is a str"),
    "ema of a tensor": (top(ema=torch.ones(3)), "'ema' is a Tensor"),
    "epoch": (top(epoch=[1]), "damaged checkpoint"),
    "version": (top(version="x"), "damaged checkpoint"),
    "a later version": (top(version=99), "newer version"),
}
ACCEPTED: dict[str, tuple[Change, str]] = {
    "too few names": (model(names={0: "a"}), "2 classes but 1 names, first difference: class 1"),
    "too many names": (model(names=list("abc")), "2 classes but 3 names, first difference: class 2"),
    "weights nan": (weights(lambda value: value * NAN), "NaN or infinite values"),
    "weights infinite": (weights(lambda value: value / 0), "NaN or infinite values"),
    "weights in bfloat16": (weights(lambda value: value.bfloat16()), ""),
    "weights in float64": (weights(lambda value: value.double()), ""),
    "hyp and opt of text": (lambda content: (top(opt="x")(content), model(hyp="x")(content)), ""),
    "an empty ema": (top(ema={}), ""),
}


@pytest.fixture(scope="module")
def sound() -> dict[str, Any]:
    torch.manual_seed(0)
    return {"epoch": -1, "ema": None, "model": model_record(DetectionModel(deepcopy(CONFIG)))}


def _written(sound: dict[str, Any], change: Change, path: Path) -> Path:
    content = deepcopy(sound)
    change(content)
    save_checkpoint(path, content)
    return path


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_values_are_refused(name: str, sound: dict[str, Any], tmp_path: Path) -> None:
    change, message = REFUSED[name]
    path = _written(sound, change, tmp_path / "x.pt")
    with pytest.raises(DataError, match=message) as caught:
        load_for_inference(path, torch.device("cpu"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ACCEPTED)
def test_values_that_are_usable_are_read(
    name: str, sound: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    change, warning = ACCEPTED[name]
    found = load_for_inference(_written(sound, change, tmp_path / "x.pt"), torch.device("cpu"))
    assert warning in caplog.text and bool(caplog.text) == bool(warning)
    assert set(found.names) == {0, 1}
    assert found(torch.rand(1, 3, 64, 64))[0].shape[2] == 7
