"""Class folders, `train/<class>/*` and `val/<class>/*` or `test/<class>/*`, and known datasets by name."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from utils.base.errors import ConfigError, DataError, MissingFileError
from utils.base.inputs import expand_user
from utils.base.log import LOG
from utils.base.names import class_names
from utils.base.paths import output_root, relative_to_cwd
from utils.data.dataset_yaml import YAML_SUFFIXES, DataSpec, datasets_dir, read_data_yaml
from utils.data.download import Download, download_data
from utils.data.packed import PackedRows
from utils.data.scan import LabelledFiles, load_images, load_labels

SHAPES = "shapes-cls"  # drawn, see utils/data/shapes.py
SPLITS = ("train", "val", "test")
_ASSETS = "https://github.com/ultralytics/assets/releases/download/v0.0.0/"
_SUBSETS = "https://github.com/ultralytics/yolov5/releases/download/v1.0/"
# YOLOv5's names; the archive of each is unpacked below the datasets folder.
KNOWN: dict[str, str] = {
    **{
        name: f"{_ASSETS}{name}.zip"
        for name in (
            *("mnist", "fashion-mnist", "cifar10", "cifar100", "imagewoof"),
            *("imagenette", "imagenette160", "imagenette320"),
        )
    },
    **{name: f"{_SUBSETS}{name}.zip" for name in ("imagenet10", "imagenet100", "imagenet1000")},
}
_SHOWN = 10  # class names in a message


def read_class_data(name: str, *, allow_download: bool = False) -> DataSpec:
    """Find a dataset of class folders, or of a data yaml whose images have labels of one class each.

    Args:
        name: its folder, relative to the current folder or the project; the name of a known dataset, which
            is in the datasets folder; or a data yaml, as `python -m utils.data pack` writes it for shards.
        allow_download: download a known dataset without asking.

    Returns:
        The splits that exist; `val` is `test` where there is no `val`. The names are those of the folders in
        `train`, sorted; of `val` where there is no `train`.

    Raises:
        ConfigError: no such folder, or a download is not allowed.
        DataError: the folder has no class folders below train, val or test.
    """
    if name.lower().endswith(YAML_SUFFIXES):
        return read_data_yaml(name, allow_download=allow_download)
    root = _find(name, allow_download)
    splits = {split: [root / split] if (root / split).is_dir() else [] for split in SPLITS}
    val = splits["val"] or splits["test"]
    first = splits["train"] or val
    if not first:
        raise DataError(f"{root}: expected folders train and val (or test) with a folder for each class")
    names = dict(enumerate(class_folders(first[0])))
    if not names:
        raise DataError(f"{first[0]}: no class folders; expected {first[0].name}/<class>/<images>")
    LOG.info(f"data: {relative_to_cwd(root)}, {len(names)} classes")
    return DataSpec(
        yaml=root,
        root=root,
        train=[*splits["train"]],
        val=[*val],
        test=[*splits["test"]],
        names=class_names(names),
        nc=len(names),
        is_coco=False,
        download=[],
        raw={},
    )


def class_folders(split: Path) -> list[str]:
    """Return the names of the visible folders in a split, sorted as torchvision's ImageFolder does."""
    try:
        entries = list(split.iterdir())
    except OSError as error:
        raise DataError(f"{split}: {error.strerror or error}") from error
    return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def load_split(
    data: DataSpec, split: str, names: Mapping[int, str], *, complete: bool = False, prefix: str = ""
) -> LabelledFiles:
    """Find the images of a split; the label of each is one row of class and box.

    Args:
        data: of `read_class_data`.
        split: train, val or test.
        names: of the model's classes, by number.
        complete: for training: every class needs an image.
        prefix: text before log messages.

    Raises:
        ConfigError: a class of the dataset that the model does not have, or no such split.
        DataError: there are no usable images, or a class has none.
    """
    sources = getattr(data, split)
    if not sources:
        raise ConfigError(f"{data.yaml} has no {split} images; --data is a folder with train and val")
    if data.yaml.is_dir():
        return load_class_files(sources[0], names, complete=complete, prefix=prefix)
    files = load_labels(sources, data.names, prefix, data.root)
    files = files.take(files.labels.counts > 0)
    first = files.labels.rows[files.labels.starts]
    numbers = _numbers(data.yaml, [data.names[int(each)] for each in np.unique(first[:, 0])], names, prefix)
    labels = first.copy()
    labels[:, 0] = [numbers[data.names[int(each)]] for each in first[:, 0]]
    if (files.labels.counts > 1).any():
        LOG.warning(f"{prefix}{data.yaml}: images with several labels are of the class of their first one")
    count = np.arange(len(labels))
    files.labels = PackedRows(labels, count, np.ones_like(count))
    _check_counts(files, data.yaml, names, complete, prefix)
    return files


def load_class_files(
    split: Path, names: Mapping[int, str], *, complete: bool = False, prefix: str = ""
) -> LabelledFiles:
    """Find the images of a split; their label is a row of class and whole image.

    Classes are matched by the names of their folders, so that a split without one of them keeps the numbers
    of the others.

    Args:
        split: a folder with a folder for each class.
        names: of the model's classes, by number.
        complete: for training: every class needs an image.
        prefix: text before log messages.

    Raises:
        ConfigError: a folder that is none of the classes.
        DataError: there are no usable images, or a class has none.
    """
    numbers = _numbers(split, class_folders(split), names, prefix)
    files = load_images([split], prefix)
    labels = np.zeros((len(files.images), 5), np.float32)
    labels[:, 1:] = (0.5, 0.5, 1, 1)
    skip, start = np.zeros(len(files.images), bool), len(str(split)) + 1
    for index, path in enumerate(files.images):
        folder, found, _ = str(path)[start:].partition(os.sep)
        skip[index] = not found
        labels[index, 0] = numbers[folder] if found else 0
    if skip.any():
        LOG.warning(f"{prefix}{split}: {skip.sum()} images are in no class folder; they are skipped")
    count = np.arange(len(labels))
    files.labels = PackedRows(labels, count, np.ones_like(count))
    files = files.take(~skip)
    _check_counts(files, split, names, complete, prefix)
    return files


def _numbers(origin: Path, folders: Sequence[str], names: Mapping[int, str], prefix: str) -> dict[str, int]:
    """Return the class of each folder by its name."""
    numbers = {name: number for number, name in names.items()}
    unknown = [folder for folder in folders if folder not in numbers]
    if not unknown:
        return numbers
    placeholders = all(name in (str(number), f"class{number}") for number, name in names.items())
    if placeholders and len(folders) == len(names):
        LOG.warning(f"{prefix}the model does not name its classes: the folders are numbered in their order")
        return {folder: number for number, folder in enumerate(folders)}
    where = str(origin / unknown[0]) if origin.is_dir() else f"{origin}: {unknown[0]}"
    raise ConfigError(f"{where} is not a class of the model, which has {len(names)}: {_listed(names)}")


def _check_counts(
    files: LabelledFiles, split: Path, names: Mapping[int, str], complete: bool, prefix: str
) -> None:
    """Raise an error or warn about classes without images."""
    counts = np.bincount(files.labels.rows[files.labels.starts, 0].astype(int), minlength=len(names))
    empty = {number: name for number, name in names.items() if not counts[number]}
    if not empty:
        return
    if complete:
        name = next(iter(empty.values()))
        raise DataError(f"{split / name}: no usable images; add some, or remove the folder")
    LOG.warning(f"{prefix}{split} has no images of {len(empty)} of {len(names)} classes: {_listed(empty)}")


def _listed(names: Mapping[int, str]) -> str:
    shown = ", ".join(list(names.values())[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown}, ..."


def _find(name: str, allow_download: bool) -> Path:
    """Return the folder of a dataset; it is drawn or downloaded if it does not exist."""
    given = expand_user(name)
    candidates = [given.absolute(), output_root() / given, datasets_dir() / given.name]
    if name == SHAPES:
        from utils.data.shapes import make_class_shapes

        return make_class_shapes(output_root() / "datasets" / SHAPES)
    for candidate in candidates:
        if candidate.is_dir():
            return Path(os.path.normpath(candidate))
    if given.is_file():
        raise ConfigError(f"--data {name}: expected a folder with train and val in it, or a data yaml")
    if name not in KNOWN:
        tried = ", ".join(dict.fromkeys(str(path.parent) for path in candidates))
        known = ", ".join([SHAPES, *KNOWN])
        raise MissingFileError(f"--data {name}: no such folder in {tried}; known names are {known}")
    root = datasets_dir() / name
    download_data([Download(KNOWN[name])], root, allowed=allow_download, name=name)
    return root
