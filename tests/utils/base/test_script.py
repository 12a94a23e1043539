from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from models import profile

VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def run_script(monkeypatch: pytest.MonkeyPatch, **chosen: str) -> dict[str, str | None]:
    """Return what a script's function, which would import torch, finds in the environment."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    code = (
        "import json, os, sys; from utils.base import script\n"
        "def work():\n"
        "    assert 'torch' not in sys.modules\n"
        f"    print(json.dumps([os.environ.get(name) for name in {VARIABLES}]))\n"
        "script.main(work)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return dict(zip(VARIABLES, json.loads(printed), strict=True))


def test_idle_threads_of_scripts_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_script(monkeypatch)["OMP_WAIT_POLICY"] == "passive"


@pytest.mark.parametrize(
    ("name", "value"), [("OMP_WAIT_POLICY", "active"), ("GOMP_SPINCOUNT", "9"), ("KMP_BLOCKTIME", "200")]
)
def test_what_the_user_sets_for_waiting_threads_stays(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    found = run_script(monkeypatch, **{name: value})
    assert found == dict.fromkeys(VARIABLES) | {name: value}


def test_printing_a_model_sets_the_waiting_before_torch_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.setattr(sys, "argv", ["models/yolo.py"])
    profile.check_flags()
    assert os.environ["OMP_WAIT_POLICY"] == "passive"
