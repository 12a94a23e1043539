"""Pack a dataset into shards: `python -m utils.data.pack coco128.yaml --output shards/coco128`."""

from __future__ import annotations

from pathlib import Path

from utils.base import script
from utils.base.errors import ConfigError


def main() -> None:
    """Pack what the data yaml on the command line names."""
    parse = script.parser(
        "Pack a dataset into shards, with their indices and a yaml.", prog="-m utils.data.pack"
    )
    parse.add_argument("data", help="data yaml")
    parse.add_argument("--output", required=True, type=Path, help="folder of the shards")
    parse.add_argument("--per-shard", type=int, default=1000, help="images in a shard")
    parse.add_argument("--seed", type=int, default=0, help="of the order of the training images")
    parse.add_argument("--keep-order", action="store_true", help="do not shuffle the training images")
    parse.add_argument("--exist-ok", action="store_true", help="write into a folder that has shards already")
    opt = parse.parse_args()
    if opt.per_shard < 1:
        raise ConfigError(f"--per-shard {opt.per_shard}: expected at least 1")

    from utils.data.dataset_yaml import read_data_yaml
    from utils.data.shards.pack import Packing, describe, pack_set

    seed = None if opt.keep_order else opt.seed
    describe(pack_set(read_data_yaml(opt.data), Packing(opt.output, opt.per_shard, seed, opt.exist_ok)))


if __name__ == "__main__":
    script.main(main)
