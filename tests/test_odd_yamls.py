"""Any value in any key of a data or hyp yaml is accepted, or refused in one line."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.odd_values import NAMES, ODD
from tests.utils.data.image_files import make_set
from utils.base.errors import YoloError, one_line
from utils.data.dataset_yaml import read_data_yaml
from utils.train.hyp import KEYS, OPTIONAL, load_hyp


def is_refused(read: Any, file: Path, content: dict[str, Any]) -> bool:
    """Return whether a yaml is refused; other errors than ours, and slow ones, fail."""
    file.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    start = time.process_time()
    try:
        read(file)
        refused = False
    except YoloError as error:
        assert len(one_line(error)) <= 1000
        refused = True
    assert time.process_time() - start < 2, content
    return refused


@pytest.mark.parametrize(
    "key",
    [
        *("path", "train", "val", "test", "names", "nc", "download", "generate", "annotations", "unknown"),
    ],
)
def test_data_yamls(key: str, tmp_path: Path) -> None:
    make_set(tmp_path, 1, "train")
    good = {"path": str(tmp_path), "names": ["a"], "nc": 1}
    good |= dict.fromkeys(("train", "val", "test"), "images/train")
    refused = [
        is_refused(read_data_yaml, tmp_path / "data.yaml", good | {key: value}) for value in ODD + NAMES
    ]
    assert any(refused) or key in ("unknown", "download")


def test_hyps(tmp_path: Path) -> None:
    def read(file: Path) -> None:
        load_hyp(str(file))

    for key in (*KEYS, *OPTIONAL, "unknown"):
        refused = [is_refused(read, tmp_path / "hyp.yaml", {key: value}) for value in ODD]
        assert sum(refused) > len(ODD) / 2, key
