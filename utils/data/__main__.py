"""Dataset commands, such as `python -m utils.data get coco128`: get, pack, convert, similar."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.base import script
from utils.base.errors import ConfigError
from utils.base.log import LOG
from utils.base.names import counted
from utils.base.options import Options, flag, parse_options


@dataclass(frozen=True)
class GetOptions(Options):
    """Options of `python -m utils.data get`."""

    prog, description = "-m utils.data get", "Download the dataset that a yaml describes."

    data: str = flag(
        help="dataset yaml: a path, or the name of one in data/, such as coco128; or known class folders, "
        "such as imagenette160",
        spelled="data",
    )


@dataclass(frozen=True)
class PackOptions(Options):
    """Options of `python -m utils.data pack`."""

    prog, description = "-m utils.data pack", "Pack a dataset into shards, with their indices and a yaml."

    data: str = flag(help="dataset yaml, or class folders", spelled="data")
    output: str = flag(help="folder of the shards")
    per_shard: int = flag(1000, "images per shard", between=(1, None))
    seed: int = flag(0, "seed of the order of the training images", between=(0, None))
    keep_order: bool = flag(False, "do not shuffle the training images")
    exist_ok: bool = flag(False, "write into a folder that contains shards already")


@dataclass(frozen=True)
class ConvertOptions(Options):
    """Options of `python -m utils.data convert`."""

    prog, description = "-m utils.data convert", "Convert annotations of COCO to label files of YOLO."

    annotations: str = flag(
        help="JSON file with images, annotations and categories, or a data yaml with `annotations:`",
        spelled="annotations",
    )
    images: str = flag("", "folder of the images, for a JSON file")
    output: str = flag(
        "",
        "folder of a new dataset with the images, where a data.yaml gets the split added; by default only "
        "label files are written, where training looks for them",
    )
    split: str = flag("train", "split that the images of a JSON become", choices=("train", "val", "test"))
    boxes: bool = flag(False, "write boxes, also of objects with a polygon or mask")
    link: bool = flag(False, "make symbolic links to the images instead of copies")
    exist_ok: bool = flag(False, "replace files that exist already")

    def check(self) -> None:
        """Check that a JSON file comes with its images, and a data yaml does not."""
        of_yaml = self.annotations.lower().endswith((".yaml", ".yml"))
        if of_yaml == bool(self.images):
            what = "a data yaml names the images; leave --images out" if of_yaml else "give --images FOLDER"
            raise ConfigError(f"{self.annotations}: {what}")
        if self.link and not self.output:
            raise ConfigError(
                "--link: without --output no images are written; give a folder, or leave it out"
            )


@dataclass(frozen=True)
class SimilarOptions(Options):
    """Options of `python -m utils.data similar`."""

    prog = "-m utils.data similar"
    description = "List images that are nearly the same in two splits of a dataset."

    data: str = flag(help="dataset yaml, or class folders", spelled="data")
    least: float = flag(0.98, "least correlation of their thumbnails", between=(0, 1))


def get(words: Sequence[str]) -> None:
    """Download a dataset unless its images exist."""
    name = parse_options(GetOptions, words).data

    from utils.data.class_folders import KNOWN, read_class_data
    from utils.data.dataset_yaml import read_data_yaml

    if name in KNOWN:
        folders = read_class_data(name, allow_download=True)
        LOG.info(f"{name}: {folders.nc} classes, ready to use with classify/train.py --data {name}")
        return
    spec = read_data_yaml(name if Path(name).suffix else f"{name}.yaml", allow_download=True)
    LOG.info(f"{spec.yaml.name}: {spec.nc} classes, ready to use with --data {spec.yaml.name}")


def pack(words: Sequence[str]) -> None:
    """Pack a dataset into shards."""
    options = parse_options(PackOptions, words)

    from utils.data.class_folders import read_class_data
    from utils.data.dataset_yaml import read_data_yaml
    from utils.data.shards.pack import log_summary, pack_dataset

    read = read_class_data if Path(options.data).is_dir() else read_data_yaml
    yaml = pack_dataset(
        read(options.data),
        Path(options.output),
        per_shard=options.per_shard,
        seed=None if options.keep_order else options.seed,
        exist_ok=options.exist_ok,
    )
    log_summary(yaml)


def convert(words: Sequence[str]) -> None:
    """Convert annotations of COCO."""
    options = parse_options(ConvertOptions, words)

    from utils.data.convert import convert_coco, convert_data, convert_in_place
    from utils.data.dataset_yaml import YAML_SUFFIXES, read_data_yaml

    file, output = Path(options.annotations), Path(options.output) if options.output else None
    replace = {"boxes": options.boxes, "exist_ok": options.exist_ok}
    if file.suffix in YAML_SUFFIXES:
        convert_data(read_data_yaml(file), output, link=options.link, **replace)
        return
    if output is None:
        convert_in_place(file, Path(options.images), **replace)
        return
    convert_coco(file, Path(options.images), output, split=options.split, link=options.link, **replace)


def similar(words: Sequence[str]) -> None:
    """List images that are nearly the same in two splits."""
    options = parse_options(SimilarOptions, words)

    from utils.data.class_folders import read_class_data
    from utils.data.dataset_yaml import read_data_yaml
    from utils.data.similar import find_similar

    read = read_class_data if Path(options.data).is_dir() else read_data_yaml
    pairs = find_similar(read(options.data), options.least)
    for pair in pairs:
        flipped = ", mirrored" if pair.mirrored else ""
        splits = " and ".join(pair.splits)
        LOG.info(f"{pair.correlation:.3f} {splits}: {pair.images[0]} and {pair.images[1]}{flipped}")
    LOG.info(f"{counted(len(pairs), 'image')} with a nearly equal one in an earlier split")


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "get": get,
    "pack": pack,
    "convert": convert,
    "similar": similar,
}


def main() -> None:
    """Run the command that the command line names."""
    parse = script.parser("Commands for datasets; see COMMAND --help.", prog="-m utils.data")
    parse.add_argument(
        "command", choices=COMMANDS, help="download a dataset, pack or convert one, or find similar images"
    )
    parse.add_argument("words", nargs=argparse.REMAINDER, help="arguments of the command")
    parsed = parse.parse_args()
    COMMANDS[parsed.command](parsed.words)


if __name__ == "__main__":
    script.main(main)
