"""The labels of images that COCO annotations list, for the scan of a dataset."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from utils.base.errors import DataError, MissingFileError
from utils.base.names import counted
from utils.base.paths import file_sha256
from utils.data.coco import CocoLabels, read_coco
from utils.data.coco_match import match_images, match_names
from utils.data.coco_source import CocoImages
from utils.data.image_lists import list_images
from utils.data.images import check_image
from utils.data.label_cache import BACKGROUND, CORRUPT, LINE_SKIPPED, UNLISTED, Note, Subject
from utils.data.labels import IMAGE_SKIPPED, SampleCheck, check_sample, parse_labels
from utils.data.packed import PackedPaths

ANNOTATION_SKIPPED = "the annotation is skipped"
_VERSION = 2  # of the reader: a cache of another version is not used
_SHOWN = 5  # names of missing images in a message
_LINE = re.compile(r"line (\d+)")


class ListedImage(NamedTuple):
    """What annotations say about an image."""

    text: str  # as in a label file
    keys: tuple[str, ...]  # the key of the annotation of each line
    errors: tuple[str, ...]  # one for each annotation that is not valid
    size_wh: tuple[int, int]  # pixels


@dataclass
class Listing:
    """The entries of images in annotations."""

    entries: list[ListedImage | None]  # per image; None: not listed
    notes: list[Note] = field(default_factory=list)  # about the annotations as a whole


def annotations_digest(sources: Sequence[CocoImages], boxes: bool) -> str:
    """Return a digest of what decides about the labels: the annotations, the classes, and boxes or polygons.

    Raises:
        MissingFileError: the annotations do not exist.
        DataError: they cannot be read.
    """
    try:
        file = file_sha256(sources[0].file)
    except FileNotFoundError as error:
        raise MissingFileError(f"annotations: {sources[0].file}: no such file") from error
    except OSError as error:
        raise DataError(f"{sources[0].file}: {error.strerror or error}") from error
    return hashlib.sha256(repr((_VERSION, file, sources[0].names, boxes)).encode()).hexdigest()


def listed_cache_path(sources: Sequence[CocoImages], boxes: bool) -> Path:
    """Return the path of the cache: beside the annotations, with a name of its own for each split."""
    kind = "boxes" if boxes else "polygons"
    text = "\n".join(str(source.images) for source in sources)
    tag = hashlib.sha256(f"{kind}\n{text}".encode("utf-8", "surrogateescape")).hexdigest()[:8]
    file = sources[0].file
    return file.with_name(f"{file.stem}-{tag}.cache.npz")


def read_listing(
    sources: Sequence[CocoImages], images: PackedPaths, boxes: bool, root: Path | None = None
) -> Listing:
    """Read the entries of images in the annotations of their sources.

    Args:
        sources: of one split, with the same annotations.
        images: all images of the sources.
        boxes: make boxes, also of objects with a polygon or mask.
        root: folder of the dataset, see `list_images`.

    Raises:
        ConfigError: the annotations do not exist.
        DataError: they are not valid as a whole, or list none of the images.
    """
    file, names = sources[0].file, sources[0].names
    found = read_coco(file, boxes=boxes, names=names, strict=False)
    ids, paths = list(found.images), [images.root + images.relative_path(i) for i in range(len(images))]
    listed = [image.name for image in found.images.values()]
    matched = match_images(paths, listed, file)
    folders = ", ".join(str(source.images) for source in sources)
    if all(index is None for index in matched):
        raise DataError(
            f"{file}: none of its {len(listed)} images is among the {len(paths)} images of {folders}, "
            f"first: {listed[0]!r}" if listed else f"{file}: images: is empty"
        )  # fmt: skip
    notes = [*_describe_missing(sources, listed, matched, folders, root), *found.describe_skipped().values()]
    unlisted = [path for path, index in zip(paths, matched, strict=True) if index is None]
    if unlisted:
        notes.append(
            f"does not list {counted(len(unlisted), 'image')} of {folders}; left out, first: {unlisted[0]}"
        )
    notes += _describe_absent(found.categories, names)
    entries = [None if index is None else _entry(found, ids[index]) for index in matched]
    return Listing(entries, [Note(0, Subject.FILE, note) for note in notes])


def check_listed(path: str, entry: ListedImage | None, file: Path) -> SampleCheck:
    """Check an image and its entry in the annotations `file`."""
    if entry is None:
        return SampleCheck(UNLISTED)
    check = check_sample(path, lambda: check_image(path), lambda: entry.text)
    if check.status == CORRUPT and not any(subject == Subject.LINE for subject, _ in check.notes):
        return check
    notes = [(subject, _with_key(text, entry.keys)) for subject, text in check.notes]
    notes += [(Subject.LINE, f"{error}; {ANNOTATION_SKIPPED}") for error in entry.errors]
    if check.status != CORRUPT and check.size != entry.size_wh:
        (width, height), listed = check.size, "x".join(map(str, entry.size_wh))
        notes.append(
            (Subject.LABELS, f"{width}x{height} pixels, but {file.name} lists {listed}: labels may not fit")
        )
    if entry.errors and check.status == BACKGROUND:
        # As for label files: background would teach the model that the image is empty.
        notes.append((Subject.LABELS, f"no valid annotation is left; {IMAGE_SKIPPED}"))
        return SampleCheck(CORRUPT, notes=notes)
    return SampleCheck(check.status, check.size, check.labels, notes)


def drop_refused(lines: Sequence[str], keys: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the lines that training takes from a label file, and a note with its key for each other one."""
    errors = parse_labels("".join(lines)).errors
    refused = {int(found[1]) - 1 for error in errors if (found := _LINE.match(error))}
    return (
        [line for index, line in enumerate(lines) if index not in refused],
        [_with_key(error, keys) for error in errors],
    )


def _with_key(text: str, keys: Sequence[str]) -> str:
    """Return a note about a line with the key of its annotation."""
    found = _LINE.match(text)
    if found is None:
        return text
    text = text.replace(LINE_SKIPPED, ANNOTATION_SKIPPED)
    return f"{keys[int(found[1]) - 1]}{text[found.end() :]}"


def _entry(found: CocoLabels, image_id: int | str) -> ListedImage:
    image = found.images[image_id]
    return ListedImage(
        "".join(found.lines.get(image_id, ())),
        tuple(found.keys.get(image_id, ())),
        tuple(found.errors.get(image_id, ())),
        (image.width, image.height),
    )


def _describe_missing(
    sources: Sequence[CocoImages],
    listed: Sequence[str],
    matched: Sequence[int | None],
    folders: str,
    root: Path | None,
) -> list[str]:
    """Return a line about images that the annotations list and that no split has."""
    missing = sorted(set(range(len(listed))).difference(index for index in matched if index is not None))
    elsewhere = [path for path in sources[0].elsewhere if path.exists()]
    if missing and elsewhere:
        others = [str(path) for path in list_images(elsewhere, root)]
        used = set(match_images(others, [listed[index] for index in missing], sources[0].file))
        missing = [index for position, index in enumerate(missing) if position not in used]
    if not missing:
        return []
    names = ", ".join(listed[index] for index in missing[:_SHOWN])
    names += ", ..." if len(missing) > _SHOWN else ""
    also = " or another split" if sources[0].elsewhere else ""
    return [f"{len(missing)} of {len(listed)} listed images are not in {folders}{also}: {names}"]


def _describe_absent(categories: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return a line about classes that are none of the categories."""
    found = match_names(names, categories)
    absent = [name for name, index in zip(names, found, strict=True) if index is None]
    return [f"has no category for {len(absent)} of the names: {', '.join(absent[:_SHOWN])}"] if absent else []
