"""Comet in its offline mode, read back from the archive that `comet upload` would send."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from tests.utils.loggers.drive import MAP, drive, installed

pytestmark = installed("comet")


def _messages(archive: Path) -> list[dict[str, Any]]:
    with ZipFile(archive) as content:
        return [json.loads(line)["payload"] for line in content.read("messages.json").splitlines()]


def test_a_resumed_run_continues_the_same_experiment(
    offline: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("COMET_OFFLINE_DIRECTORY", str(offline / "archives"))
    drive("comet", offline / "exp", range(2), completed=False)
    drive("comet", offline / "exp", range(1, 3), resume="last.pt")

    archives = sorted((offline / "archives").glob("*.zip"), key=lambda path: path.stat().st_mtime)
    assert (
        not [record for record in caplog.records if record.levelno >= logging.WARNING] and len(archives) == 2
    )
    assert len({archive.name.partition("-")[0] for archive in archives}) == 1
    messages = [message for archive in archives for message in _messages(archive)]
    metrics = [m["metric"] for m in messages if m.get("metric")]
    found = [(m["step"], float(m["metricValue"])) for m in metrics if m["metricName"] == MAP]
    assert found == [(0, 0), (1, 0.125), (2, 0.25)]
    uploads = [m["additional_params"] for m in messages if "additional_params" in m]
    assert {upload.get("figName") or upload["fileName"] for upload in uploads} == {
        "labels",
        "best.pt",
        "last.pt",
    }
