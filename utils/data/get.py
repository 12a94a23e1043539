"""Download a public dataset: `python -m utils.data.get coco128`."""

from __future__ import annotations

from pathlib import Path

from utils.base import script
from utils.base.log import LOG


def main() -> None:
    """Download what the data yaml on the command line names, unless it is there."""
    parse = script.parser("Download the dataset that a data yaml names.", prog="-m utils.data.get")
    parse.add_argument("data", help="data yaml: its path, or the name of one in data/, such as coco128")
    name = parse.parse_args().data

    from utils.data.dataset_yaml import read_data_yaml

    spec = read_data_yaml(name if Path(name).suffix else f"{name}.yaml", allow_download=True)
    LOG.info(f"{spec.yaml.name}: {spec.nc} classes, ready to use with --data {spec.yaml.name}")


if __name__ == "__main__":
    script.main(main)
