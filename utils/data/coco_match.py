"""Match image files and class names with the entries of COCO annotations."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from utils.base.errors import DataError
from utils.data.images import is_image


def match_images(paths: Sequence[str], names: Sequence[str], file: Path) -> list[int | None]:
    """Return for each image the index of its entry in the annotations, or None if there is none.

    An entry belongs to an image whose path ends with its name: `val/1.jpg` is `photos/val/1.jpg`. Where no
    name fits, suffixes are left out: `1` and `1.png` are `photos/1.jpg`, too.

    Args:
        paths: of the images.
        names: `file_name` of the entries, with slashes.
        file: the annotations, for messages.

    Raises:
        DataError: two entries have one name, or one entry fits two images.
    """
    table: dict[str, int] = {}
    for index, name in enumerate(names):
        if (first := table.setdefault(name, index)) != index:
            raise DataError(
                f"{file}: images[{index}].file_name: {name!r} is the name of images[{first}], too; "
                "write their folders into the names"
            )
    found = _match(paths, table, names, file)
    used = {index for index in found if index is not None}
    rest = [position for position, index in enumerate(found) if index is None]
    stems = [(_stem(name), index) for name, index in table.items() if index not in used]
    counts = Counter(stem for stem, _ in stems)
    table = {stem: index for stem, index in stems if counts[stem] == 1}
    by_stem = _match([_stem(paths[position]) for position in rest], table, names, file)
    for position, match in zip(rest, by_stem, strict=True):
        found[position] = match
    return found


def match_ids(paths: Iterable[str], ids: Sequence[int | str]) -> list[int | None]:
    """Return for each image the index of the id that its name is, such as 139 for 000000000139.jpg."""
    table = {str(number): index for index, number in enumerate(ids)}
    stems = [_stem(path).rpartition(os.sep)[2] for path in paths]
    return [table.get(stem.lstrip("0") or "0" if stem.isdecimal() else stem) for stem in stems]


def match_names(wanted: Sequence[str], offered: Sequence[str]) -> list[int | None]:
    """Return for each wanted name the index of the first offered one that agrees, or None.

    Upper and lower case and white space do not count where no name agrees to the letter.
    """
    exact, folded = _first_indices(offered), _first_indices([_fold(name) for name in offered])
    return [exact.get(name, folded.get(_fold(name))) for name in wanted]


def _first_indices(names: Sequence[str]) -> dict[str, int]:
    return {name: index for index, name in reversed(list(enumerate(names)))}


def _fold(name: str) -> str:
    return " ".join(name.casefold().split())


def _stem(path: str) -> str:
    return path.rpartition(".")[0] if is_image(path) else path


def _match(
    paths: Sequence[str], table: Mapping[str, int], names: Sequence[str], file: Path
) -> list[int | None]:
    """Return the index of the longest name in `table` that each path ends with."""
    lengths = sorted({name.count("/") + 1 for name in table}, reverse=True)
    found: list[int | None] = []
    for path in paths:
        parts = path.split(os.sep)  # noqa: PTH206 - faster than a Path
        ends = ("/".join(parts[-length:]) for length in lengths if length <= len(parts))
        found.append(next((table[end] for end in ends if end in table), None))
    fitting: defaultdict[int, list[int]] = defaultdict(list)
    for position, index in enumerate(found):
        if index is not None:
            fitting[index].append(position)
    for index, positions in fitting.items():
        if len(positions) > 1:
            name = f"images[{index}].file_name: {names[index]!r}"
            for position in _farther(paths, positions, f"{file}: {name}"):
                found[position] = None
    return found


def _farther(paths: Sequence[str], positions: Sequence[int], entry: str) -> list[int]:
    """Return the positions of all images that fit an entry but the one in the fewest folders."""
    ordered = sorted(positions, key=lambda position: paths[position].count(os.sep))
    first, second = (paths[position] for position in ordered[:2])
    if first.count(os.sep) == second.count(os.sep):
        raise DataError(f"{entry} fits {first} and {second}; write the folder into the name")
    return ordered[1:]
