"""Images whose labels are in COCO annotations: the key `annotations:` of a data yaml."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from utils.base.errors import ConfigError, MissingFileError
from utils.base.inputs import expand_user
from utils.base.names import check_nc

KEY = "annotations"
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class CocoImages:
    """Images of a split that are listed in COCO annotations."""

    images: Path  # a folder, or a list of images
    file: Path  # the annotations
    names: tuple[str, ...] = ()  # of the classes; empty: the categories in the order of their ids
    elsewhere: tuple[Path, ...] = ()  # images of other splits in the same annotations

    def exists(self) -> bool:
        """Return whether the images exist; the annotations are checked when they are read."""
        return self.images.exists()

    def __str__(self) -> str:
        return f"{self.images} with {self.file}"


def annotation_entries(raw: Mapping[str, Any], yaml: Path) -> dict[str, str]:
    """Return the entry of each split under `annotations:` in a data yaml; empty without that key.

    Raises:
        ConfigError: neither a JSON file nor a file for each split.
    """
    value = raw.get(KEY)
    if value is None:
        return {}
    entries = dict.fromkeys(SPLITS, value) if isinstance(value, str) else value
    if not isinstance(entries, dict) or not entries:
        raise ConfigError(f"{yaml}: {KEY}: expected a JSON file, or one for each split, found {value!r}")
    for split, entry in entries.items():
        if split not in SPLITS:
            raise ConfigError(f"{yaml}: {KEY}: {split}: is no split; expected {', '.join(SPLITS)}")
        if not isinstance(entry, str) or not entry.lower().endswith(".json"):
            raise ConfigError(f"{yaml}: {KEY}: {split}: expected a JSON file, found {entry!r}")
    return entries


def with_annotations(
    entries: Mapping[str, str], splits: Mapping[str, list[Any]], root: Path, yaml: Path
) -> dict[str, list[Any]]:
    """Return the splits of a data yaml, with the annotations in place of label files where it names some.

    Args:
        entries: of `annotation_entries`.
        splits: sources of images, by split.
        root: folder of the dataset.
        yaml: the data yaml, for messages.

    Raises:
        ConfigError: annotations for shards, which contain their labels.
    """
    files = {split: Path(os.path.normpath(root / expand_user(e))) for split, e in entries.items()}
    made = dict(splits)
    for split, file in files.items():
        if any(not isinstance(source, Path) for source in splits[split]):
            raise ConfigError(f"{yaml}: {KEY}: {split}: shards contain their labels; leave {file.name} out")
        others = [other for other in files if other != split and files[other] == file]
        elsewhere = tuple(source for other in others for source in splits[other])
        made[split] = [CocoImages(source, file, elsewhere=elsewhere) for source in splits[split]]
    return made


def names_of_annotations(splits: Mapping[str, list[Any]], yaml: Path, nc: Any = None) -> dict[int, str]:
    """Return the class names by number: the categories of the first annotations that exist.

    Args:
        splits: sources of `with_annotations`.
        yaml: the data yaml, for messages.
        nc: number of classes in the yaml, if it has one.

    Raises:
        ConfigError: no file exists, or `nc` is another number.
        DataError: not annotations of COCO.
    """
    from utils.data.coco_json import read_entries

    files = [source.file for split in SPLITS for source in splits[split] if isinstance(source, CocoImages)]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise MissingFileError(f"{yaml}: {KEY}: {files[0]}: no such file, and 'names:' is missing")
    names = dict(enumerate(read_entries(file).categories.values()))
    check_nc(nc, len(names), yaml, f"{file} has {{}} categories")
    return names


def with_names(sources: Sequence[Any], names: Mapping[int, str]) -> list[Any]:
    """Return sources of images, those with annotations with these class names."""
    texts = tuple(names.values())
    return [replace(each, names=texts) if isinstance(each, CocoImages) else each for each in sources]


def image_paths(sources: Sequence[Any]) -> list[Path]:
    """Return the folders and lists of images among sources, without their annotations and without shards."""
    paths = [source.images if isinstance(source, CocoImages) else source for source in sources]
    return [path for path in paths if isinstance(path, Path)]
