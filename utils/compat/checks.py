"""YOLOv5's `utils.general`: checks of files, versions and the machine, and small helpers."""

from __future__ import annotations

import inspect
import logging
import math
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path
from typing import Any

from utils.base import paths
from utils.base.errors import ConfigError
from utils.base.log import LOG, set_up_console

LOGGER = LOG
LOGGING_NAME = "yolov5"
ROOT = paths.ROOT
FILE = ROOT / "utils" / "general.py"
DATASETS_DIR = Path(os.environ.get("YOLOV5_DATASETS_DIR", ROOT.parent / "datasets"))
CONFIG_DIR = paths.cache_folder()
RANK = int(os.environ.get("RANK", "-1"))
NUM_THREADS = min(8, max(1, (os.cpu_count() or 1) - 1))
AUTOINSTALL = False
VERBOSE = True
TQDM_BAR_FORMAT = "{l_bar}{bar:10}{r_bar}"
NCOLS = shutil.get_terminal_size().columns
FONT = "Arial.ttf"
_STYLES = {"bold": "\033[1m", "underline": "\033[4m", "end": "\033[0m"} | {
    prefix + name: f"\033[{first + index}m"
    for prefix, first in (("", 30), ("bright_", 90))
    for index, name in enumerate(("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"))
}

if not LOG.handlers:  # scripts written against YOLOv5 expect its logger to print
    set_up_console()


def set_logging(name: Any = None, verbose: bool = True, rank: Any = None) -> None:
    """Print the log to the console: all of it, or only errors unless `verbose` (or for ranks above 0)."""
    name = name if rank is None else rank
    set_up_console(logging.INFO if verbose and name in (None, "", -1, 0, LOGGING_NAME) else logging.ERROR)


def colorstr(*words: Any) -> str:
    """Return the last of `words` in the ANSI styles that the others name; one word alone is blue and bold."""
    *styles, text = words if len(words) > 1 else ("blue", "bold", *words)
    return "".join(_STYLES[style] for style in styles) + f"{text}" + _STYLES["end"]


def print_args(args: Any = None, *more: Any, **ignored: Any) -> None:
    """Log arguments in one line: `print_args(vars(opt))`, `print_args(name, opt)`, or those of the caller."""
    caller = inspect.currentframe()
    frame = caller.f_back if caller else None
    name = Path(frame.f_code.co_filename).stem if frame else ""
    if isinstance(args, str) and more and not isinstance(more[0], bool):
        name, args = args, more[0]
    if args is None and frame is not None:
        names = inspect.getargvalues(frame)
        args = {key: names.locals[key] for key in names.args}
    values = args if isinstance(args, dict) else vars(args)
    LOG.info(f"{name}: " + ", ".join(f"{key}={value}" for key, value in values.items()))


def check_img_size(imgsz: Any = 640, s: Any = 32, floor: int = 0, img_size: Any = None) -> Any:
    """Round an image size, or a list of them, up to multiples of `s`, at least `floor`.

    Raises:
        TypeError: a size that is not a whole number.
    """
    imgsz = imgsz if img_size is None else img_size  # its name until v5.0
    stride = int(s)
    sizes = list(imgsz) if isinstance(imgsz, list | tuple) else [imgsz]
    if not all(isinstance(size, Integral) for size in sizes):
        raise TypeError(f"image size {imgsz}: expected whole numbers of pixels")
    rounded = [max(math.ceil(size / stride) * stride, floor) for size in sizes]
    if rounded != sizes:
        LOG.warning(f"image size {imgsz} is not a multiple of stride {stride}; using {rounded}")
    return rounded if isinstance(imgsz, list | tuple) else rounded[0]


def check_imshow(warn: bool = False) -> bool:
    """Return whether OpenCV can open a window here."""
    try:
        if is_docker() or is_notebook():
            raise OSError("windows cannot be shown in Docker or notebooks")
        if (
            sys.platform == "linux"
            and not os.environ.get("DISPLAY")
            and not os.environ.get("WAYLAND_DISPLAY")
        ):
            raise OSError("there is no display")
        import cv2
        import numpy as np

        cv2.imshow("test", np.zeros((1, 1, 3), np.uint8))
        cv2.waitKey(1)
        cv2.destroyAllWindows()
        cv2.waitKey(1)
        return True
    except Exception as error:  # of OpenCV's several window systems
        if warn:
            LOG.warning(f"windows cannot be shown: {error}")
        return False


def check_requirements(*args: Any, **kwargs: Any) -> None:
    """Do nothing: nothing is installed at run time. requirements.txt lists what is needed."""


def check_git_status(*args: Any, **kwargs: Any) -> None:
    """Do nothing: the network is not asked."""


def check_git_info(*args: Any, **kwargs: Any) -> dict[str, None]:
    """Return no metadata: checkpoints hold those of the code under `git`."""
    return {"remote": None, "branch": None, "commit": None}


def check_font(*args: Any, **kwargs: Any) -> None:
    """Do nothing: fonts are found when they are used, without a download."""


def check_online() -> bool:
    """Return True: no function here needs the answer."""
    return True


def check_python(minimum: str = "3.10.0") -> bool:
    """Return whether this Python is at least `minimum`."""
    return check_version(platform.python_version(), minimum, name="Python ")


def check_version(
    current: str = "0.0.0",
    minimum: str = "0.0.0",
    name: str = "version ",
    pinned: bool = False,
    hard: bool = False,
    verbose: bool = False,
) -> bool:
    """Return whether version `current` is at least `minimum`, or equal to it if `pinned`.

    Raises:
        AssertionError: it is not, and `hard` is set.
    """
    found, wanted = _version(current), _version(minimum)
    fits = found == wanted if pinned else found >= wanted
    message = f"{name}{minimum} is needed, {current} is installed"
    if hard and not fits:
        raise AssertionError(message)
    if verbose and not fits:
        LOG.warning(message)
    return fits


def _version(text: str) -> tuple[int, ...]:
    numbers = [int(number) for number in re.findall(r"\d+", str(text).split("+")[0])[:4]]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def check_suffix(file: Any = "yolov5s.pt", suffix: Any = (".pt",), msg: str = "") -> None:
    """Check that files that have a suffix have one of `suffix`.

    Raises:
        AssertionError: another suffix.
    """
    allowed = (suffix,) if isinstance(suffix, str) else tuple(suffix)
    for name in file if isinstance(file, list | tuple) else [file]:
        ending = Path(str(name)).suffix.lower()
        if allowed and ending and ending not in allowed:
            raise AssertionError(f"{msg}{name}: expected a file that ends in {' or '.join(allowed)}")


def url2file(url: str) -> str:
    """Return the file name of a URL."""
    from urllib.parse import unquote, urlsplit

    return Path(unquote(urlsplit(str(url)).path)).name


def check_file(file: Any, suffix: Any = "") -> str:
    """Return the path of a file: as given, downloaded from a URL, or found by its name in the project.

    Raises:
        AssertionError: there is no such file, or there are several.
    """
    if suffix:
        check_suffix(file, suffix)
    name = str(file).strip()
    if not name or Path(name).is_file():
        return name
    if name.startswith(("http://", "https://")):
        target = url2file(name)
        if not Path(target).is_file():
            from utils.base.download import download_file

            download_file(name, Path(target))
        return target
    folders = () if Path(name).is_absolute() else (ROOT / part for part in ("data", "models", "utils"))
    found = sorted(path for folder in folders for path in folder.rglob(name) if path.is_file())
    if not found:
        raise AssertionError(f"File not found: {file}")
    if len(found) > 1:
        raise AssertionError(f"{file}: several files have this name: {', '.join(map(str, found))}")
    return str(found[0])


def check_yaml(file: Any, suffix: Any = (".yaml", ".yml")) -> str:
    """Return the path of a yaml, as `check_file` does."""
    return check_file(file, suffix)


@contextmanager
def as_yaml(data: dict[str, Any]) -> Iterator[str]:
    """Yield the path of a temporary yaml with the content of a data yaml; relative paths start here."""
    import yaml

    plain = {key: str(value) if isinstance(value, Path) else value for key, value in data.items()}
    root = plain.get("path") or ""
    plain["path"] = str((ROOT / root) if (ROOT / root).is_dir() else Path(root).absolute())
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "data.yaml")
        file.write_text(yaml.safe_dump(plain, allow_unicode=True), encoding="utf-8")
        yield str(file)


def check_dataset(data: Any, autodownload: bool = True) -> dict[str, Any]:
    """Read a data yaml; return it as a dict with absolute paths, `names` by number, and `nc`.

    Raises:
        AssertionError: a missing key.
        DataError: the images do not exist, and cannot be downloaded.
    """
    if isinstance(data, dict):
        if any(key not in data for key in ("train", "val", "names")):
            raise AssertionError(f"data: expected the keys train, val and names, found {', '.join(data)}")
        with as_yaml(data) as file:
            return check_dataset(file, autodownload)
    from utils.data.coco_source import CocoImages
    from utils.data.dataset_yaml import read_data_yaml

    try:
        spec = read_data_yaml(
            data[0] if isinstance(data, tuple | list) else data, allow_download=autodownload
        )
    except ConfigError as error:
        raise AssertionError(str(error)) from None
    splits: dict[str, list[Any]] = {
        split: [source if isinstance(source, CocoImages) else str(source) for source in getattr(spec, split)]
        for split in ("train", "val", "test")
    }
    found = {
        name: (files[0] if len(files) == 1 else files) if files else None for name, files in splits.items()
    }
    return {**spec.raw, "path": spec.root, **found, "names": spec.names, "nc": spec.nc}


def is_writeable(dir: Any, test: bool = False) -> bool:
    """Return whether a folder can be written to."""
    return os.access(dir, os.W_OK)


def is_ascii(s: Any = "") -> bool:
    """Return whether a text has ASCII letters only."""
    return str(s).isascii()


def is_chinese(s: Any = "人工智能") -> bool:
    """Return whether a text has a Chinese letter."""
    return bool(re.search("[\u4e00-\u9fff]", str(s)))


def is_colab() -> bool:
    """Return whether this is a Google Colab notebook."""
    return "google.colab" in sys.modules


def is_kaggle() -> bool:
    """Return whether this is a Kaggle notebook."""
    return os.environ.get("PWD") == "/kaggle/working"


def is_notebook() -> bool:
    """Return whether this is a notebook."""
    return is_colab() or is_kaggle() or "ipykernel" in sys.modules


def is_docker() -> bool:
    """Return whether this runs in a Docker container."""
    return Path("/.dockerenv").exists()
