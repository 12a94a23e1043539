from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from models import profile
from utils.base import script
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


def _run_file(
    tmp_path: Path, work: str, *flags: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    file = tmp_path / "script.py"
    file.write_text(
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "import atexit, gc; from utils.base import script\n"
        "class Freed:\n"
        "    def __del__(self): print('freed')\n"
        "kept = Freed()\n"
        "def work():\n"
        "    atexit.register(print, 'exit handler')\n"
        f"    {work}\n"
        "script.main(work)\n"
    )
    command = [sys.executable, *flags, str(file)]
    env = os.environ | (environment or {})
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, input="", cwd=tmp_path, env=env
    )


def test_a_script_that_succeeds_ends_without_freeing_its_modules(tmp_path: Path) -> None:
    for work, status in (("print('done')", 0), ("print('done'); return 3", 3)):
        done = _run_file(tmp_path, work)
        assert (done.returncode, done.stdout, done.stderr) == (status, "done\nexit handler\n", "")


@pytest.mark.parametrize("flags", [("-m", "cProfile"), ("-i",), ("-m", "trace", "--count", "-C", "counts")])
def test_profilers_and_shells_end_as_usual(tmp_path: Path, flags: tuple[str, ...]) -> None:
    done = _run_file(tmp_path, "print('done')", *flags)
    assert "done" in done.stdout and "freed" in done.stdout and "exit handler" in done.stdout
    if "cProfile" in flags:
        assert "function calls" in done.stdout


def test_a_script_that_fails_ends_as_usual(tmp_path: Path) -> None:
    done = _run_file(tmp_path, "raise ValueError('x')")
    printed = done.stdout + done.stderr
    assert done.returncode == 1 and "exit handler\n" in printed and "unexpected ValueError" in printed


def test_output_that_cannot_be_written_is_still_an_error(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    file = tmp_path / "script.py"
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from utils.base import script\n"
    file.write_text(code + "script.main(lambda: print('done'))\n")
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    for more, status in (({}, 120), ({"PYTHONUNBUFFERED": "1"}, 1)):  # at the end, and in the script
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [sys.executable, str(file)],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                env=buffered | more,
            )
        assert done.returncode == status and "No space left" in done.stderr


def test_garbage_is_collected_again_after_the_first_time() -> None:
    usual = gc.get_threshold()
    script.delay_garbage_collection()
    script.delay_garbage_collection()  # the second time has no effect
    assert gc.get_threshold()[0] == 400_000
    gc.collect()
    assert gc.get_threshold() == usual


@pytest.mark.parametrize(
    "line",
    ["import atexit; atexit.register(print, 'start-up handler')", "import os; os.environ['LD_PRELOAD'] = ''"],
)
def test_a_start_up_file_with_exit_handlers_is_heeded(tmp_path: Path, line: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(line)
    done = _run_file(tmp_path, "print('done')", environment={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 0 and "freed" in done.stdout and "exit handler" in done.stdout
    assert ("start-up handler" in done.stdout) == ("atexit" in line)


def test_files_of_user_blocks_are_closed_by_python(tmp_path: Path) -> None:
    module = (
        "import types; sys.modules['models.user_blocks'] = types.SimpleNamespace(loaded_blocks=lambda: [1])"
    )
    assert "freed" in _run_file(tmp_path, module).stdout
