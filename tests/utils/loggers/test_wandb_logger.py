"""W&B in its offline mode, read back from the file that `wandb sync` would send."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.utils.loggers.drive import MAP, drive, installed
from tests.utils.loggers.wandb_file import records, values

pytestmark = installed("wandb")


@pytest.fixture(autouse=True)
def no_server(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")


def test_a_resumed_run_continues_the_same_run(offline: Path) -> None:
    folder = offline / "cells" / "exp"
    drive("wandb", folder, range(2), completed=False, entity="us")
    drive("wandb", folder, range(1, 3), resume="last.pt", entity="us")

    found = records(folder)
    opened = [run for kind, run in found if kind == "run"]
    assert len(opened) == 2 and len({run.run_id for run in opened}) == 1
    assert (opened[0].project, opened[0].display_name, opened[0].entity) == ("cells", "exp", "us")
    assert values(opened[0].config.update)["hyp/lr0"] == 0.01
    history = [values(item.item) for kind, item in found if kind == "history"]
    found_rows = [(row["_step"], row[MAP]) for row in history if MAP in row]
    assert found_rows == [(0, 0), (1, 0.125), (2, 0.25)]
    assert all("val/box_loss" not in row for row in history)
    assert history[0]["labels/_type"] == "image-file"
    summary = {
        key: value for kind, item in found if kind == "summary" for key, value in values(item.update).items()
    }
    assert summary[f"best/{MAP}"] == 0.75
    assert [item.exit_code for kind, item in found if kind == "exit"] == [1, 0]


def test_models_and_the_dataset_are_artifacts(offline: Path) -> None:
    image = offline / "1.jpg"
    image.write_bytes(b"image")
    drive(
        "wandb",
        offline / "exp",
        range(2),
        dataset={"images/val/1.jpg": image},
        upload_dataset="val",
        data="cells.yaml",
        artifact_alias="v2",
        save_period=2,
    )

    artifacts = [item for kind, item in records(offline / "exp") if kind == "artifact"]
    made = [(a.type, {c.path for c in a.manifest.contents}, set(a.aliases)) for a in artifacts]
    assert made == [
        ("dataset", {"images/val/1.jpg"}, {"latest", "v2"}),
        ("model", {"epoch0.pt"}, {"latest", "best", "epoch 0", "v2"}),
        ("model", {"best.pt", "last.pt"}, {"latest", "best", "v2"}),
    ]
    assert artifacts[0].name == "cells"


def test_without_a_key_it_fails_instead_of_prompting(
    offline: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    drive("wandb", offline / "exp")

    assert "Weights & Biases: UsageError" in caplog.text and "continues without it" in caplog.text
