from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from models import profile
from utils.base.paths import ROOT

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


def _run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    whole = f"import sys; from utils.base import script; sys.argv = ['x.py', '--weights', 'a b.pt']\n{code}"
    done = [sys.executable, "-c", whole]
    return subprocess.run(done, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True)


def test_an_unexpected_error_is_one_line_that_names_the_command() -> None:
    code = "script.main(lambda: {}['two\\nlines'])"
    done = _run(code)
    assert done.returncode == 1 and "Traceback" not in done.stderr + done.stdout
    (line,) = (done.stdout + done.stderr).splitlines()
    assert "unexpected KeyError" in line and "in: x.py --weights a b.pt; YOLOV5_DEBUG=1 shows where" in line
    assert "Traceback" in _run(code, YOLOV5_DEBUG="1").stderr


def test_too_little_memory_says_what_to_lower() -> None:
    code = 'def job(): raise RuntimeError("DefaultCPUAllocator: can\'t allocate memory: you tried 9 bytes")\n'
    done = _run(code + "script.main(job)")
    assert done.returncode == 1 and "lower --batch-size or --imgsz" in done.stdout + done.stderr
