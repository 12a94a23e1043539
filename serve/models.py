"""Load the served models; the task of each says what serves it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models.backends import load_backend
from models.backends.base import Backend
from models.backends.metadata import read_class_names
from serve.classifier import ServedClassifier
from serve.detector import ServedDetector
from serve.middleware import Metrics
from serve.serve_options import ServeOptions
from serve.served_model import ServedModel
from utils.base.device import select_device
from utils.base.errors import ConfigError
from utils.base.names import unique_stems
from utils.base.options import flag_of
from utils.tasks.task import get_task

FAMILIES: tuple[type[ServedModel[Any]], ...] = (ServedDetector, ServedClassifier)
_OF_TASK: dict[str, type[ServedModel[Any]]] = {
    "detect": ServedDetector,
    "segment": ServedDetector,
    "classify": ServedClassifier,
}


def load_models(options: ServeOptions, metrics: Metrics) -> dict[str, ServedModel[Any]]:
    """Load every file of `--weights`, named by its stem; equal stems get a number.

    Raises:
        ConfigError, DataError: see `models.backends`; or flags that apply to none of the models.
    """
    device = select_device(options.device)
    names = None if all(file.endswith(".pt") for file in options.weights) else read_class_names(options.data)
    stems = unique_stems([Path(file) for file in options.weights])
    backends = [load_backend(file, device, names=names, half=options.half) for file in options.weights]
    _check_flags(options, backends)
    loaded = {}
    for index, (stem, backend) in enumerate(zip(stems, backends, strict=True)):
        loaded[stem] = make_model(stem, backend, options, metrics, options.imgsz_of(index))
        loaded[stem].warmup()
    return loaded


def make_model(
    name: str, backend: Backend, options: ServeOptions, metrics: Metrics, imgsz: int | None = None
) -> ServedModel[Any]:
    """Serve a model by what its task needs; see `ServedModel` for the arguments."""
    backend.names = get_task(backend.task).shown_names(backend.names)
    return _OF_TASK[backend.task](name, backend, options, metrics, imgsz)


def _check_flags(options: ServeOptions, backends: list[Backend]) -> None:
    """Check that flags about boxes were given only if a model has boxes.

    Raises:
        ConfigError: otherwise.
    """
    if any(_OF_TASK[backend.task] is ServedDetector for backend in backends):
        return
    for name in ("conf_thres", "iou_thres", "max_det"):
        if name in options.given:
            flag = flag_of(ServeOptions, name)
            raise ConfigError(f"{flag} applies to boxes, and all models are classifiers: leave it out")
