"""Read a data yaml: the images of each split, and the class names."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from utils.base.download import MAX_BYTES, download_file
from utils.base.errors import ConfigError, DataError, MissingFileError, one_line
from utils.base.inputs import expand_user, split_url
from utils.base.limits import YAML
from utils.base.log import LOG
from utils.base.names import check_nc, class_names
from utils.base.paths import cache_folder, find_file, output_root, path_hints, relative_to_cwd
from utils.base.yaml_io import read_yaml
from utils.data.coco_source import annotation_entries, names_of_annotations, with_annotations, with_names
from utils.data.download import (
    ARCHIVE_SUFFIXES,
    Download,
    download_data,
    is_archive,
    parse_downloads,
    unpack_archive,
)
from utils.data.shards.urls import ImageSource, is_shards, is_url, list_shards

YAML_SUFFIXES = (".yaml", ".yml")
_DATASETS_DIR = "YOLOv5_DATASETS_DIR"
_COCO_VAL = "coco/val2017.txt"  # its class numbers differ from those of the official annotations


@dataclass
class DataSpec:
    """A dataset as its yaml describes it; its splits are folders, lists of images, or shards."""

    yaml: Path
    root: Path
    train: list[ImageSource]
    val: list[ImageSource]
    test: list[ImageSource]  # may be empty
    names: dict[int, str]
    nc: int
    is_coco: bool
    download: list[Download]
    raw: dict[str, Any]  # content of the yaml


def read_data_yaml(name: str | Path, *, allow_download: bool = False) -> DataSpec:
    """Read a data yaml and make sure that its validation images exist.

    A relative `path` (or split, if there is no `path`) is resolved against the yaml's folder, the project
    root and the current folder; the first one that contains images is used, and logged.

    Args:
        name: path, bare name or URL of the yaml, or an archive with images and a yaml.
        allow_download: download missing images without asking.

    Raises:
        ConfigError: the yaml does not exist or is invalid, or a download is not allowed.
        DataError: the images do not exist.
    """
    yaml, raw = _open(name)
    annotations = annotation_entries(raw, yaml)
    names = {} if annotations and not raw.get("names") else _read_names(raw, yaml)
    splits = {split: _read_split(raw, split, yaml) for split in ("train", "val", "test")}
    try:
        root = _find_root(raw, splits, yaml)
    except OSError as error:  # a name that is too long, for example
        raise ConfigError(f"{yaml}: path, train or val: {error.strerror or error}") from error
    if "generate" in raw:
        _generate(raw, root, yaml)
    elif _missing(root, splits["val"]):
        _download(raw, root, splits["val"], yaml, allow_download)
    sources = {split: [_resolve(root, entry) for entry in entries] for split, entries in splits.items()}
    is_coco = any(isinstance(path, Path) and path.as_posix().endswith(_COCO_VAL) for path in sources["val"])
    if annotations:
        sources = with_annotations(annotations, sources, root, yaml)
        names = names or names_of_annotations(sources, yaml, raw.get("nc"))
    train, val, test = (with_names(each, names) for each in sources.values())
    LOG.info(f"data: {relative_to_cwd(yaml)}, images in {root}")
    return DataSpec(
        yaml=yaml,
        root=root,
        train=train,
        val=val,
        test=test,
        names=names,
        nc=len(names),
        is_coco=is_coco,
        download=_downloads_or_none(raw, yaml),
        raw=raw,
    )


def datasets_dir() -> Path:
    """Return the folder of downloaded datasets: $YOLOv5_DATASETS_DIR, else `datasets` beside the project."""
    chosen = os.environ.get(_DATASETS_DIR)
    return expand_user(chosen) if chosen else output_root().parent / "datasets"


def _open(name: str | Path) -> tuple[Path, dict[str, Any]]:
    """Return the path and content of a yaml; download it or unpack its archive if needed."""
    text = str(name)
    if text.lower().startswith(("http://", "https://")):
        return _open(_download_yaml(text))
    if not is_archive(text):
        yaml = find_file(name, ("data",), YAML_SUFFIXES, "--data").absolute()
        return yaml, read_yaml(yaml)
    archive = expand_user(name)
    if not archive.is_file():
        raise MissingFileError(f"--data {name}: no such file")
    folder = datasets_dir() / archive.name[: archive.name.index(".")]
    if not folder.is_dir() or folder.stat().st_mtime < archive.stat().st_mtime:
        LOG.info(f"Unpacking {archive} into {folder}")
        unpack_archive(archive, folder)
    yamls = [path for suffix in YAML_SUFFIXES for path in folder.rglob(f"*{suffix}")]
    if not yamls:
        raise ConfigError(f"--data {name}: contains no .yaml that describes the images")
    yaml = min(yamls, key=lambda path: (len(path.parts), path))
    raw = read_yaml(yaml)
    raw.pop("download", None)
    return yaml, {**raw, "path": str(yaml.parent)}


def _download_yaml(url: str) -> Path:
    """Download a yaml or archive into a folder of its URL: a local file of that name is another one.

    What an earlier run downloaded is used where the URL cannot be reached.
    """
    name = PurePosixPath(unquote(split_url(url).path)).name
    if not name.lower().endswith((*YAML_SUFFIXES, *ARCHIVE_SUFFIXES)):
        raise ConfigError(f"--data {url}: expected the URL of a yaml or an archive")
    folder = cache_folder() / "data" / hashlib.sha256(url.encode()).hexdigest()[:16]
    limit = MAX_BYTES if is_archive(name) else YAML.value
    try:
        return download_file(url, folder / name, limit=limit, always=True)
    except DataError as error:
        if not (folder / name).is_file():
            raise
        LOG.warning(f"{one_line(error)}; using what was downloaded before, {folder / name}")
        return folder / name


def _read_names(raw: dict[str, Any], yaml: Path) -> dict[int, str]:
    """Return class names by number, from 0."""
    names = raw.get("names")
    if not names:
        raise ConfigError(f"{yaml}: 'names:' is missing; list the class names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict):
        raise ConfigError(f"{yaml}: names: expected a list or 'number: name' lines, found {names!r}")
    keys = {
        key: int(key) for key in names if isinstance(key, int) or (isinstance(key, str) and key.isdecimal())
    }
    if sorted(keys.values()) != list(range(len(names))):
        found = ", ".join(map(str, list(names)[:5]))
        raise ConfigError(f"{yaml}: names: classes are numbered 0 to {len(names) - 1}, found {found}, ...")
    for key, name in names.items():
        if not isinstance(name, str) or not name.strip():
            found = "has no name" if name in (None, "") else f"is {name!r}"
            raise ConfigError(f"{yaml}: names: class {key} {found}; expected text, such as {key}: cat")
    check_nc(raw.get("nc"), len(names), yaml)
    return dict(sorted(class_names(names).items()))


def _read_split(raw: dict[str, Any], split: str, yaml: Path) -> list[str]:
    value = raw.get(split)
    if value is None or value == "" or value == []:
        if split == "test":
            return []
        raise ConfigError(f"{yaml}: '{split}:' is missing; give a folder or a list of images")
    entries = value if isinstance(value, list) else [value]
    if not all(isinstance(entry, str) and entry for entry in entries):
        raise ConfigError(
            f"{yaml}: {split}: expected a folder, a .txt list, shards, or several of them, found {value!r}"
        )
    try:
        for entry in entries:
            _resolve(yaml.parent, entry)
    except ConfigError as error:
        raise ConfigError(f"{yaml}: {split}: {error}") from error
    return entries


def _find_root(raw: dict[str, Any], splits: dict[str, list[str]], yaml: Path) -> Path:
    """Return the folder that splits are relative to; it may not exist yet."""
    roots = list(_roots(raw, yaml))
    for split in ("val", "train"):
        for root in roots:
            if any(_resolve(root, entry).exists() for entry in splits[split] if not is_url(entry)):
                return root
    if not raw.get("path") or len(roots) == 1:
        return roots[0]
    return roots[-1] if _DATASETS_DIR in os.environ else roots[1]


def _roots(raw: dict[str, Any], yaml: Path) -> Iterator[Path]:
    """Yield the folders that `path` may stand for, in the order in which they are tried."""
    path = raw.get("path") or ""
    if not isinstance(path, str):
        raise ConfigError(f"{yaml}: path: expected a folder, found {path!r}")
    given = expand_user(path)
    if given.is_absolute():
        yield given
        return
    for base in (yaml.parent, output_root(), Path.cwd()):
        yield Path(os.path.normpath(base / given))
    if path and _DATASETS_DIR in os.environ:
        yield datasets_dir() / given.name


def _resolve(root: Path, entry: str) -> ImageSource:
    """Return the path or shards of an entry; some exports write `../train` for a folder beside the yaml."""
    if is_shards(entry):
        return list_shards(entry, root)
    if is_url(entry):
        raise ConfigError(f"{entry}: only shards (.tar) are read from a URL; images have to be on a disk")
    path = Path(os.path.normpath(root / expand_user(entry)))
    if entry.startswith("../") and not path.exists() and (beside := root / entry[3:]).exists():
        return beside
    return path


def _missing(root: Path, entries: list[str]) -> list[ImageSource]:
    return [source for entry in entries if not (source := _resolve(root, entry)).exists()]


def _generate(raw: Mapping[str, Any], root: Path, yaml: Path) -> None:
    """Draw the images of `generate:`, unless they exist.

    Raises:
        ConfigError: it is none of the drawn datasets, or `distance:` is not possible.
    """
    what = raw["generate"]
    if what in ("shapes", "shapes-seg"):
        from utils.data.shapes import make_shapes

        make_shapes(root, polygons=what == "shapes-seg")
    elif what == "context":
        from utils.data.context import DISTANCE, FARTHEST, make_context

        distance = raw.get("distance", DISTANCE)
        if type(distance) is not int or not 0 <= distance <= FARTHEST:
            raise ConfigError(f"{yaml}: distance: {distance!r}, expected 0 to {FARTHEST} pixels")
        make_context(root, distance)
    else:
        raise ConfigError(f"{yaml}: generate: expected shapes, shapes-seg or context, found {what!r}")


def _download(raw: dict[str, Any], root: Path, val: list[str], yaml: Path, allowed: bool) -> None:
    """Download the images, if the yaml names downloads; raise DataError if they are still missing."""
    downloads = parse_downloads(raw.get("download"), str(yaml))
    if downloads:
        download_data(downloads, root, allowed=allowed, name=yaml.name)
    if missing := _missing(root, val):
        tried = dict.fromkeys(str(one) for base in _roots(raw, yaml) for one in _missing(base, val)[:1])
        looked = f"; looked for {', '.join(tried)}" if len(tried) > 1 else ""
        hints = path_hints(Path(str(missing[0])))
        raise DataError(f"{yaml}: val: {missing[0]} does not exist{looked}{hints}")


def _downloads_or_none(raw: dict[str, Any], yaml: Path) -> list[Download]:
    """Return the downloads; scripts of older yamls are ignored, as the images exist already."""
    try:
        return parse_downloads(raw.get("download"), str(yaml))
    except ConfigError:
        return []
