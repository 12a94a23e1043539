"""Folders of runs: two runs with one name never mix their files."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from models.weights import read_checkpoint
from tests.utils.train.small import small_models, small_set
from utils.base.errors import ConfigError
from utils.base.paths import ROOT, cache_folder, claim_folder, remove_if_empty
from utils.base.processes import sole_user, told_of_others

HOLD = "import sys, time; from pathlib import Path; from utils.base.processes import sole_user\n"
HOLD += "with sole_user(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"


def test_no_folder_is_claimed_twice(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: claim_folder(tmp_path / "a b" / "exp"), range(40)))
    assert len(set(folders)) == 40 and all(folder.is_dir() for folder in folders)
    assert {folder.name for folder in folders} == {"exp", *(f"exp{n}" for n in range(2, 41))}


def test_an_existing_folder_is_used_if_that_is_asked_for(tmp_path: Path) -> None:
    assert claim_folder(tmp_path / "exp") == claim_folder(tmp_path / "exp", exist_ok=True)
    remove_if_empty(tmp_path / "exp")
    assert not (tmp_path / "exp").exists()
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp" / "file").touch()
    remove_if_empty(tmp_path / "exp")
    assert (tmp_path / "exp" / "file").exists()


def test_a_file_or_a_link_to_nothing_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="file: is no folder"):
        claim_folder(tmp_path / "file", exist_ok=True)
    with pytest.raises(ConfigError, match="link: is no folder"):
        claim_folder(tmp_path / "link")
    with pytest.raises(ConfigError, match="choose another --project"):
        claim_folder(tmp_path / "file" / "exp")


def test_a_folder_has_one_user_at_a_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match="another process is writing there"), sole_user(tmp_path):
            pass
        with told_of_others(tmp_path, shared=True):
            assert "another process is writing there" in caplog.text
        other.kill()
    with sole_user(tmp_path):  # the lock of a killed process is gone
        pass
    assert not list(tmp_path.iterdir())


@pytest.fixture
def flags(tmp_path: Path) -> list[str]:
    data, (plain, _) = small_set(tmp_path, train=4, val=4), small_models(tmp_path)
    fixed = ["--data", str(data), "--cfg", str(plain), "--weights", "", "--imgsz", "64", "--noautoanchor"]
    fixed += ["--batch-size", "4", "--workers", "0", "--device", "cpu", "--noplots"]
    return [*fixed, "--project", str(tmp_path / "runs"), "--name", "one"]


def _start(*words: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "train.py"), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_two_trainings_at_once_with_one_name_have_folders_of_their_own(
    flags: list[str], tmp_path: Path
) -> None:
    both = [_start(*flags, "--epochs", str(epochs)) for epochs in (2, 3)]
    texts = [child.communicate(timeout=180)[0] for child in both]
    assert [child.returncode for child in both] == [0, 0], texts
    tables = [(tmp_path / "runs" / name / "results.csv").read_text() for name in ("one", "one2")]
    assert sorted(len(table.splitlines()) for table in tables) == [3, 4]


@pytest.mark.parametrize(
    "words", [("--exist-ok", "--epochs", "1"), pytest.param((), id="resume", marks=pytest.mark.slow)]
)
def test_a_second_training_in_the_folder_of_a_first_is_refused(
    words: tuple[str, ...], flags: list[str], tmp_path: Path
) -> None:
    last = tmp_path / "runs" / "one" / "weights" / "last.pt"
    with _start(*flags, "--epochs", "9000", "--patience", "0") as first:
        while not last.exists():
            assert first.poll() is None
            time.sleep(0.05)
        with _start(*words, *(["--resume", str(last)] if words == () else flags)) as second:
            text = second.communicate(timeout=120)[0]
        assert second.returncode == 2 and "another process is writing there" in text, text
        first.kill()
    assert read_checkpoint(last).epoch >= 0


def test_caches_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container with a user id that is not listed."""

    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)
    for variable in ("YOLOV5_CONFIG_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    folder = cache_folder()
    assert folder.parent == Path(tempfile.gettempdir())
    assert folder.name.startswith("yolov5-lska")
