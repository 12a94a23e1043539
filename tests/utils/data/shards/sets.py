"""A small dataset as a folder and as shards, in the same order."""

from __future__ import annotations

from pathlib import Path

from tests.utils.data.image_files import make_set
from utils.base.yaml_io import write_yaml
from utils.data.dataset_yaml import DataSpec, read_data_yaml
from utils.data.shards.pack import pack_dataset

NAMES = ["a", "b", "c"]


def make_both(home: Path, images: int = 10, per_shard: int = 3) -> tuple[DataSpec, DataSpec]:
    """Make a dataset, and its shards with the images in the same order."""
    make_set(home / "set", images, sizes=((60, 80), (80, 50)))
    make_set(home / "set", 4, "val")
    splits = {"train": "images/train", "val": "images/val"}
    write_yaml(home / "data.yaml", {"path": str(home / "set"), **splits, "names": NAMES})
    folder = read_data_yaml(home / "data.yaml")
    return folder, read_data_yaml(pack_dataset(folder, home / "shards", per_shard=per_shard, seed=None))
