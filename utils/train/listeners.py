"""Who hears of a training: the pictures, the services, and the caller's own callbacks."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from utils.data.image_lists import label_path
from utils.loggers.apart import Services
from utils.loggers.callbacks import CallbackList, Callbacks
from utils.loggers.pictures import PictureLogger
from utils.loggers.services import choose, picture_interval
from utils.train.predictions import PredictionPictures

if TYPE_CHECKING:
    from utils.train.setup import Loaders
    from utils.train.team import Team


def make_callbacks(
    opt: Namespace, listeners: Sequence[Callbacks], team: Team, loaders: Loaders
) -> CallbackList:
    """The listeners of a run: pictures, services, and the caller's own; one process tells them."""
    if not team.leads:
        return CallbackList()
    own: list[Callbacks] = [] if opt.noplots else [PictureLogger()]
    chosen = choose(opt)
    if every := picture_interval(opt, chosen):
        own.append(PredictionPictures(every))
    if chosen:
        own.append(Services(chosen, dataset_files(opt, loaders) if opt.upload_dataset else None))
    return CallbackList([*own, *listeners])


def dataset_files(opt: Namespace, loaders: Loaders) -> dict[str, Path]:
    """The pictures and labels that `--upload_dataset` means, by their names below a common folder."""
    sets = {"train": loaders.dataset, "val": loaders.val.dataset}
    chosen = [part for name, part in sets.items() if opt.upload_dataset in (True, name)]
    images = [path.absolute() for part in chosen for path in part.image_files]
    files = [*images, *(label for label in map(label_path, images) if label.is_file())]
    root = os.path.commonpath([path.parent for path in files])
    return {path.relative_to(root).as_posix(): path for path in files}
