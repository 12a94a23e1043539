"""YOLOv5's `utils.general`: files, weights of classes, schedules, and small helpers. Imports no torch."""

from __future__ import annotations

import math
import os
import platform
import re
import signal
import threading
import unicodedata
from collections.abc import Callable, Sequence
from contextlib import ContextDecorator
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import Any

from utils.base import paths
from utils.base.log import LOG
from utils.compat.checks import ROOT, url2file


def increment_path(path: Any, exist_ok: bool = False, sep: str = "", mkdir: bool = False) -> Path:
    """Return `path`, or if it exists the first free one of path2, path3, ...; `mkdir` makes the folder."""
    path = Path(path)
    if path.exists() and not exist_ok:
        stem, suffix = (path.with_suffix(""), path.suffix) if path.is_file() else (path, "")
        numbered = (Path(f"{stem}{sep}{number}{suffix}") for number in range(2, 9999))
        path = next(candidate for candidate in numbered if not candidate.exists())
    if mkdir:
        path.mkdir(parents=True, exist_ok=True)
    return path


def strip_optimizer(f: Any = "best.pt", s: Any = "") -> None:
    """Reduce a checkpoint to what inference needs, over `f`, unless YOLOv5 has written it, or to `s`."""
    from models.weights import strip_checkpoint

    strip_checkpoint(Path(f), Path(s) if s else None)


def get_latest_run(search_dir: Any = ".") -> str:
    """Return the newest `last*.pt` below a folder, or an empty text."""
    found = list(Path(search_dir).rglob("last*.pt"))
    return str(max(found, key=lambda file: file.stat().st_ctime)) if found else ""


def yaml_load(file: Any = "data.yaml") -> Any:
    """Read a yaml file."""
    import yaml

    return yaml.safe_load(Path(file).read_text(encoding="utf-8", errors="ignore"))


def yaml_save(file: Any = "data.yaml", data: dict[str, Any] | None = None) -> None:
    """Write a yaml file; paths are written as text."""
    import yaml

    plain = {key: str(value) if isinstance(value, Path) else value for key, value in (data or {}).items()}
    Path(file).write_text(yaml.safe_dump(plain, sort_keys=False), encoding="utf-8")


def download(url: Any, dir: Any = ".", unzip: bool = True, delete: bool = True, **ignored: Any) -> None:
    """Download files to a folder, and unpack archives safely."""
    from utils.base.download import download_file

    for one in [url] if isinstance(url, str | Path) else url:
        file = Path(dir) / url2file(str(one))
        if not file.is_file():
            download_file(str(one), file)
        if unzip and file.suffix in (".zip", ".tar", ".gz"):
            unzip_file(file, file.parent)
            if delete:
                file.unlink()


def unzip_file(file: Any, path: Any = None, exclude: Any = ()) -> None:
    """Unpack an archive, into its own folder by default; files outside of it are refused."""
    from utils.data.download import safe_unpack

    safe_unpack(Path(file), Path(path) if path else Path(file).parent)


def user_config_dir(dir: str = "yolov5", env_var: str = "YOLOV5_CONFIG_DIR") -> Path:
    """Return the folder for downloads and caches."""
    return paths.cache_folder()


def file_size(path: Any) -> float:
    """Return the size of a file, or of all files in a folder, in MB; 0 if there is none."""
    path = Path(path)
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / 2**20


def file_age(path: Any = __file__) -> int:
    """Return the days since a file was changed."""
    return (datetime.now() - datetime.fromtimestamp(Path(path).stat().st_mtime)).days


def file_date(path: Any = __file__) -> str:
    """Return the date on which a file was changed, as 2026-7-1."""
    when = datetime.fromtimestamp(Path(path).stat().st_mtime)
    return f"{when.year}-{when.month}-{when.day}"


def git_describe(path: Any = ROOT) -> str:
    """Return an empty text: the version of the code is in every checkpoint under `git`."""
    return ""


def emojis(text: str = "") -> str:
    """Return a text without emojis on Windows, whose consoles may not print them."""
    return text.encode().decode("ascii", "ignore") if platform.system() == "Windows" else text


def clean_str(s: str) -> str:
    """Return a text with special characters replaced by underscores."""
    return re.sub(r"[|@#!¡·$€%&()=?¿^*;:,¨´><+]", "_", unicodedata.normalize("NFC", s))


def methods(instance: object) -> list[str]:
    """Return the names of the public methods of an object."""
    return [name for name in dir(instance) if callable(getattr(instance, name)) and not name.startswith("__")]


def make_divisible(x: float, divisor: Any) -> int:
    """Round `x` up to a multiple of `divisor` (a number, or a tensor whose greatest value counts)."""
    step = int(divisor.max()) if hasattr(divisor, "max") else divisor
    return math.ceil(x / step) * step


def intersect_dicts(da: dict[str, Any], db: dict[str, Any], exclude: Sequence[str] = ()) -> dict[str, Any]:
    """Return the entries of `da` that `db` has in the same shape, but no key with a text of `exclude`."""
    return {
        key: value
        for key, value in da.items()
        if key in db and not any(text in key for text in exclude) and value.shape == db[key].shape
    }


def one_cycle(y1: float = 0.0, y2: float = 1.0, steps: int = 100) -> Callable[[float], float]:
    """Return a function that goes from `y1` to `y2` along half a cosine in `steps` steps."""
    return lambda x: y1 + (y2 - y1) * (1 - math.cos(x * math.pi / steps)) / 2


def one_flat_cycle(y1: float = 0.0, y2: float = 1.0, steps: int = 100) -> Callable[[float], float]:
    """Return a function that stays at `y1` for half of the steps, then goes to `y2` along half a cosine."""
    cosine = one_cycle(y1, y2, steps // 2)
    return lambda x: y1 if x < steps / 2 else cosine(x - steps // 2)


def init_seeds(seed: int = 0, deterministic: bool = False) -> None:
    """Seed Python, numpy and torch."""
    from utils.base.seeds import seed_everything

    seed_everything(seed, deterministic)


def labels_to_class_weights(labels: Any, nc: int = 80) -> Any:
    """Return weights (nc,) inversely proportional to the frequency of each class, with sum 1."""
    import numpy as np
    import torch

    if len(labels) == 0 or labels[0] is None:
        return torch.Tensor()
    counts = np.bincount(np.concatenate(list(labels), 0)[:, 0].astype(int), minlength=nc).astype(float)
    counts[counts == 0] = 1
    return torch.from_numpy(1 / counts / (1 / counts).sum()).float()


def labels_to_image_weights(labels: Any, nc: int = 80, class_weights: Any = None) -> Any:
    """Return weights (images,): the sum of the class weights of all objects of an image."""
    import numpy as np

    weights = np.ones(nc) if class_weights is None else np.asarray(class_weights).reshape(-1)
    return np.array([weights[rows[:, 0].astype(int)].sum() for rows in labels])


def coco80_to_coco91_class() -> list[int]:
    """Return the category number of COCO's annotations for each of its 80 classes."""
    from utils.val.coco_truth import COCO_IDS

    return list(COCO_IDS)


def apply_classifier(x: list[Any], model: Any, img: Any, im0: Any) -> list[Any]:
    """Keep the detections whose class a second classifier confirms on their crops (224 x 224 RGB, 0-1).

    Args:
        x: per image (n, 6) detections, in pixels of the network's input.
        model: classifier of batches (n, 3, 224, 224).
        img: the network's input (B, 3, H, W).
        im0: the image, or a list of them, BGR.
    """
    import cv2
    import numpy as np
    import torch

    from utils.compat.boxes import scale_boxes
    from utils.ops.boxes import xywh2xyxy, xyxy2xywh

    images = [im0] if isinstance(im0, np.ndarray) else im0
    for index, (rows, image) in enumerate(zip(x, images, strict=False)):
        if rows is None or not len(rows):
            continue
        square = xyxy2xywh(rows.clone())
        square[:, 2:4] = square[:, 2:4].max(1, keepdim=True)[0] * 1.3 + 30
        crops = scale_boxes(img.shape[2:], xywh2xyxy(square)[:, :4], image.shape).long()
        rows = rows.clone()
        scale_boxes(img.shape[2:], rows[:, :4], image.shape)
        patches = [cv2.resize(image[y1:y2, x1:x2], (224, 224)) for x1, y1, x2, y2 in crops.tolist()]
        batch = np.stack(patches)[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32) / 255
        found = model(torch.from_numpy(np.ascontiguousarray(batch)).to(rows.device)).argmax(1)
        x[index] = x[index][found == rows[:, 5].long()]
    return x


class WorkingDirectory(ContextDecorator):
    """Context manager and decorator that changes the current folder, and changes it back at the end."""

    def __init__(self, new_dir: Any) -> None:
        self.dir = new_dir
        self.cwd = Path.cwd().resolve()

    def __enter__(self) -> None:
        os.chdir(self.dir)

    def __exit__(self, *error: object) -> None:
        os.chdir(self.cwd)


class TryExcept(ContextDecorator):
    """Context manager and decorator that logs an error instead of raising it."""

    def __init__(self, msg: str = "") -> None:
        self.msg = msg

    def __enter__(self) -> None:
        """Start the block."""

    def __exit__(self, kind: object, value: object, trace: object) -> bool:
        if value:
            LOG.info(f"{self.msg}{': ' if self.msg else ''}{value}")
        return True


class Timeout(ContextDecorator):
    """Context manager that raises TimeoutError after some seconds, on Linux and macOS."""

    def __init__(
        self, seconds: float, *, timeout_msg: str = "", suppress_timeout_errors: bool = True
    ) -> None:
        self.seconds = int(seconds)
        self.message = timeout_msg
        self.suppress = bool(suppress_timeout_errors)

    def _raise(self, *signal_arguments: object) -> None:
        raise TimeoutError(self.message)

    def __enter__(self) -> None:
        if platform.system() != "Windows":
            signal.signal(signal.SIGALRM, self._raise)
            signal.alarm(self.seconds)

    def __exit__(self, kind: object, value: object, trace: object) -> bool:
        if platform.system() != "Windows":
            signal.alarm(0)
        return self.suppress and kind is TimeoutError


def no_resume(*args: Any, **kwargs: Any) -> None:
    """Return None: no run of a logging service is resumed here."""


def notebook_init(verbose: bool = True) -> None:
    """Do nothing: a notebook needs no preparation."""


def join_threads(verbose: bool = False) -> None:
    """Wait for all other threads that are not daemons."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()


def try_except(func: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that prints an error instead of raising it."""

    @wraps(func)
    def handler(*args: Any, **kwargs: Any) -> None:
        try:
            func(*args, **kwargs)
        except Exception as error:
            print(error)

    return handler


def threaded(func: Callable[..., Any]) -> Callable[..., threading.Thread]:
    """Return a function that runs `func` in a thread, and returns the thread."""

    @wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> threading.Thread:
        thread = threading.Thread(target=func, args=args, kwargs=kwargs, daemon=True)
        thread.start()
        return thread

    return wrapper
