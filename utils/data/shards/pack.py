"""Pack the images and label files of a dataset into shards, byte for byte."""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from utils.base.errors import ConfigError, DataError
from utils.base.log import LOG, Bar
from utils.base.names import UniqueNames
from utils.base.paths import atomic_write, relative_to_cwd
from utils.base.seeds import generator
from utils.base.yaml_io import write_yaml
from utils.data.class_folders import load_split
from utils.data.coco_source import CocoImages
from utils.data.dataset_yaml import DataSpec
from utils.data.image_lists import label_path
from utils.data.packed import PackedImages, PackedPaths
from utils.data.scan import load_labels
from utils.data.shards.index import make_index
from utils.data.shards.store import shard_info

_STREAM = 7951  # stream of random numbers for the order of the training images
_Sample = tuple[str, Path, str | None]  # name in the shard, image, label text if it is not in a file
_RESERVED = re.compile(r"[.\s{}*\\]")  # characters with a meaning in shards: what follows a dot is the type


def pack_dataset(
    data: DataSpec, output: Path, *, per_shard: int = 1000, seed: int | None = 0, exist_ok: bool = False
) -> Path:
    """Write `train-0000.tar`, ... with their indices, and a yaml that names them; return the yaml.

    Args:
        data: the dataset.
        output: folder of the shards.
        per_shard: images per shard.
        seed: seed of the order of the training images, which are shuffled once because training mixes
            only neighbouring images; None keeps their order. Other splits keep theirs.
        exist_ok: write into a folder that contains shards.

    Raises:
        ConfigError: the folder contains shards already.
        DataError: images that cannot be read, or a folder that cannot be written.
    """
    target = output / (data.yaml.name if data.yaml.suffix else f"{data.yaml.name}.yaml")
    try:
        if target.resolve() == data.yaml.resolve():
            raise ConfigError(f"--output {output}: is the folder of {target.name} itself; choose another one")
        output.mkdir(parents=True, exist_ok=True)
        old = [*output.glob("*.tar"), *([target] if target.exists() else [])]
        if old and not exist_ok:
            raise ConfigError(f"{old[0]}: exists already; choose another --output, or give --exist-ok")
        splits = {}
        for split in ("train", "val", "test"):
            if getattr(data, split):
                splits[split] = _pack_split(split, *_load(data, split), output, per_shard, seed)
        write_yaml(target, {"path": ".", **splits, "names": data.names})
    except OSError as error:
        raise DataError(f"{output}: cannot be written ({error.strerror or error})") from error
    return target


def _load(data: DataSpec, split: str) -> tuple[PackedImages, list[str] | None]:
    """Return the images of a split, and the label text of each where it is in no file.

    That of class folders is a box of the whole image; that of COCO annotations boxes and polygons.
    """
    if not data.yaml.is_dir():
        sources = getattr(data, split)
        found = load_labels(sources, prefix=f"{split}: ", root=data.root)
        listed = any(isinstance(source, CocoImages) for source in sources)
        return found.images, [*map(_label_text, found.labels, found.polygons)] if listed else None
    files = load_split(data, split, data.names, prefix=f"{split}: ")
    return files.images, [" ".join(f"{value:g}" for value in row) + "\n" for row in files.labels.joined()]


def _label_text(rows: np.ndarray, polygons: Sequence[np.ndarray]) -> str:
    """Return labels (n, 5), and the polygon (k, 2) of each or none, as in a label file."""
    lines = []
    for index, (number, *box) in enumerate(rows.tolist()):
        points = polygons[index].ravel().tolist() if polygons else []
        lines.append(f"{number:.0f} {' '.join(f'{value:.6f}' for value in points or box)}\n")
    return "".join(lines)


def log_summary(yaml: Path) -> None:
    """Log the number and size of the shards beside a yaml, and how to train on them."""
    shards = sorted(yaml.parent.glob("*.tar"))
    size = sum(shard.stat().st_size for shard in shards)
    LOG.info(f"{len(shards)} shards, {size / 1e6:.1f} MB; train with --data {relative_to_cwd(yaml)}")


def _pack_split(
    split: str, images: PackedImages, labels: list[str] | None, output: Path, per_shard: int, seed: int | None
) -> str:
    """Write the shards of a split; return the pattern that names them in the yaml."""
    if not isinstance(images, PackedPaths):
        raise ConfigError(f"{split}: consists of shards already")
    order = np.arange(len(images))
    if split == "train" and seed is not None:
        generator(seed, _STREAM).shuffle(order)
    count = -(-len(images) // per_shard)
    width = max(len(str(count - 1)), 4)
    names = UniqueNames()
    for number in Bar(range(count), f"{split}: {len(images)} images in {count} shards"):
        path = output / f"{split}-{number:0{width}d}.tar"
        chosen = order[number * per_shard : (number + 1) * per_shard]
        samples = [
            (names.unique(_sample_name(images.relative_path(i))), images[i], labels[i] if labels else None)
            for i in chosen.tolist()
        ]
        _write_shard(path, samples)
        make_index(shard_info(os.path.abspath(path)))
    last = f"{count - 1:0{width}d}"
    return f"{split}-{{{'0' * width}..{last}}}.tar" if count > 1 else f"{split}-{last}.tar"


def _sample_name(path: str) -> str:
    """Return a path without root and suffix, its reserved characters replaced by _."""
    parts = Path(path.lstrip(os.sep)).with_suffix("").parts
    return "/".join(_RESERVED.sub("_", part) for part in parts)


def _write_shard(path: Path, samples: Sequence[_Sample]) -> None:
    with atomic_write(path) as out, tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as shard:
        for name, content in _read_files(samples):
            member = tarfile.TarInfo(name)  # without time and owner: the same images give the same bytes
            member.size, member.mode = len(content), 0o644
            shard.addfile(member, io.BytesIO(content))


def _read_files(samples: Sequence[_Sample]) -> Iterator[tuple[str, bytes]]:
    for name, image, text in samples:
        yield f"{name}{image.suffix.lower()}", image.read_bytes()
        labels = label_path(image)
        if text is not None:
            yield f"{name}.txt", text.encode()
        elif labels.is_file():
            yield f"{name}.txt", labels.read_bytes()
