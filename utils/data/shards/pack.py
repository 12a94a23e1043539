"""Pack the images and labels of a dataset into shards, as they are, to the byte."""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.base.errors import ConfigError, DataError
from utils.base.log import LOG
from utils.base.paths import atomic_write, relative_to_cwd
from utils.base.progress import Bar
from utils.base.seeds import generator
from utils.base.yaml_io import write_yaml
from utils.data.dataset_yaml import DataSpec
from utils.data.image_lists import label_path
from utils.data.packed import PackedPaths
from utils.data.scan import load_labels
from utils.data.shards.index import make_index
from utils.data.shards.store import shard_info

_STREAM = 7951  # of random numbers
_UNFIT = re.compile(r"[.\s{}*\\]")  # in the name of a sample: all behind a dot is its kind


@dataclass(frozen=True)
class Packing:
    """How a dataset is packed."""

    output: Path
    per_shard: int = 1000  # images
    seed: int | None = 0  # of the order of training images; None keeps it
    exist_ok: bool = False


def pack_set(data: DataSpec, how: Packing) -> Path:
    """Write `train-0000.tar`, ... with their indices, and a yaml that names them.

    Training images are shuffled once, as training mixes only neighbours; others keep their order.

    Returns:
        The yaml.

    Raises:
        ConfigError: the folder has shards already.
        DataError: images that cannot be read, or a folder that cannot be written.
    """
    target = how.output / data.yaml.name
    try:
        if target.resolve() == data.yaml.resolve():
            raise ConfigError(
                f"--output {how.output}: its {target.name} is the set's own; choose another folder"
            )
        how.output.mkdir(parents=True, exist_ok=True)
        old = [*how.output.glob("*.tar"), *([target] if target.exists() else [])]
        if old and not how.exist_ok:
            raise ConfigError(f"{old[0]}: is there already; choose another --output, or give --exist-ok")
        splits = {name: getattr(data, name) for name in ("train", "val", "test") if getattr(data, name)}
        entries = {
            name: _pack_split(name, load_labels(found, prefix=f"{name}: ").images, how)
            for name, found in splits.items()
        }
        write_yaml(target, {"path": ".", **entries, "names": data.names})
    except OSError as error:
        raise DataError(f"{how.output}: cannot be written ({error.strerror or error})") from error
    return target


def _pack_split(split: str, images: object, how: Packing) -> str:
    """Write the shards of a split; what the yaml calls them."""
    if not isinstance(images, PackedPaths):
        raise ConfigError(f"{split}: is made of shards already")
    order = np.arange(len(images))
    if split == "train" and how.seed is not None:
        generator(how.seed, _STREAM).shuffle(order)
    count = -(-len(images) // how.per_shard)
    width = max(len(str(count - 1)), 4)
    names = _Names()
    for number in Bar(range(count), f"{split}: {len(images)} images in {count} shards"):
        path = how.output / f"{split}-{number:0{width}d}.tar"
        chosen = order[number * how.per_shard : (number + 1) * how.per_shard]
        _write_shard(path, [(names.of(images, index), images[index]) for index in chosen.tolist()])
        make_index(shard_info(os.path.abspath(path)))
    last = f"{count - 1:0{width}d}"
    return f"{split}-{{{'0' * width}..{last}}}.tar" if count > 1 else f"{split}-{last}.tar"


class _Names:
    """Names of samples, each given once: the image's own, with _ for what means something in a shard."""

    def __init__(self) -> None:
        self._given: set[str] = set()

    def of(self, images: PackedPaths, index: int) -> str:
        path = Path(images.place(index).lstrip(os.sep)).with_suffix("")
        wanted = "/".join(_UNFIT.sub("_", part) for part in path.parts)
        name, count = wanted, 1
        while name in self._given:
            count += 1
            name = f"{wanted}-{count}"
        self._given.add(name)
        return name


def _write_shard(path: Path, images: Sequence[tuple[str, Path]]) -> None:
    with atomic_write(path) as out, tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as shard:
        for name, content in _files(images):
            member = tarfile.TarInfo(name)  # with no time and no owner: the same images give the same shard
            member.size, member.mode = len(content), 0o644
            shard.addfile(member, io.BytesIO(content))


def _files(images: Sequence[tuple[str, Path]]) -> Iterator[tuple[str, bytes]]:
    for name, image in images:
        yield f"{name}{image.suffix.lower()}", image.read_bytes()
        labels = label_path(image)
        if labels.is_file():
            yield f"{name}.txt", labels.read_bytes()


def describe(yaml: Path) -> None:
    """Say what there is now, and how to use it."""
    shards = sorted(yaml.parent.glob("*.tar"))
    size = sum(shard.stat().st_size for shard in shards)
    LOG.info(f"{len(shards)} shards, {size / 1e6:.1f} MB; train with --data {relative_to_cwd(yaml)}")
