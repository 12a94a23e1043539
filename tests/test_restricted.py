"""Containers and accounts with little: nothing to write to but --project, no home, no user entry."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.utils.train.small import small_set
from utils.base.paths import ROOT

pytestmark = pytest.mark.slow
# Makes everything read-only except $1, and shared memory where $2 is "shared"; then runs the rest.
READ_ONLY = """
mount --make-rprivate / && mount -t tmpfs tmpfs "$1" || exit 99
mount --bind / / && mount -o remount,ro,bind / || exit 99
while read -r _ folder _; do
    case "$folder" in
        "$1"|/proc*|/sys*|/dev/pts|/dev/mqueue) ;;
        /dev/shm) [ "$2" = shared ] || mount -o remount,ro,bind /dev/shm ;;
        *) mount -o remount,ro,bind "$folder" 2> /dev/null ;;
    esac
done < /proc/mounts
touch /tmp/x 2> /dev/null && exit 99
shift 2
exec "$@"
"""


def can(*command: str) -> bool:
    """Return whether a command works on this machine."""
    return (
        bool(shutil.which(command[0]))
        and not subprocess.run(command, capture_output=True, check=False).returncode
    )


def run(*command: object, **environment: str) -> str:
    """Run a command without HOME and return what it prints; it has to end well."""
    variables = {
        key: value for key, value in os.environ.items() if key not in ("HOME", "TMPDIR", "XDG_CACHE_HOME")
    }
    done = subprocess.run(
        list(map(str, command)),
        cwd=ROOT,
        env={**variables, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    output = done.stdout + done.stderr
    if done.returncode == 99:
        pytest.skip("cannot mount file systems here")
    assert done.returncode == 0, output
    assert "Traceback" not in output
    return output


def commands(data: Path, project: Path) -> list[list[object]]:
    """Return commands that train, validate, detect and export."""
    best, common = project / "exp/weights/best.pt", ["--device", "cpu", "--project", project]
    train = ["train.py", "--data", data, "--cfg", "yolov5n-LSKA.yaml", "--weights", "", "--epochs", 1]
    return [
        [*train, "--img", 64, "--batch-size", 4, "--workers", 2, "--loggers", "none", *common],
        ["val.py", "--weights", best, "--data", data, "--img", 64, *common],
        ["detect.py", "--weights", best, "--source", data.parent / "set/images/val", "--img", 64, *common],
        ["export.py", "--weights", best, "--include", "torchscript", "--img", 64, "--device", "cpu"],
    ]


@pytest.mark.parametrize("memory", ["shared", "none"])
def test_only_the_project_folder_can_be_written_to(memory: str, tmp_path: Path) -> None:
    """PyTorch needs TMPDIR where there is no folder for temporary files; no shared memory: no workers."""
    if not can("unshare", "--mount", "true"):
        pytest.skip("needs mount namespaces")
    data, project, script = small_set(tmp_path / "data"), tmp_path / "project", tmp_path / "read-only.sh"
    project.mkdir()
    script.write_text(READ_ONLY)
    python = shlex.quote(sys.executable)
    chain = " && ".join(f"{python} {shlex.join(map(str, one))}" for one in commands(data, project))
    environment = {} if memory == "shared" else {"TMPDIR": str(project)}
    output = run("unshare", "--mount", "sh", script, project, memory, "sh", "-c", chain, **environment)
    assert "Results saved to" in output and "best.torchscript" in output
    assert ("loading without them" in output) == (memory == "none")


def test_a_user_without_an_entry_and_a_home(tmp_path: Path) -> None:
    """As docker run --user 12345 gives."""
    user = ("unshare", "--user", "--map-user=12345")
    if not can(*user, "true"):
        pytest.skip("needs user namespaces")
    project = tmp_path / "project"
    for command in commands(small_set(tmp_path / "data"), project):
        output = run(*user, sys.executable, *command)
    assert (project / "exp/weights/best.torchscript").is_file(), output


def test_two_processes_build_the_caches_of_a_dataset(tmp_path: Path) -> None:
    data, project = small_set(tmp_path / "data", train=40, val=40), tmp_path / "runs"
    train = [sys.executable, *commands(data, project)[0], "--cache", "disk", "--workers", 0]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    both = [subprocess.Popen(list(map(str, train)), cwd=ROOT, **pipes) for _ in range(2)]
    for process in both:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0 and "Traceback" not in output, output
    first, second = (path.read_text() for path in sorted(project.glob("*/results.csv")))
    assert first == second
    assert not [path for path in tmp_path.rglob("*") if ".part" in path.suffixes or path.suffix == ".tmp"]
    output = run(*train)
    assert "WARNING" not in output and "Scanning" in output


def test_files_of_the_future_are_used(tmp_path: Path) -> None:
    """After a clock has been set back, everything that was written before is newer than now."""
    data, project = small_set(tmp_path / "data"), tmp_path / "runs"
    train = [sys.executable, *commands(data, project)[0], "--workers", 0]
    run(*train[:-2], "--workers", 0, "--epochs", 2, "--noplots")
    table = (project / "exp/results.csv").read_text()
    for path in tmp_path.rglob("*"):
        os.utime(path, (4e9, 4e9))  # in the year 2096
    run(*train, "--epochs", 2, "--noplots", "--name", "again")
    assert (project / "again/results.csv").read_text() == table
    run(sys.executable, *commands(data, project)[1])
