"""The logging services that a run uses."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from utils.base.errors import ConfigError
from utils.loggers import available
from utils.loggers.available import SERVICES, choose, image_interval, wanted_keys
from utils.train.train_options import parse_options

ALL = {
    "WANDB_MODE": "offline",
    "CLEARML_OFFLINE_MODE": "1",
    "COMET_API_KEY": "k",
    "MLFLOW_TRACKING_URI": "file:/mlruns",
}


@pytest.fixture(autouse=True)
def everything_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All packages are installed (`json` stands for each), the home folder has no accounts."""
    monkeypatch.setattr(available, "find_spec", lambda name: sys.modules["json"].__spec__)
    monkeypatch.setenv("HOME", str(tmp_path))


def _chosen(environment: dict[str, str], line: str = "--loggers auto") -> list[str]:
    return [service.key for service in choose(parse_options(line.split()), environment)]


@pytest.mark.parametrize(
    ("environment", "keys"),
    [
        ({}, []),
        ({"WANDB_API_KEY": "k"}, ["wandb"]),
        ({"WANDB_MODE": "offline"}, ["wandb"]),
        ({"WANDB_API_KEY": "k", "WANDB_MODE": "disabled"}, []),
        ({"WANDB_API_KEY": "k", "WANDB_DISABLED": "true"}, []),
        ({"COMET_OFFLINE_DIRECTORY": "d"}, ["comet"]),
        ({"CLEARML_API_HOST": "h"}, []),
        ({f"CLEARML_API_{name}": "k" for name in ("HOST", "ACCESS_KEY", "SECRET_KEY")}, ["clearml"]),
        (ALL, ["wandb", "clearml", "comet", "mlflow"]),
    ],
)  # fmt: skip
def test_a_service_is_used_if_environment_variables_configure_it(
    environment: dict[str, str], keys: list[str]
) -> None:
    assert _chosen(environment) == ["tensorboard", *keys]


def test_a_service_is_used_if_its_login_command_was_run(tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password k\n")
    (tmp_path / "clearml.conf").write_text("")
    (tmp_path / ".comet.config").write_text("")

    assert _chosen({}) == ["tensorboard", "wandb", "clearml", "comet"]
    assert _chosen({"WANDB_BASE_URL": "https://elsewhere"}) == ["tensorboard", "clearml", "comet"]


def test_the_loggers_flag_restricts_the_services(caplog: pytest.LogCaptureFixture) -> None:
    assert _chosen(ALL, "--loggers none") == []
    assert _chosen(ALL, "--loggers mlflow wandb") == ["wandb", "mlflow"]
    assert not caplog.text
    assert _chosen({}, "--loggers mlflow") == []
    assert "--loggers mlflow: MLflow is not configured; set MLFLOW_TRACKING_URI" in caplog.text
    with pytest.raises(
        ConfigError, match="--loggers tensorbord: expected auto, none, or some of tensorboard"
    ):
        wanted_keys(["tensorbord"])


def test_services_that_are_not_installed_are_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("HOME", str(tmp_path))
    for service in SERVICES:
        monkeypatch.setitem(sys.modules, service.package, None)

    assert _chosen(ALL) == [] and not caplog.text
    assert _chosen(ALL, "--loggers comet") == []
    assert "Comet is not installed; pip install comet-ml" in caplog.text


def test_a_folder_is_not_an_installed_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    (tmp_path / "wandb").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "wandb", raising=False)

    assert "wandb" not in _chosen({**ALL, "HOME": str(tmp_path)})


@pytest.mark.parametrize(
    "flag", ["--entity me", "--upload_dataset", "--bbox_interval 2", "--artifact_alias v2"]
)
def test_a_flag_that_no_service_uses_causes_a_warning(flag: str, caplog: pytest.LogCaptureFixture) -> None:
    _chosen(ALL, f"--loggers auto {flag}")
    assert not caplog.text
    _chosen({}, f"--loggers none {flag}")

    assert f"{flag.split()[0]} has no effect: none of" in caplog.text and len(caplog.records) == 1


@pytest.mark.parametrize(
    ("line", "environment", "interval"),
    [
        ("--epochs 100", ALL, 10),
        ("--epochs 5", ALL, 1),
        ("--epochs 5", {}, 0),  # TensorBoard only, which needs no configuration
        ("--epochs 5 --bbox_interval 2", {}, 2),
        ("--epochs 5 --bbox_interval 0", ALL, 0),
        ("--epochs 5 --bbox_interval 2 --noplots", ALL, 0),
    ],
)
def test_interval_of_prediction_images(line: str, environment: dict[str, str], interval: int) -> None:
    opt = parse_options(f"--loggers auto {line}".split())

    assert image_interval(opt, choose(opt, environment)) == interval
