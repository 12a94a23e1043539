"""Yaml files of strangers: plain data, at a cost near their size, or one line that says what is wrong."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from utils.base.errors import ConfigError
from utils.base.yaml_io import read_yaml


def _file(tmp_path: Path, text: str) -> Path:
    (tmp_path / "x.yaml").write_text(text, encoding="utf-8")
    return tmp_path / "x.yaml"


def _levels(step: str, count: int = 30) -> str:
    """Lines of which each repeats the one before it ten times."""
    lines = ["a0: &a0 [1, 2]" if step == "list" else "a0: &a0 {k0: 1}"]
    for level in range(count):
        many = ", ".join([f"*a{level}"] * 10)
        lines.append(
            f"a{level + 1}: &a{level + 1} " + (f"[{many}]" if step == "list" else f"{{<<: [{many}]}}")
        )
    return "\n".join(lines)


CASES = {
    "aliases of aliases": _levels("list"),
    "merges of merges": _levels("merge"),
    "a node in itself": "a: &a [*a]",
    "a mapping in itself": "a: &a {b: *a}",
    "deep brackets": "a: " + "[" * 5000 + "]" * 5000,
    "deep braces": "a: " + "{a: " * 5000 + "}" * 5000,
    "deep blocks": "\n".join(" " * level + "a:" for level in range(1000)),
    "a number of 5000 digits": "a: " + "9" * 5000,
    "a large file": "a: " + "x" * 2**20,
    "a date that does not exist": "a: 2024-13-45",
    "a tag of Python": "a: !!python/object/apply:os.system ['true']",
    "a tag with the wrong content": "a: !!int many",
    "a tag of bytes": "a: !!binary 'é'",
    "a tag of a mapping": "a: !!omap 5",
    "a list as a key": "? [a, b]\n: c",
    "a tab": "a:\n\t- b",
    "an unknown alias": "a: *b",
    "two documents": "a: 1\n---\nb: 2",
    "not closed": "a: [1, 2",
    "a null byte": "a: \0",
    "text": "only text",
    "a list": "- a",
    "nothing": "",
}


@pytest.mark.parametrize("name", CASES)
def test_bad_yaml_is_one_line_within_seconds(name: str, tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(ConfigError, match=r"x\.yaml") as caught:
        read_yaml(_file(tmp_path, CASES[name]))
    text = str(caught.value)
    assert "\n" not in text and len(text) < 500 + len(str(tmp_path)), text
    assert time.monotonic() - started < 20


def test_aliases_and_merges_of_a_usual_file_are_read(tmp_path: Path) -> None:
    text = "base: &base {lr0: 0.1, list: [1, 2]}\none: {<<: *base, lr0: 0.2}\ntwo: *base\n"
    content = read_yaml(_file(tmp_path, text))
    assert content["one"] == {"lr0": 0.2, "list": [1, 2]} and content["two"]["lr0"] == 0.1


def test_keys_that_are_given_twice_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = read_yaml(
        _file(tmp_path, "nc: 1\nnames:\n  0: cat\n  1: dog\n  0: cow\nnc: 2\nok: {a: 1, b: 1}\n")
    )
    assert content["nc"] == 2 and content["names"][0] == "cow"
    assert "nc is given in line 1 and again in line 6" in caplog.text
    assert "0 is given in line 3 and again in line 5" in caplog.text
    assert caplog.text.count("is given") == 2
    read_yaml(_file(tmp_path, "a: {b: 1, b: 2}"))
    assert "b is given in line 1 and again in line 1" in caplog.text


def test_the_limit_can_be_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = _file(tmp_path, "a: " + "x" * 2**20)
    with pytest.raises(ConfigError, match=r"bytes of a yaml.*YOLOV5_MAX_YAML"):
        read_yaml(file)
    monkeypatch.setenv("YOLOV5_MAX_YAML", "2_000_000")
    assert len(read_yaml(file)["a"]) == 2**20
