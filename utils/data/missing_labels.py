"""Explain why no label file of a dataset was found: what was tried first, what is there, what to change."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from utils.base.paths import same_but_case
from utils.data.image_lists import label_path
from utils.data.images import IMAGE_SUFFIXES

MAX_FILES = 100_000  # files of the dataset that are searched for labels
_MOST_JSON = 20  # JSON files that are opened to recognise annotations of COCO
_TRIED = 200  # images whose names are searched for
_OTHER_FORMATS = {
    ".xml": "annotations of Pascal VOC, which LabelImg writes",
    ".json": "annotations in JSON, which LabelMe and COCO use",
    ".csv": "annotations in a table",
}
_EXPORT = "export them again as YOLO (.txt) from the labelling tool"
_COCO = "name it as `annotations:` in the data yaml, or convert it: python -m utils.data convert"


def explain_missing_labels(images: Sequence[Path], root: Path | None = None) -> str:
    """Return why no image has labels, and what to change, in one sentence without a full stop.

    Args:
        images: of the split, none of which has labels; at least one.
        root: folder of the dataset, which is searched as well.
    """
    existing = sum(label_path(image).exists() for image in images)
    if existing:
        return f"{existing} of {len(images)} images have a label file, all of which are empty"
    expected = label_path(images[0])
    return find_missing_labels(images, root) or f"{_tried(expected)}; {_describe_folder(expected)}"


def find_missing_labels(images: Sequence[Path], root: Path | None = None) -> str:
    """Return where the label files of images seem to be, and what to change; empty if none is found.

    Args:
        images: that have no label files; at least one.
        root: folder of the dataset, which is searched as well.
    """
    first = images[0]
    expected = label_path(first)
    found = _explain_position(first, expected) or _explain_other_files(images, expected, _top(first, root))
    return f"{_tried(expected)}; {found}" if found else ""


def _tried(expected: Path) -> str:
    return f"the first file looked for was {expected}"


def _top(image: Path, root: Path | None) -> Path:
    """Return the folder to search: that of the dataset, or the one that holds `images`."""
    if root is not None and image.is_relative_to(root):
        return root
    parents = image.parents
    above = next((folder.parent for folder in parents if folder.name.lower() in ("images", "image")), None)
    return above or image.parent


def _explain_position(image: Path, expected: Path) -> str:
    """Explain labels that are where other programs look for them, or whose names differ in case only."""
    if (same := same_but_case(expected)) is not None:
        return f"found {same}: names are case-sensitive, so rename it to {expected}"
    beside = image.with_suffix(".txt")
    if beside != expected and beside.is_file():
        return f"found {beside}: labels of images in `images` are read from `labels`, so move it there"
    for index, part in enumerate(image.parts[:-1]):
        if part != "images" and part.lower() in ("images", "image"):
            renamed = label_path(Path(*image.parts[:index], "images", *image.parts[index + 1 :]))
            if (same := same_but_case(renamed)) is not None or renamed.is_file():
                return (
                    f"found {same or renamed}: only a folder named `images` has its labels in `labels`, so "
                    f"rename {Path(*image.parts[: index + 1])} to images"
                    + (" and the folder of the labels to labels" if same else "")
                )
    return ""


def _explain_other_files(images: Sequence[Path], expected: Path, top: Path) -> str:
    """Explain files elsewhere below the dataset that have the names of images, or that are for all images."""
    stems = {image.stem.lower() for image in images[:_TRIED]}
    for_all, opened = "", 0
    for path in _files_below(top):
        suffix, stem = path.suffix.lower(), path.stem.lower()
        if suffix == ".txt" and stem in stems and not _has_image(path):
            return f"found {path}: move the label files to {expected.parent}"
        if suffix == ".txt" and "-" in stem and stem.partition("-")[2] in stems:
            image = stem.partition("-")[2]
            return (
                f"found {path}, as Label Studio writes it: remove the code before the name of the image "
                f"({image}.txt), and put the files into {expected.parent}"
            )
        if suffix in _OTHER_FORMATS and stem in stems:
            return f"found {path}, {_OTHER_FORMATS[suffix]}: {_EXPORT}, into {expected.parent}"
        if suffix == ".json" and not for_all and (opened := opened + 1) <= _MOST_JSON and _is_coco(path):
            for_all = f"found {path}, annotations of COCO: {_COCO}"
    return for_all


def _has_image(labels: Path) -> bool:
    """Return whether a label file belongs to an image of another split."""
    before, found, after = str(labels).rpartition(f"{os.sep}labels{os.sep}")
    image = Path(f"{before}{os.sep}images{os.sep}{after}" if found else labels)
    return any(image.with_suffix(suffix).exists() for suffix in IMAGE_SUFFIXES)


def _is_coco(path: Path) -> bool:
    """Return whether a JSON file may be annotations of COCO: two of their keys are near its ends."""
    try:
        with path.open("rb") as file:
            start = file.read(20_000)
            file.seek(max(path.stat().st_size - 20_000, 0))
            text = start + file.read()
    except OSError:
        return False
    return sum(key in text for key in (b'"images"', b'"annotations"', b'"categories"')) >= 2


def _files_below(top: Path) -> Iterator[Path]:
    """Yield at most `MAX_FILES` files below a folder, those of hidden folders left out."""
    count = 0
    for folder, folders, names in os.walk(top):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            yield Path(folder, name)
            count += 1
            if count == MAX_FILES:
                return


def _describe_folder(expected: Path) -> str:
    """Describe the folder where the labels should be."""
    folder = expected.parent
    try:
        names = sorted(item.name for item in folder.iterdir() if item.suffix == ".txt")
    except OSError:
        return f"the folder {folder} does not exist; it should hold one .txt for each image"
    if names:
        return f"the {len(names)} .txt files of {folder} have other names than the images, first: {names[0]}"
    return f"{folder} has no .txt files; it should hold one for each image"
