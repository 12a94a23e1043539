"""Send a service the events of a run without training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from utils.loggers.available import SERVICES, Service
from utils.loggers.logger_process import LoggerProcesses
from utils.plots.annotator import write_image
from utils.train.train_options import parse_options

MAP = "metrics/mAP_0.5:0.95"


def installed(key: str) -> pytest.MarkDecorator:
    """Skip where a service's package is missing."""
    package = service_of(key).package
    return pytest.mark.skipif(find_spec(package) is None, reason=f"{package} is not installed")


def service_of(key: str) -> Service:
    return next(service for service in SERVICES if service.key == key)


def row(epoch: int) -> dict[str, float]:
    """Return an epoch's row of results.csv; the validation loss was not measured."""
    return {"epoch": epoch, "train/box_loss": 1 / (epoch + 2), MAP: epoch / 8, "val/box_loss": math.nan}


def drive(
    service: Service | str,
    folder: Path,
    epochs: Iterable[int] = range(2),
    *,
    completed: bool = True,
    dataset: dict[str, Path] | None = None,
    after_epoch: Callable[[], None] = lambda: None,
    **options: Any,
) -> None:
    """Send a service the events of a run in `folder`; `after_epoch` is called after each epoch."""
    callback = LoggerProcesses([service_of(service) if isinstance(service, str) else service], dataset)
    (folder / "weights").mkdir(parents=True, exist_ok=True)
    callback.on_pretrain_routine_start(folder)
    opt = {**vars(parse_options([])), "project": str(folder.parent), **options}
    del opt["given"]
    callback.on_params_update(opt | {"hyp": {"lr0": 0.01}})
    write_image(folder / "labels.jpg", np.full((32, 48, 3), 99, np.uint8))
    for epoch in epochs:
        callback.on_train_epoch_start(epoch)
        callback.on_fit_epoch_end(epoch, row(epoch))
        for name in ("last", "best", f"epoch{epoch}"):
            (folder / "weights" / f"{name}.pt").write_text(f"weights of epoch {epoch}")
        callback.on_model_save(folder / "weights" / "last.pt", epoch, best=True)
        after_epoch()
    if completed:
        callback.on_train_end(folder, {**row(epoch), MAP: 0.75})
    callback.teardown()
