"""The installed package: one package, one command, and nothing written to where it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.models.backends.files import checkpoint
from utils.base.paths import ROOT

pytest.importorskip("setuptools", minversion="77")

FOLDERS = ("models", "utils", "studies", "serve", "data", "segment", "classify", "yolov5_lska")
HEAVY = ("torch", "numpy", "cv2", "yaml", "PIL", "tqdm", "matplotlib")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel, built from a copy: setuptools writes its working files beside the sources."""
    source, made = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.cache"))
    for file in (*ROOT.glob("*.py"), *(ROOT / name for name in ("pyproject.toml", "README.md", "LICENSE"))):
        shutil.copy(file, source)
    shutil.copy(ROOT / "requirements.txt", source)
    _pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", made, source)
    (file,) = made.glob("yolov5_lska-*.whl")
    return file


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a read-only folder into which the wheel is installed."""
    folder = tmp_path_factory.mktemp("site")
    _pip("install", "--no-deps", "--no-index", "--target", folder, wheel)
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222)
    return folder


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Return the folder of a user whose project has a package `utils` of its own."""
    folder = tmp_path / "project"
    (folder / "utils").mkdir(parents=True)
    (folder / "utils" / "__init__.py").write_text("raise SystemExit('not the utils of yolov5_lska')\n")
    shutil.copy(checkpoint(), folder / "tiny.pt")
    return folder


def _pip(*words: object) -> None:
    line = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, words)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def _python(site: Path, here: Path, *words: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1", "YOLOV5_NATIVE": "0"}
    line = [sys.executable, *map(str, words)]
    return subprocess.run(line, cwd=here, env=environment, capture_output=True, text=True, timeout=300)


def _command(site: Path, here: Path, *words: object) -> str:
    """Return the output of `yolov5-lska`, which has to succeed."""
    done = _python(site, here, "-m", "yolov5_lska", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _state(site: Path) -> dict[str, tuple[int, int]]:
    """Return sizes and times of all files; root may write to read-only files, so the mode proves nothing."""
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(site.rglob("*"))}


def test_the_wheel_has_one_top_level_package(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}

    assert tops == {"yolov5_lska", f"{'-'.join(wheel.stem.split('-')[:2])}.dist-info"}


def test_the_wheel_has_all_files(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    own = [*ROOT.glob("*.py"), *ROOT.glob("segment/*.py"), *ROOT.glob("classify/*.py")]
    scripts = {f"yolov5_lska/scripts/{path.relative_to(ROOT).as_posix()}" for path in own}
    files = [path for name in FOLDERS[:-3] for path in (ROOT / name).rglob("*") if path.is_file()]
    wanted = {
        f"yolov5_lska/{path.relative_to(ROOT).as_posix()}"
        for path in files
        if "__pycache__" not in path.parts and path.suffix != ".cache"
    }

    assert not (scripts | wanted) - names, "add the suffix to package-data in pyproject.toml"


@pytest.mark.parametrize(
    "words",
    [
        ("--help",),
        ("--version",),
        ("train", "--help"),
        ("val", "--help"),
        ("segment", "train", "--help"),
        ("segment", "predict", "--help"),
        ("classify", "train", "--help"),
        ("classify", "val", "--help"),
        ("get", "--help"),
        ("pack", "--help"),
    ],
)
def test_help_imports_nothing_heavy(site: Path, here: Path, words: tuple[str, ...]) -> None:
    code = f"""
import sys
sys.argv = ['yolov5-lska', *{words}]
from yolov5_lska.cli import main
try: main()
except SystemExit as end: assert not end.code
print('loaded:', *[name for name in {HEAVY} if name in sys.modules])
"""
    done = _python(site, here, "-c", code)

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].strip() == "loaded:"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "a command is needed"),
        (("detekt",), "did you mean detect?"),
        (("val", "--nope"), "yolov5-lska val: unrecognized arguments: --nope; see yolov5-lska val --help"),
    ],
)
def test_errors_are_one_line(site: Path, here: Path, words: tuple[str, ...], message: str) -> None:
    done = _python(site, here, "-m", "yolov5_lska", *words)

    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_detection_writes_to_the_current_folder_only(site: Path, here: Path) -> None:
    before = _state(site)
    flags = ("--weights", "tiny.pt", "--img", "64", "--device", "cpu", "--save-txt", "--conf-thres", "0.001")
    _command(site, here, "detect", *flags)

    assert (here / "runs" / "detect" / "exp" / "overlapping.jpg").is_file()
    assert _state(site) == before


def test_scripts_can_be_used_from_python(site: Path, here: Path) -> None:
    code = "import sys; sys.path.pop(0); import yolov5_lska; "
    code += "print(yolov5_lska.val.run.__module__, yolov5_lska.__version__)"
    done = _python(site, here, "-c", code)

    assert done.stdout.split() == ["val", "0.1.0"], done.stderr


def test_modules_with_the_same_names_are_reported(site: Path, here: Path) -> None:
    (here / "utils" / "__init__.py").write_text("")
    done = _python(site, here, "-c", "import utils, yolov5_lska; yolov5_lska.train")

    assert "ImportError: yolov5_lska needs the name utils" in done.stderr


@pytest.mark.slow
def test_subprocesses_find_their_modules(site: Path, here: Path) -> None:
    before = _state(site)
    small = ("--data", "shapes.yaml", "--img", "64", "--device", "cpu")
    tiny = (*small, "--epochs", "1", "--batch-size", "32", "--workers", "1")
    _command(
        site,
        here,
        "compare",
        "--cfg",
        "yolov5n.yaml",
        "--weights",
        "",
        "--seeds",
        "0",
        "--rounds",
        "1",
        *tiny,
    )
    (best,) = (here / "runs" / "compare").rglob("best.pt")
    _command(site, here, "train", "--weights", best, *tiny, "--noplots")
    _command(site, here, "export", "--weights", "tiny.pt", "--img", "64", "--include", "torchscript", "onnx")

    assert (here / "datasets" / "shapes").is_dir()
    assert (here / "runs" / "train" / "exp" / "results.csv").is_file()
    assert (here / "tiny.onnx").is_file()
    assert _state(site) == before
