"""Split a dataset into the folds of a cross-validation."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.base.errors import ConfigError, DataError
from utils.base.paths import atomic_write
from utils.base.seeds import generator
from utils.base.yaml_io import write_yaml

if TYPE_CHECKING:
    from utils.data.dataset_yaml import DataSpec

_STREAM = 80  # random number stream of the order of the images


def write_folds(data: DataSpec, folds: int, seed: int, home: Path) -> list[Path]:
    """Split the train and val images of a dataset into folds; write a data yaml for each.

    Each image is in the val split of one fold, and in the train split of the others. The test split stays.

    Args:
        data: images in folders or lists, with label files.
        folds: their number, at least 2.
        seed: decides which images are together.
        home: the yamls and lists are written into its subfolder folds.

    Returns:
        The yamls; equal arguments and images give equal paths.

    Raises:
        ConfigError: the dataset has other sources.
        DataError: there are fewer images than folds.
    """
    from utils.data.image_lists import list_images

    sources = [source for source in (*data.train, *data.val) if isinstance(source, Path)]
    if other := [source for source in (*data.train, *data.val) if not isinstance(source, Path)]:
        raise ConfigError(
            f"--folds {folds}: {data.yaml}: expected folders or lists of images with label files, "
            f"found {other[0]}; for annotations, python -m utils.data convert writes label files"
        )
    images = [str(path) for path in list_images(sources, data.root)]
    if len(images) < folds:
        raise DataError(f"--folds {folds}: {data.yaml} has only {len(images)} images to train and validate")
    digest = hashlib.sha256(os.fsencode("\n".join([*images, str(folds)]))).hexdigest()
    folder = home / "folds" / digest[:12]
    folder.mkdir(parents=True, exist_ok=True)
    order = generator(seed, _STREAM).permutation(len(images))
    yamls = []
    for fold in range(folds):
        yaml = folder / f"seed{seed}-fold{fold + 1}.yaml"
        in_val = np.isin(np.arange(len(images)), order[fold::folds])
        content: dict[str, Any] = {"path": str(data.root), "names": data.names}
        for split, chosen in (("train", np.flatnonzero(~in_val)), ("val", np.flatnonzero(in_val))):
            file = yaml.with_name(f"{yaml.stem}-{split}.txt").absolute()
            with atomic_write(file) as written:
                written.write(b"".join(os.fsencode(images[index]) + b"\n" for index in chosen))
            content[split] = str(file)
        if data.test:
            content["test"] = [str(source) for source in data.test]
        write_yaml(yaml, content)
        yamls.append(yaml)
    return yamls
