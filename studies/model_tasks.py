"""The task of a model, from its yaml or its file: it says which flags a command line may have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils.base.errors import ConfigError
from utils.tasks.task import Task, get_task


def task_of_config(cfg: str | Path | dict[str, Any]) -> str:
    """Return the name of the task whose head is the last row of a model yaml, given as for `DetectionModel`.

    Detection where the last row is no head: building the model will report that.

    Raises:
        ConfigError: there is no such file, or it is not valid yaml.
    """
    from models.yolo import read_config, task_of

    return task_of(read_config(cfg)[0])


def task_of_file(file: str, device: str = "") -> str:
    """Return the name of the task of a checkpoint or an exported file.

    Args:
        file: model path, or the name of official weights.
        device: as `--device`, to load an exported file on; a checkpoint is only read.

    Raises:
        ConfigError, DataError: the file is missing or damaged.
    """
    from utils.base.formats import format_of

    if format_of(file).name == "pt":
        from models.official_weights import locate_weights
        from models.weights import read_checkpoint

        return task_of_config(read_checkpoint(locate_weights(file)).yaml)
    from models.backends import load_backend
    from utils.base.device import select_device

    return load_backend(file, select_device(device.split(",")[0], verbose=False)).task


def common_task(tasks: Mapping[str, str], flag: str) -> Task:
    """Return the task of several models.

    Args:
        tasks: the name of the task of each yaml or file; at least one.
        flag: which named them, for the message.

    Raises:
        ConfigError: they have different tasks.
    """
    first, *others = tasks
    task = get_task(tasks[first])
    for other in others:
        if tasks[other] != task.name:
            noun = get_task(tasks[other]).noun
            raise ConfigError(
                f"{flag}: {first} is a {task.noun}, {other} a {noun}; only models of one task are compared"
            )
    return task
