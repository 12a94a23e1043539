"""Take a service through a run without a training."""

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
    package = kind_of(key).package
    return pytest.mark.skipif(find_spec(package) is None, reason=f"{package} is not installed")


def kind_of(key: str) -> Service:
    return next(kind for kind in SERVICES if kind.key == key)


def row(epoch: int) -> dict[str, float]:
    """An epoch's line of results.csv; the loss of validation was not measured."""
    return {"epoch": epoch, "train/box_loss": 1 / (epoch + 2), MAP: epoch / 8, "val/box_loss": math.nan}


def drive(
    kind: Service | str,
    folder: Path,
    epochs: Iterable[int] = range(2),
    *,
    done: bool = True,
    dataset: dict[str, Path] | None = None,
    midway: Callable[[], None] = lambda: None,
    **options: Any,
) -> None:
    """Tell a service of a run of so many epochs in `folder`; `midway` is called after each."""
    services = LoggerProcesses([kind_of(kind) if isinstance(kind, str) else kind], dataset)
    (folder / "weights").mkdir(parents=True, exist_ok=True)
    services.on_pretrain_routine_start(folder)
    opt = {**vars(parse_options([])), "project": str(folder.parent), **options}
    del opt["given"]
    services.on_params_update(opt | {"hyp": {"lr0": 0.01}})
    write_image(folder / "labels.jpg", np.full((32, 48, 3), 99, np.uint8))
    for epoch in epochs:
        services.on_train_epoch_start(epoch)
        services.on_fit_epoch_end(epoch, row(epoch))
        for name in ("last", "best", f"epoch{epoch}"):
            (folder / "weights" / f"{name}.pt").write_text(f"weights of epoch {epoch}")
        services.on_model_save(folder / "weights" / "last.pt", epoch, best=True)
        midway()
    if done:
        services.on_train_end(folder, {**row(epoch), MAP: 0.75})
    services.teardown()
