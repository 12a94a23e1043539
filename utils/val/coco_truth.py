"""Annotations of COCO that detections are scored against: which file, and the ids of images and classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from utils.base.errors import ConfigError, DataError, MissingFileError, YoloError
from utils.base.inputs import expand_user
from utils.base.log import LOG
from utils.base.paths import output_root
from utils.data.coco_json import CocoEntries, read_entries
from utils.data.coco_match import match_ids, match_images, match_names
from utils.data.coco_source import CocoImages
from utils.val.coco_scores import check_tools

if TYPE_CHECKING:
    from utils.data.dataset_yaml import DataSpec

_UNUSED_IDS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}  # of COCO's 90 category ids, 80 are in use
COCO_IDS: tuple[int, ...] = tuple(number for number in range(1, 91) if number not in _UNUSED_IDS)
_FOLDER = "annotations"
_COCO_FILE = "instances_val2017.json"


@dataclass(frozen=True)
class CocoTruth:
    """Annotations, and their ids for the images and classes of an evaluation."""

    file: Path
    image_ids: Mapping[str, int | str]  # by the path of the image; images that are not listed are not in it
    category_ids: Sequence[int | None]  # by class number; None: the annotations have no such category
    single_cls: bool = False  # categories do not count
    required: bool = False  # asked for by the user: raise an error where there are no scores


def load_truth(
    data: DataSpec, split: str, paths: Sequence[str], *, file: str = "", single_cls: bool = False
) -> CocoTruth | None:
    """Return the annotations of a split; None, with a warning, where the detections cannot be scored.

    Args:
        data: the dataset.
        split: train, val or test.
        paths: of the images that are evaluated.
        file: the annotations, as the user gave them; by default those that the labels come from, or
            annotations/instances_<split>*.json below the dataset.
        single_cls: all detections are of class 0.

    Raises:
        ConfigError, DataError: `file` is given and cannot be used.
    """
    try:
        check_tools()
        return read_truth(data, split, paths, file, single_cls)
    except YoloError as error:
        if file:
            raise type(error)(f"--ann {file}: {str(error).removeprefix(f'{file}: ')}") from error
        LOG.warning(f"--save-json: no COCO scores: {error}")
        return None


def find_annotations(data: DataSpec, split: str) -> Path:
    """Return the annotations of a split.

    Raises:
        ConfigError: there are none, or several.
    """
    for source in getattr(data, split):
        if isinstance(source, CocoImages):
            return source.file
    folders = (data.root, output_root().parent / "datasets" / "coco") if data.is_coco else ()
    for folder in folders if split == "val" else ():
        if (folder / _FOLDER / _COCO_FILE).is_file():
            return folder / _FOLDER / _COCO_FILE
    pattern = f"instances_{split}*.json"
    found = sorted((data.root / _FOLDER).glob(pattern))
    if not found:
        raise MissingFileError(
            f"{data.root / _FOLDER / pattern}: no such file; give the annotations with --ann FILE"
        )
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ConfigError(f"{data.root / _FOLDER}: {names}: choose one with --ann FILE")
    return found[0]


def read_truth(
    data: DataSpec, split: str, paths: Sequence[str], given: str = "", single_cls: bool = False
) -> CocoTruth:
    """Return the annotations of a split, see `load_truth`.

    Raises:
        MissingFileError: there are none.
        ConfigError, DataError: they cannot be used.
    """
    file = expand_user(given) if given else find_annotations(data, split)
    entries = read_entries(file)
    image_ids = _match_images(entries, paths, file)
    if single_cls:
        categories: Sequence[int | None] = list(entries.categories)[:1]
    elif data.is_coco and tuple(entries.categories) == COCO_IDS:
        categories = COCO_IDS
    else:
        categories = _match_categories(entries, list(data.names.values()), file)
    return CocoTruth(file, image_ids, categories, single_cls, bool(given))


def _match_images(entries: CocoEntries, paths: Sequence[str], file: Path) -> dict[str, int | str]:
    """Return the id of each image that the annotations list: by file name, else by id."""
    ids, names = list(entries.images), list(entries.images.values())
    matched = match_images(paths, names, file)
    if all(index is None for index in matched):
        matched = match_ids(paths, ids)
        if any(index is not None for index in matched):
            LOG.info(f"{file}: the images have other names there; they are matched by their ids")
    found = {path: ids[index] for path, index in zip(paths, matched, strict=True) if index is not None}
    if not found:
        listed = f"none of its {len(names)} images is" if names else "it lists no images that are"
        example = f"; it lists {names[0]!r}, evaluated is {paths[0]}" if names else ""
        raise DataError(f"{file}: {listed} among the {len(paths)} that are evaluated{example}")
    if missing := [path for path in paths if path not in found]:
        LOG.warning(
            f"{file}: does not list {len(missing)} of the {len(paths)} images; they are not scored, "
            f"first: {missing[0]}"
        )
    return found


def _match_categories(entries: CocoEntries, names: Sequence[str], file: Path) -> list[int | None]:
    """Return the category of each class: by name, and by order for those left if they are as many.

    Raises:
        DataError: no class has a category.
    """
    # Some tools write a category twice, as the parent of all others: that without objects comes last.
    ids = sorted(entries.categories, key=lambda number: number not in entries.used)
    offered = [entries.categories[number] for number in ids]
    matched = match_names(names, offered)
    found = [None if index is None else ids[index] for index in matched]
    classes = [number for number, category in enumerate(found) if category is None]
    if not classes:
        return found
    taken = {category for category in found if category is not None}
    left = [number for number in entries.categories if number not in taken]
    pairs = [f"class {number} is {names[number]}" for number in classes]
    if len(left) == len(classes):
        for number, category in zip(classes, left, strict=True):
            found[number] = category
        LOG.warning(
            f"{file}: {len(classes)} classes are matched to categories by their order, as the names differ; "
            f"{pairs[0]}, category {left[0]} is {entries.categories[left[0]]}"
        )
        return found
    listed = ", ".join(entries.categories[number] for number in left[:5])
    if len(classes) == len(found):
        raise DataError(f"{file}: no category has the name of a class; {pairs[0]}, categories are {listed}")
    LOG.warning(
        f"{file}: {len(classes)} classes have no category, and their detections are not scored; {pairs[0]}"
    )
    return found
