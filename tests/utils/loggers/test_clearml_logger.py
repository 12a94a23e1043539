"""ClearML in its offline mode, read back from the folder that could be imported into a server."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from tests.utils.loggers.drive import MAP, drive, installed

pytestmark = installed("clearml")


def test_metrics_and_checkpoints_are_in_the_offline_task(
    offline: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CLEARML_OFFLINE_MODE", "1")
    drive("clearml", offline / "exp", range(2))

    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    (folder,) = (path for path in (offline / ".clearml" / "cache" / "offline").iterdir() if path.is_dir())
    task = json.loads((folder / "task.json").read_text())
    assert task["name"] == "exp" and task["hyperparams"]["options"]["hyp/lr0"]["value"] == "0.01"
    events = [e for line in (folder / "metrics.jsonl").read_text().splitlines() for e in json.loads(line)]
    found = [(e["iter"], e["value"]) for e in events if (e["metric"], e["variant"]) == tuple(MAP.split("/"))]
    assert found == [(0, 0), (1, 0.125)]
    assert {path.name for path in folder.rglob("*.pt")} == {"best.pt", "last.pt"}
    assert [path for path in folder.rglob("labels*.jpg") if path.is_file()]
