"""Convert annotations of COCO to YOLO: label files, or a dataset with images and a data yaml."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from utils.base.errors import ConfigError, DataError, MissingFileError
from utils.base.log import LOG, Bar
from utils.base.names import class_names, counted
from utils.base.paths import relative_to_cwd
from utils.base.yaml_io import read_yaml, write_yaml
from utils.data.coco import CROWD, CocoImage, CocoLabels, read_coco
from utils.data.coco_json import read_entries
from utils.data.coco_scan import drop_refused, read_listing
from utils.data.coco_source import KEY, CocoImages
from utils.data.dataset_yaml import DataSpec
from utils.data.image_lists import label_path, list_images
from utils.data.images import image_size
from utils.data.labels import BOX_VALUES

SPLITS = ("train", "val", "test")
YAML = "data.yaml"


class _Files(NamedTuple):
    """An image that is converted, and its files."""

    image: CocoImage
    source: Path
    target: Path
    labels: Path
    lines: list[str]


def convert_coco(
    annotations: Path,
    images: Path,
    output: Path,
    *,
    split: str = "train",
    boxes: bool = False,
    link: bool = False,
    exist_ok: bool = False,
) -> Path:
    """Write images/SPLIT, labels/SPLIT and data.yaml below `output`; return the yaml.

    Everything is checked before the first file is written. A data.yaml that exists gets the split added.

    Args:
        annotations: instance annotations of COCO, a JSON file.
        images: folder that the `file_name` of an image is relative to.
        output: folder of the dataset.
        split: train, val or test.
        boxes: write boxes, also of objects with a polygon or mask.
        link: make symbolic links to the images instead of copies.
        exist_ok: replace label files and images of `output`.

    Raises:
        ConfigError: a file or folder does not exist, files would be replaced, or the data.yaml has other
            classes or annotations.
        DataError: the annotations are not valid, or a file cannot be read or written.
    """
    if not images.is_dir():
        raise MissingFileError(f"--images {images}: no such folder")
    found = read_coco(annotations, boxes=boxes)
    output = Path(os.path.abspath(output))
    yaml = output / YAML
    content = _yaml_content(yaml, split, found.names, annotations)
    if KEY in content:
        raise ConfigError(f"{yaml}: {KEY}: label files would not be used; choose another --output")
    lines = [(found.lines.get(number, []), found.keys.get(number, [])) for number in found.images]
    files = _list_files(found, _drop_refused(annotations, lines), images, output, split)
    _check_sources(annotations, images, files)
    _check_targets(annotations, files, exist_ok)
    _write_all({split: files}, link, yaml, content)
    _log_summary(annotations, found, files, yaml, content)
    return yaml


def convert_data(
    data: DataSpec,
    output: Path | None = None,
    *,
    boxes: bool = False,
    link: bool = False,
    exist_ok: bool = False,
) -> None:
    """Convert the splits of a data yaml with `annotations:`; everything is checked before a file is written.

    Args:
        data: the dataset.
        output: folder of a new dataset; None: write label files only, where training looks for them.
        boxes: write boxes, also of objects with a polygon or mask.
        link: make symbolic links to the images instead of copies.
        exist_ok: replace label files, images and a data.yaml that exist.

    Raises:
        ConfigError: the yaml has no annotations, or files would be replaced.
        DataError: the annotations are not valid, or a file cannot be read or written.
    """
    splits = {split: [s for s in getattr(data, split) if isinstance(s, CocoImages)] for split in SPLITS}
    splits = {split: sources for split, sources in splits.items() if sources}
    if not splits:
        raise ConfigError(f"{data.yaml}: has no annotations: of COCO, so there is nothing to convert")
    yaml = None if output is None else Path(os.path.abspath(output)) / YAML
    if yaml is not None and os.path.lexists(yaml) and not exist_ok:
        itself = yaml.exists() and yaml.samefile(data.yaml)
        hint = "leave --output out to write the label files beside the images, or give another folder"
        raise ConfigError(
            f"{yaml}: exists already; {hint if itself else 'give another --output'}, or --exist-ok"
        )
    files: dict[str, list[_Files]] = {}
    rest: dict[str, Any] = {}
    content: dict[str, Any] = {"path": "."}
    for split, sources in splits.items():
        files[split] = _match_files(sources, yaml.parent if yaml else None, split, boxes, data.root)
        _check_targets(sources[0].file, files[split], exist_ok)
        if yaml is not None:
            added = _yaml_content(yaml, split, data.names, sources[0].file)
            content |= {key: added[key] for key in SPLITS if key in added}
            rest = {key: value for key, value in added.items() if key not in (*content, KEY)}
    _write_all(files, link, yaml, content | rest)
    count = sum(len(listed) for listed in files.values())
    train = f"train with --data {relative_to_cwd(yaml)}" if yaml else _without_annotations(data)
    LOG.info(f"{counted(count, 'label file')} of {', '.join(files)} written; {train}")


def _without_annotations(data: DataSpec) -> str:
    """Return what to change in a data yaml, so that label files are used."""
    names = "" if data.raw.get("names") else f", and add names: {list(data.names.values())}"
    return f"to train on them, remove {KEY}: from {relative_to_cwd(data.yaml)}{names}"


def convert_in_place(annotations: Path, images: Path, *, boxes: bool = False, exist_ok: bool = False) -> None:
    """Write a label file for each image of a folder that the annotations list.

    Args:
        annotations: instance annotations of COCO, a JSON file.
        images: folder of the images.
        boxes: write boxes, also of objects with a polygon or mask.
        exist_ok: replace label files that exist.

    Raises:
        ConfigError: a file or folder does not exist, or files would be replaced.
        DataError: the annotations are not valid, or a file cannot be read or written.
    """
    if not images.is_dir():
        raise MissingFileError(f"--images {images}: no such folder")
    files = _match_files([CocoImages(images.absolute(), annotations)], None, "", boxes)
    _check_targets(annotations, files, exist_ok)
    _write_all({"images": files}, False, None, {})
    names = list(read_entries(annotations).categories.values())
    LOG.info(f"{counted(len(files), 'label file')} written to {files[0].labels.parent}; names: {names}")


def _match_files(
    sources: Sequence[CocoImages], output: Path | None, split: str, boxes: bool, root: Path | None = None
) -> list[_Files]:
    """Return the images of a split that its annotations list; their targets are in `output` if it is given.

    Raises:
        DataError: an annotation is not valid.
    """
    file = sources[0].file
    images = list_images([source.images for source in sources], root)
    listing = read_listing(sources, images, boxes, root)
    for note in listing.notes:
        LOG.warning(f"{file}: {note.text}")
    backgrounds = listing.entries.count(None)
    if backgrounds and output is None:
        without = f"without a label file: {counted(backgrounds, 'image')}"
        LOG.warning(f"{file}: {without}; training takes such images for backgrounds")
    kept = iter(
        _drop_refused(file, [(one.text.splitlines(True), one.keys) for one in listing.entries if one])
    )
    made = []
    for index, entry in enumerate(listing.entries):
        if entry is None:
            continue
        if entry.errors:
            raise DataError(f"{file}: {entry.errors[0]}")
        source, relative = images[index], images.relative_path(index)
        target = source
        if output is not None:
            parts = [part for part in Path(relative).parts if part not in ("images", os.sep)]
            target = output.joinpath("images", split, *parts)
        image = CocoImage(relative, *entry.size_wh)
        made.append(_Files(image, source, target, label_path(target), next(kept)))
    return made


def _drop_refused(file: Path, listed: Sequence[tuple[list[str], Sequence[str]]]) -> list[list[str]]:
    """Return the lines of each image that training takes from a label file; log how many it would refuse.

    Args:
        file: the annotations.
        listed: lines of each image, and the key of each line.
    """
    parts = [drop_refused(*each) for each in listed]
    refused = [note for _, notes in parts for note in notes]
    if refused:
        LOG.warning(f"{file}: left out: {counted(len(refused), 'annotation')}, first: {refused[0]}")
    if emptied := sum(bool(notes) and not lines for lines, notes in parts):
        without = f"without a valid annotation: {counted(emptied, 'image')}"
        LOG.warning(f"{file}: {without}; training takes such images for backgrounds")
    return [lines for lines, _ in parts]


def _write_all(
    files: Mapping[str, Sequence[_Files]], link: bool, yaml: Path | None, content: dict[str, Any]
) -> None:
    """Write the files of all splits, and the data yaml if there is one."""
    try:
        for split, listed in files.items():
            for one in Bar(listed, f"{split}: {counted(len(listed), 'image')}"):
                _write(one, link)
        if yaml is not None:
            write_yaml(yaml, content)
    except OSError as error:
        raise DataError(f"{error.filename or yaml}: {error.strerror or error}") from error


def _list_files(
    found: CocoLabels, kept: Sequence[list[str]], folder: Path, output: Path, split: str
) -> list[_Files]:
    listed = []
    for image, lines in zip(found.images.values(), kept, strict=True):
        # The label file is found by replacing the last folder `images` of the path.
        parts = [part for part in PurePosixPath(image.name).parts if part != "images"]
        target = output.joinpath("images", split, *parts)
        listed.append(_Files(image, folder / image.name, target, label_path(target), lines))
    return listed


def _yaml_content(yaml: Path, split: str, names: dict[int, str], annotations: Path) -> dict[str, Any]:
    """Return the content of the data yaml with the split added.

    Raises:
        ConfigError: the yaml exists and describes another dataset.
    """
    content = read_yaml(yaml) if yaml.exists() else {}
    if not content.get("names"):
        content["names"] = names
    try:
        known = class_names(content.get("names"))
    except ValueError as error:
        raise ConfigError(f"{yaml}: {error}") from error
    if known != names:
        numbers = sorted(known.keys() | names.keys())
        index = next(number for number in numbers if known.get(number) != names.get(number))
        old, new = (some.get(index, "not there") for some in (known, names))
        raise ConfigError(
            f"{yaml}: names: class {index} is {old}, but {new} in the categories of {annotations}; "
            "choose another --output"
        )
    if not _is_folder_of(yaml, content.get("path")):
        raise ConfigError(
            f"{yaml}: path: describes another folder, {content['path']}; choose another --output"
        )
    splits = {key: content[key] for key in SPLITS if key in content} | {split: f"images/{split}"}
    rest = {key: value for key, value in content.items() if key not in (*SPLITS, "path")}
    return {"path": ".", **{key: splits[key] for key in SPLITS if key in splits}, **rest}


def _is_folder_of(yaml: Path, path: Any) -> bool:
    """Return whether the `path:` of a yaml is its own folder."""
    return path is None or (
        isinstance(path, str) and os.path.realpath(yaml.parent / path) == os.path.realpath(yaml.parent)
    )


def _check_sources(annotations: Path, folder: Path, files: Sequence[_Files]) -> None:
    """Raise DataError for images that do not exist; warn of images of another size than listed."""
    missing = [one.image.name for one in files if not one.source.is_file()]
    if missing:
        raise DataError(
            f"{annotations}: {len(missing)} of {len(files)} images are not in {folder}, first: {missing[0]}"
        )
    others = []
    for one in files:
        try:
            width, height = image_size(one.source)
        except DataError:  # training names and skips the image
            continue
        if (width, height) != (one.image.width, one.image.height):
            others.append(
                f"{one.image.name} has {width}x{height}, listed are {one.image.width}x{one.image.height}"
            )
    if others:
        LOG.warning(
            f"{annotations}: {len(others)} images have another size than listed, so that their labels may "
            f"not fit; first: {others[0]}"
        )


def _check_targets(annotations: Path, files: Sequence[_Files], exist_ok: bool) -> None:
    """Raise an error if two images have the same label file, or if files would be replaced."""
    taken: dict[Path, str] = {}
    for one in files:
        if one.labels in taken:
            raise DataError(
                f"{annotations}: images: {taken[one.labels]} and {one.image.name} have the same label file"
            )
        taken[one.labels] = one.image.name
        exists = [path for path in (one.labels, one.target) if os.path.lexists(path)]
        if one.target in exists and _is_in_place(one):
            exists.remove(one.target)
        if exists and not exist_ok:
            raise ConfigError(f"{exists[0]}: exists already; give another --output, or --exist-ok")


def _is_in_place(one: _Files) -> bool:
    """Return whether the target is the source itself."""
    if one.target == one.source:
        return True
    return not one.target.is_symlink() and one.target.exists() and one.target.samefile(one.source)


def _write(one: _Files, link: bool) -> None:
    """Write the label file of an image, and copy the image or link to it."""
    if not _is_in_place(one):
        _make_room(one.target)
        if link:
            one.target.symlink_to(os.path.abspath(one.source))
        else:
            shutil.copyfile(one.source, one.target)
    _make_room(one.labels)
    one.labels.write_text("".join(one.lines), encoding="utf-8")


def _make_room(path: Path) -> None:
    """Create the folder of a file, and remove the file: nothing is written through an old link."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)


def _log_summary(
    annotations: Path, found: CocoLabels, files: Sequence[_Files], yaml: Path, content: Mapping[str, Any]
) -> None:
    """Log what was left out, what was written, and what to do next."""
    for reason, text in found.describe_skipped().items():
        log = LOG.info if reason == CROWD else LOG.warning
        log(f"{annotations}: {text}")
    path = relative_to_cwd(yaml)
    is_box = [len(line.split()) == BOX_VALUES for one in files for line in one.lines]
    shapes = f"{counted(is_box.count(False), 'polygon')} and {is_box.count(True)} boxes"
    LOG.info(f"{path}: {shapes} of {len(found.names)} classes")
    missing = next((split for split in ("train", "val") if split not in content), None)
    if missing:
        LOG.info(
            f"{path} has no {missing}: yet; convert another file into this folder with --split {missing}"
        )
    else:
        LOG.info(f"train with --data {path}")
