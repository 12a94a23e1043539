"""Model yamls: found by name and scale; words are looked up, never evaluated; errors name the layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from models.config import (
    MULTIPLES,
    SCALES,
    config_names,
    read_activation,
    read_config,
    read_rows,
    read_word,
    warn_about_unread,
    with_attention,
)
from models.registry import new_channels, register, registered, same_channels
from models.yolo import DetectionModel
from utils.base.errors import ConfigError
from utils.base.log import LOG
from utils.base.paths import ROOT


def tiny(*rows: list[Any], **keys: Any) -> dict[str, Any]:
    """Return the content of a model yaml with a few layers and one level."""
    head = [[[-1], 1, "Detect", ["nc", "anchors"]]]
    return {
        "nc": 2,
        "anchors": [[10, 13, 16, 30]],
        "backbone": [[-1, 1, "Conv", [8, 3, 2]], *rows],
        "head": head,
    } | keys


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("None", None),
        ("False", False),
        ("nc", 4),
        ("'text'", "text"),
        ("nearest", "nearest"),
        (3, 3),
        ("[1, 2]", [1, 2]),
        (["nc", 2], [4, 2]),
        ({"k": "nc"}, {"k": 4}),
    ],
)
def test_words_of_a_yaml_are_converted(text: Any, value: Any) -> None:
    assert read_word(text, {"nc": 4}) == value


@pytest.mark.parametrize("text", ["__import__('os').system('true')", "nc+1", "open('x')", "lambda: 0", "a b"])
def test_code_is_rejected(text: str) -> None:
    with pytest.raises(ConfigError, match="neither a number"):
        read_word(text, {"nc": 4})


def test_activations_are_read_from_text() -> None:
    leaky = read_activation("nn.LeakyReLU(0.1)")
    assert isinstance(leaky, nn.LeakyReLU) and leaky.negative_slope == 0.1
    assert read_activation("nn.ReLU(inplace=True)").inplace
    for text in ("nn.Module()", "os.system('true')", "nn.SiLU(__import__('os'))", "nn.SiLU().register()"):
        with pytest.raises(ConfigError, match="activation"):
            read_activation(text)


def test_an_unknown_block_is_reported_with_close_matches() -> None:
    with pytest.raises(ConfigError, match=r"layer 1 \(LSKAX\).*Did you mean .*LSKA.*models/common.py"):
        DetectionModel(tiny([-1, 1, "LSKAX", [7]]))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([5, 1, "Conv", [8]], "layer 1 reads from layer 5"),
        ([-1, 1, "Conv"], r"layer 1: expected \[from, number, module, args\]"),
        ([-1, 0, "Conv", [8]], "number 0 must be at least 1"),
        ([-1, 1, "Conv", []], r"layer 1 \(Conv\): Conv: arguments \[\] do not fit"),
        ([[-1, 0], 1, "Conv", [8]], "reads one layer, not 2"),
        ([-1, 1, "LSKA", [9]], "nearest sizes that can are 7 and 11"),
        ([-1, 1, "LSKA", [{"size": 7}]], "there is no argument size.; they are .k, dilation, init]"),
    ],
)
def test_an_invalid_row_is_named(row: list[Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DetectionModel(tiny(row))


@pytest.mark.parametrize("key", ["nc", "anchors", "backbone", "head"])
def test_a_missing_key_is_named(key: str) -> None:
    d = tiny()
    del d[key]
    with pytest.raises(ConfigError, match=f"'{key}' is missing"):
        read_rows(d)


def test_sources_may_count_back_from_the_row() -> None:
    rows = read_rows(tiny([-1, 1, "Conv", [8]], [-2, 1, "Conv", [8]], [[-1, 1], 1, "Concat", [1]]))
    assert [row.sources for row in rows] == [(-1,), (0,), (0,), (2, 1), (3,)]


def test_repeats_are_copies_or_inside_the_block() -> None:
    model = DetectionModel(tiny([-1, 6, "C3", [16]], [-1, 6, "Bottleneck", [16]], depth_multiple=0.5))
    assert len(model.model[1].m) == 3
    assert isinstance(model.model[2], nn.Sequential) and len(model.model[2]) == 3


def test_every_width_is_scaled_whatever_the_class_count() -> None:
    # In the original a width equal to anchors * (nc + 5) escaped scaling (known problem 31).
    model = DetectionModel(tiny([-1, 1, "Conv", [64]], width_multiple=0.25, nc=27))
    assert model.model[1].conv.out_channels == 16


def test_keywords_aliases_and_model_wide_init() -> None:
    x = torch.rand(1, 3, 32, 32)
    same = DetectionModel(tiny([-1, 1, "LSKA", [{"k": 7, "dilation": 2}]], [-1, 3, "C3_LSKA", [8, {"k": 7}]]))
    assert type(same.model[2]).__name__ == "C3LSKA"
    y = same.eval().model[0](x)
    assert torch.equal(same.model[1](y), y)
    paper = DetectionModel(tiny([-1, 1, "LSKA", [7]], init="paper")).eval()
    assert not torch.allclose(paper.model[1](y), y)


def test_one_line_registers_a_block() -> None:
    class Twice(nn.Module):
        def __init__(self, c: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(c))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * x

    register(same_channels, Twice)
    model = DetectionModel(tiny([-1, 1, "Twice", []]))
    assert model.model[1].weight.shape == (8,)


def test_all_registered_blocks_can_be_built() -> None:
    assert {"C3_LSKA", "SPPF_LSKA", "LKA", "LKATrivial", "Focus"} <= set(registered())
    rows = [
        *(
            [-1, 1, name, [16]]
            for name in ("DWConv", "GhostConv", "CrossConv", "MixConv2d", "C3x", "C3SPP", "SPP")
        ),
        *(
            [-1, 1, name, [16]]
            for name in ("TransformerBlock", "GhostBottleneck", "BottleneckCSP", "C3TR", "C3Ghost", "Conv2d")
        ),
        [-1, 1, "Contract", [2]],
        [-1, 1, "Expand", [2]],
        [-1, 1, "DWConvTranspose2d", [16]],
        [-1, 1, "Focus", [16]],
        [-1, 1, "nn.BatchNorm2d", []],
    ]
    rows = [row if row[2] != "Conv2d" else [-1, 1, "nn.Conv2d", [16, 1]] for row in rows]
    model = DetectionModel(tiny(*rows)).eval()
    decoded, _ = model(torch.rand(1, 3, 64, 64))
    assert decoded.shape[2] == 7 and model.stride.tolist() == [4]


@pytest.mark.parametrize("folder", ["", "models/lska/", f"{ROOT}/models/lska/"])
def test_the_scale_is_taken_from_the_name(folder: str) -> None:
    content, name = read_config(f"{folder}yolov5s-SPPFLSKA.yaml")
    nano, _ = read_config("yolov5n-SPPFLSKA.yaml")
    assert name == "yolov5s-SPPFLSKA.yaml"
    assert content == nano | {"depth_multiple": 0.33, "width_multiple": 0.5}
    with torch.device("meta"):
        assert DetectionModel(f"{folder}yolov5s-SPPFLSKA.yaml").yaml_file == "yolov5s-SPPFLSKA.yaml"


@pytest.mark.parametrize("scale", SCALES)
def test_scales_are_those_of_the_plain_models(scale: str) -> None:
    plain, _ = read_config(f"yolov5{scale}.yaml")
    assert tuple(plain[key] for key in MULTIPLES) == SCALES[scale]


def test_a_file_of_the_scaled_name_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "yolov5m-SPPFLSKA.yaml").write_text("nc: 2\n")
    monkeypatch.chdir(tmp_path)
    assert read_config("yolov5m-SPPFLSKA.yaml")[0] == {"nc": 2}
    assert read_config("yolov5x-SPPFLSKA.yaml")[0]["width_multiple"] == 1.25


def test_other_yamls_have_no_other_scales() -> None:
    for name in ("yolov5s-p2.yaml", "yolov5s-van-tiny.yaml", "models/yolov5s-SPPFLSKA.yaml"):
        with pytest.raises(ConfigError, match=f"--cfg {name}: no such file"):
            read_config(name)


@pytest.mark.parametrize(
    ("name", "suggested"),
    [("yolov5q.yaml", "yolov5"), ("yolov5m-SPPFLSK.yaml", "yolov5m-SPPFLSKA.yaml")],
)
def test_names_like_a_missing_one_are_suggested(name: str, suggested: str) -> None:
    with pytest.raises(ConfigError, match=f"^--cfg {name}: no such file .*did you mean .*{suggested}"):
        DetectionModel(name)


def test_a_broken_yaml_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("nc: 3\nbackbone: [\n")
    with pytest.raises(ConfigError, match=r"broken.yaml, line \d+: not valid yaml"):
        DetectionModel(tmp_path / "broken.yaml")


@pytest.mark.parametrize(
    ("key", "value"),
    [("nc", 0), ("nc", "many"), ("depth_multiple", -1), ("width_multiple", "big"), ("ch", 0)],
)
def test_invalid_sizes_are_named(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{key} is {value!r}"):
        DetectionModel(tiny(**{key: value}))


def test_a_misspelled_key_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    DetectionModel(tiny(width_mutiple=0.5))
    assert "'width_mutiple' is ignored; did you mean width_multiple?" in caplog.text


PUBLISHED = [
    (["LSKA", [8, 11]], ["LSKA", [11]]),  # channels first; the second row reads 8 channels
    (["LSKA", [8, 23]], ["LSKA", [23]]),
    (["LKA", [8, 11]], ["LKA", [11]]),
    (["LSKA", [8]], ["LSKA", []]),
    (["LSKAttention", [8, 7]], ["LSKAttention", [7]]),
    (["SE", [8, 4]], ["SE", [4]]),
    (["C3_LSKA", [16, 7]], ["C3LSKA", [16, True, 1, 0.5, 7]]),
    (["C3LSKA", [16, 23, {"init": "paper"}]], ["C3LSKA", [16, {"k": 23, "init": "paper"}]]),
]


@pytest.mark.parametrize(("published", "own"), PUBLISHED)
def test_published_arguments_mean_what_their_authors_meant(published: list[Any], own: list[Any]) -> None:
    models = [DetectionModel(tiny([-1, 1, *row])) for row in (published, own)]
    one, two = ({key: value.shape for key, value in model.state_dict().items()} for model in models)
    assert one == two


@pytest.mark.parametrize(("args", "k"), [([1024, 7], 7), ([1024], 11)])
def test_channels_of_published_rows_may_be_those_before_scaling(args: list[Any], k: int) -> None:
    config = tiny([-1, 1, "LSKA", args], width_multiple=0.25)
    config["backbone"][0][3][0] = 1024
    gate: Any = DetectionModel(config).model[1]
    assert (gate.k, gate.conv1.weight.shape[0]) == (k, 256)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            ["LSKA", [1024, 11]],
            "it keeps the channels of its input, 8, not 1024.; they are .k, dil",
        ),
        (["LSKA", [22]], "the nearest sizes that can are 17 and 23"),
        (["C3_LSKA", [16, 12]], "k=12 cannot be split"),
        (["C3", [16, 11]], "shortcut is 11, expected True or False.; they are .c2, shortcut, g, e]"),
        (["C3_LSKA", [16, True, 1, 0.5, 11, 3, "paper", "SE", 8, 5]], "10 arguments, expected at most 9"),
        (["C3", []], "too few.; they are .c2, shortcut"),
        (["Conv", ["a", 3]], "c2 is 'a', expected an integer"),
        (
            ["C3_LSKA", [16, False, 11]],
            r"\[16, False, 11\] do not fit .*divisible by groups",
        ),
        (["Conv", [0, 3, 2]], "c2 is 0, expected an integer of at least 1"),
        (["C3", [16, True, 1, 0]], "e is 0, expected a number above 0"),
        (["Contract", [0]], "Contract: arguments"),
        (["LSKblock", [8]], "LSKblock is the attention of LSKNet, which is not LSKA"),
    ],
)
def test_wrong_arguments_list_the_accepted_ones(row: list[Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"layer 1 .*{message}"):
        DetectionModel(tiny([-1, 1, *row]))


def test_attention_changes_published_rows() -> None:
    rows = tiny([-1, 1, "LSKA", [8, 11]], [-1, 1, "C3_LSKA", [16, 11]])
    changed = with_attention(rows, {"k": 23})
    assert changed["backbone"][1:] == [[-1, 1, "LSKA", [8, 23]], [-1, 1, "C3_LSKA", [16, {"k": 23}]]]


@pytest.mark.parametrize(
    "rows", [{"scales": {"n": [0.33, 0.25, 1024]}}, {"backbone": [[-1, 3, "C2f", [8, True]]]}]
)
def test_a_yaml_of_a_later_version_is_named(rows: dict[str, Any]) -> None:
    later = {"nc": 2, "backbone": [[-1, 1, "Conv", [8, 3, 2]]], "head": [[[0], 1, "Detect", ["nc"]]], **rows}
    with pytest.raises(ConfigError, match="a model of YOLOv8 or a later version, .* take a yaml of YOLOv5"):
        read_rows(later)


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(LOG, "propagate", True)
    return caplog


def test_a_row_that_shifts_the_others_is_found(warnings: pytest.LogCaptureFixture) -> None:
    config, _ = read_config("yolov5n.yaml")
    config["backbone"].append([-1, 1, "LSKA", [11]])
    DetectionModel(config)
    (message,) = warnings.messages
    assert "no layer reads the output of layer 24 (C3); if a row has been inserted, add 1" in message


def test_shipped_yamls_have_no_layer_that_is_not_read(warnings: pytest.LogCaptureFixture) -> None:
    for name in config_names():
        warn_about_unread(read_rows(read_config(name)[0]), name)
    assert not warnings.messages


def test_sizes_that_do_not_fit_name_the_layer_and_its_sources() -> None:
    config, _ = read_config("yolov5n.yaml")
    config["head"][2] = [[-1, 4], 1, "Concat", [1]]
    message = r"layer 12 \(Concat\) reads layer 11 \(128x16x16\) and layer 4 \(64x32x32\)"
    with pytest.raises(ConfigError, match=message):
        DetectionModel(config)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([[-1], 1, "Conv", [8, 3]], "it reads one layer, not a list of one"),
        ([-1, 1, "Conv", [8, 3, 0]], "s is 0, expected an integer of at least 1"),
        ([-1, 1, "Upsample", [None, 2, "foo"]], r"layer 1 \(Upsample\) reads layer 0 .* does not work"),
        ([[-1, 0], 1, "Concat", [9]], r"layer 1 \(Concat\) reads layer 0 .* does not work"),
    ],
)
def test_rows_that_fail_when_they_run_are_named(row: list[Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        DetectionModel(tiny(row))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("rows", [None, "Conv", 3])
def test_parts_without_rows_are_an_error(rows: Any) -> None:
    with pytest.raises(ConfigError, match=r"backbone: expected rows \[from, number, module, args\], found"):
        DetectionModel(tiny() | {"backbone": rows})
    with pytest.raises(ConfigError):
        with_attention(tiny() | {"backbone": None}, {"k": 7})


def test_blocks_with_any_arguments_can_be_registered() -> None:
    class Open(nn.Conv2d):
        def __init__(self, c1: int, c2: int, *sizes: int, **options: Any) -> None:
            super().__init__(c1, c2, *sizes, **options)

    register(new_channels, Open)
    assert DetectionModel(tiny([-1, 1, "Open", [16, 3, 1, 1]])).model[1].padding == (1, 1)
    assert DetectionModel(tiny([-1, 1, "Open", [16, 1, {"bias": False}]])).model[1].bias is None


def test_channels_that_do_not_fit_are_found_with_attention_settings() -> None:
    rows = with_attention(tiny([-1, 1, "LSKA", [512, 11]]), {"k": 23})
    with pytest.raises(ConfigError, match="it keeps the channels of its input, 8, not 512"):
        DetectionModel(rows)
