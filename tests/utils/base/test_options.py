"""Flags, keywords and checks that are made from the fields of one dataclass."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from utils.base.errors import ConfigError
from utils.base.options import Options, changed, flag, flag_of, options_from, parse_options, to_flags


@dataclass(frozen=True)
class Example(Options):
    """One field of each kind."""

    prog, description = "example.py", "An example."

    weights: list[str] = flag(["a.pt"], "model path(s)")
    imgsz: tuple[int, int] = flag((640, 640), "image size h w", aliases=("--img", "--img-size"))
    conf_thres: float = flag(0.25, "confidence threshold", between=(0, 1))
    classes: list[int] | None = flag(None, "filter by class", between=(0, None))
    cache: str | None = flag(None, "cache images", const="ram")
    resume: str | bool = flag(False, "resume", const=True)
    hyp: str | dict[str, object] = flag("h.yaml", "hyperparameters")
    half: bool = flag(False, "FP16 inference")
    task: str = flag("val", "split", choices=("val", "test"))
    local_rank: int = flag(-1, "rank", spelled="--local_rank")


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("--img 320", "imgsz", (320, 320)),
        ("--img-size 320 640", "imgsz", (320, 640)),
        ("--conf 0.5", "conf_thres", 0.5),
        ("--weights b.pt c.pt", "weights", ["b.pt", "c.pt"]),
        ("--cache", "cache", "ram"),
        ("--cache disk", "cache", "disk"),
        ("--resume", "resume", True),
        ("--resume a/last.pt", "resume", "a/last.pt"),
        ("--hyp b.yaml", "hyp", "b.yaml"),
        ("--half", "half", True),
        ("--local_rank 3", "local_rank", 3),
        ("--classes 0 2", "classes", [0, 2]),
    ],
)
def test_a_command_line_gives_values_and_says_which_were_given(line: str, name: str, value: object) -> None:
    options = parse_options(Example, line.split())

    assert getattr(options, name) == value
    assert options.given == (name,)


def test_options_become_the_flags_that_gave_them() -> None:
    line = "--img 320 --cache --resume x --half --classes 1 2 --local_rank=-1"
    options = parse_options(Example, line.split())
    again = parse_options(Example, to_flags(options, options.given))

    assert again == options and set(again.given) == set(options.given)
    assert to_flags(options, ["half", "task"]) == ["--half", "--task=val"]


def test_keywords_are_converted_as_flags_are() -> None:
    options = options_from(Example, {"img": 64, "weights": "b.pt", "classes": 3, "conf_thres": "0.5"})

    assert (options.imgsz, options.weights, options.classes) == ((64, 64), ["b.pt"], [3])
    assert options.conf_thres == 0.5
    assert options.given == ("imgsz", "weights", "classes", "conf_thres")
    assert options_from(Example, {"imgsz": "64"}).imgsz == (64, 64)
    assert options_from(Example, {"hyp": {"lr0": 0.1}}).hyp == {"lr0": 0.1}


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"conf_thres": 2}, "--conf-thres 2.0: expected a number from 0 to 1"),
        ({"conf_thres": "x"}, "--conf-thres x: expected a number"),
        ({"classes": [-1]}, "--classes -1: expected an integer of at least 0"),
        ({"imgsz": [1, 2, 3]}, "--imgsz 1 2 3: expected one or two sizes in pixels"),
        ({"classes": 2.5}, "--classes 2.5: expected an integer"),
        ({"classes": float("nan")}, "--classes nan: expected an integer"),
        ({"conf_thres": None}, "--conf-thres None: expected a number"),
        ({"local_rank": None}, "--local_rank None: expected an integer"),
        ({"task": None}, "--task None: expected text"),
        ({"imgsz": None}, "--imgsz None: expected one or two sizes in pixels"),
        ({"half": "yes"}, "--half yes: expected True or False"),
        ({"half": None}, "--half None: expected True or False"),
        ({"task": "trial"}, "--task trial: expected one of val, test"),
        ({"weigths": "a.pt"}, "example.run() has no option 'weigths'; did you mean weights?"),
    ],
)
def test_values_that_are_not_accepted_are_named(keywords: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        options_from(Example, keywords)
    assert message in str(caught.value)


@dataclass(frozen=True)
class Copy(Options):
    """A positional argument and a required flag."""

    prog, description = "copy.py", "An example."

    source: str = flag(help="path", spelled="source")
    output: str = flag(help="path")


def test_positional_arguments_and_required_flags(capsys: pytest.CaptureFixture[str]) -> None:
    options = parse_options(Copy, ["a", "--output", "b"])

    assert (options.source, options.output, options.given) == ("a", "b", ("source", "output"))
    for line in ([], ["a"], ["--output", "b"]):
        with pytest.raises(SystemExit):
            parse_options(Copy, line)
    assert "the following arguments are required: --output" in capsys.readouterr().err


def test_copies_keep_what_was_given_and_are_checked_again() -> None:
    options = parse_options(Example, ["--half"])

    assert changed(options, conf_thres=0.5).given == ("half",)
    with pytest.raises(ConfigError, match="--conf-thres"):
        changed(options, conf_thres=7)
    assert flag_of(Example, "local_rank") == "--local_rank"
