"""Who hears of a training: the pictures, the services, and the caller's own callbacks."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from utils.base.log import LOG
from utils.data.image_lists import label_path
from utils.data.packed import PictureTable
from utils.data.shards.index import index_place
from utils.data.shards.table import ShardTable
from utils.data.shards.urls import is_address
from utils.loggers.available import choose, picture_interval
from utils.loggers.callbacks import CallbackList, Callbacks
from utils.loggers.logger_process import Services
from utils.loggers.plot_logger import PictureLogger
from utils.train.predictions import PredictionPictures

if TYPE_CHECKING:
    from utils.train.distributed import Team
    from utils.train.setup import Loaders


def make_callbacks(
    opt: Namespace, listeners: Sequence[Callbacks], team: Team, loaders: Loaders
) -> CallbackList:
    """The listeners of a run: pictures, services, and the caller's own; one process tells them."""
    if not team.leads:
        return CallbackList()
    own: list[Callbacks] = [] if opt.noplots else [PictureLogger()]
    chosen = choose(opt)
    if every := picture_interval(opt, chosen):
        own.append(PredictionPictures(every, loaders.val.dataset.image_files))
    if chosen:
        own.append(Services(chosen, dataset_files(opt, loaders) if opt.upload_dataset else None))
    return CallbackList([*own, *listeners])


def dataset_files(opt: Namespace, loaders: Loaders) -> dict[str, Path]:
    """The pictures and labels that `--upload_dataset` means, by their names below a common folder."""
    sets = {"train": loaders.dataset, "val": loaders.val.dataset}
    chosen = [part.image_files for name, part in sets.items() if opt.upload_dataset in (True, name)]
    files = [path for pictures in chosen for path in _files_of(pictures)]
    if not files:
        LOG.warning("--upload_dataset: the set lies at an address already; nothing is uploaded")
        return {}
    root = os.path.commonpath([path.parent for path in files])
    return {path.relative_to(root).as_posix(): path for path in files}


def _files_of(pictures: PictureTable) -> Iterator[Path]:
    """Pictures and label files, or shards and their indices, as far as they are on a disk."""
    if isinstance(pictures, ShardTable):
        shards = [shard.facts.url for shard in pictures.shards if not is_address(shard.facts.url)]
        files = [Path(file) for url in shards for file in (url, index_place(url))]
    else:
        images = [path.absolute() for path in pictures]
        files = [*images, *map(label_path, images)]
    yield from filter(Path.is_file, files)
