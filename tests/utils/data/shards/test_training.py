"""Training from shards equals training from a folder: the same images, losses and exact resume."""

from __future__ import annotations

import csv
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import train
from classify import train as train_classifier
from models.weights import read_checkpoint
from segment import train as segment_train
from tests.studies.classifiers import class_folders, small_classifiers
from tests.studies.segmenters import polygon_set
from tests.utils.data.shards.sets import make_both
from tests.utils.train.small import small_models, small_segmenter
from utils.data import __main__ as commands
from utils.data.class_folders import load_split, read_class_data
from utils.data.dataset import DetectionDataset
from utils.data.dataset_yaml import read_data_yaml
from utils.data.loader import Loader, make_loader
from utils.data.samplers import ShardShuffle, Share
from utils.data.shards.pack import pack_dataset
from utils.data.shards.table import ShardTable
from utils.loggers.callbacks import Callbacks
from utils.tasks.segment.rasterize import MaskFormat
from utils.train import loaders
from utils.train.callbacks import PredictionImages, dataset_files

BUFFER = 4


class StopAt(Callbacks):
    """Callback that stops a run after a number of batches, as if it had been killed."""

    def __init__(self, batches: int) -> None:
        self.batches = batches

    def on_train_batch_end(self, step: int, *rest: object) -> None:
        self.stop_training = step + 1 == self.batches


@pytest.fixture
def flags(tmp_path: Path) -> dict[str, Any]:
    made = {"cfg": str(small_models(tmp_path)[0]), "weights": "", "imgsz": 64, "epochs": 2, "batch_size": 2}
    quiet = {"noplots": True, "noautoanchor": True, "device": "cpu", "workers": 0, "exist_ok": True}
    return made | quiet | {"project": str(tmp_path / "runs"), "shuffle_buffer": BUFFER, "save_steps": 1}


def _outcome(folder: Path) -> tuple[str, dict[str, torch.Tensor]]:
    return (folder / "results.csv").read_text(), read_checkpoint(folder / "weights/last.pt").state


def _assert_equal(one: Path, other: Path) -> None:
    (table, state), (table2, state2) = _outcome(one), _outcome(other)
    assert table == table2
    assert all(torch.equal(value, state2[key]) for key, value in state.items())


def _in_shard_order(monkeypatch: pytest.MonkeyPatch, images: ShardTable) -> None:
    """Make trainings from folders use the order in which shards are read."""

    def in_shard_order(dataset: Any, *args: Any, shuffle: bool = False, **kwargs: Any) -> Loader:
        loader = make_loader(dataset, *args, shuffle=shuffle, **kwargs)
        if shuffle:
            loader.keys.shard_shuffle = ShardShuffle(images.shard, BUFFER)
        return loader

    monkeypatch.setattr(loaders, "make_loader", in_shard_order)


def test_losses_are_those_of_the_folder_in_the_same_order(
    tmp_path: Path, flags: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, shards = make_both(tmp_path)
    far = train.run(**flags, data=str(shards.yaml), name="shards").save_dir
    images = DetectionDataset(shards.train, 64).image_files
    assert isinstance(images, ShardTable)
    _in_shard_order(monkeypatch, images)
    near = train.run(**flags, data=str(folder.yaml), name="folder").save_dir
    _assert_equal(near, far)
    assert len(_outcome(near)[0].splitlines()) == 3


def test_masks_of_shards_are_those_of_the_folder(tmp_path: Path, flags: dict[str, Any]) -> None:
    folder = read_data_yaml(polygon_set(tmp_path))
    shards = read_data_yaml(pack_dataset(folder, tmp_path / "shards", per_shard=3, seed=None))
    masks = MaskFormat(4, overlap=True)
    near, far = (DetectionDataset(data.train, 64, masks=masks) for data in (folder, shards))
    assert len(near) == len(far) == 8
    for index in range(8):
        one, other = near[index], far[index]
        assert torch.equal(one.image, other.image) and torch.equal(one.labels, other.labels)
        assert torch.equal(one.masks, other.masks) and bool(one.masks.any()) == bool(len(one.labels))
    flags["cfg"] = str(small_segmenter(tmp_path))
    summary = segment_train.run(**flags, data=str(shards.yaml), name="masks")
    (row, _) = list(csv.DictReader((summary.save_dir / "results.csv").open(newline="")))
    assert float({key.strip(): value for key, value in row.items()}["train/seg_loss"]) > 0


def test_packed_class_folders_give_the_numbers_of_the_folders(
    tmp_path: Path, flags: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folders, cfg = class_folders(tmp_path), small_classifiers(tmp_path)[1]
    words = ["pack", str(folders), "--output", str(tmp_path / "packed"), "--per-shard", "6", "--keep-order"]
    monkeypatch.setattr("sys.argv", ["-m", *words])
    commands.main()
    yaml = tmp_path / "packed/classes.yaml"
    del flags["noautoanchor"], flags["weights"]
    flags |= {"model": "", "cfg": cfg, "imgsz": 32, "batch_size": 8}
    far = train_classifier.run(**flags, data=yaml, name="shards").save_dir
    images = load_split(read_class_data(str(yaml)), "train", read_class_data(str(folders)).names).images
    assert isinstance(images, ShardTable) and len(images) == 20
    _in_shard_order(monkeypatch, images)
    near = train_classifier.run(**flags, data=folders, name="folder").save_dir
    _assert_equal(near, far)
    tables = [(each / "predictions.csv").read_text().splitlines() for each in (near, far)]
    assert [row.split(",")[1:] for row in tables[0]] == [row.split(",")[1:] for row in tables[1]]
    assert len(tables[0]) == 16


@pytest.mark.parametrize("batches", [2, 4])
def test_a_run_is_resumed_within_a_shard(tmp_path: Path, flags: dict[str, Any], batches: int) -> None:
    _, shards = make_both(tmp_path)
    whole = train.run(**flags, data=str(shards.yaml), name="whole").save_dir
    train.run(**flags, data=str(shards.yaml), name="cut", callbacks=[StopAt(batches)])
    last = tmp_path / "runs/cut/weights/last.pt"
    progress = (read_checkpoint(last).training or {})["progress"]
    assert progress["epoch"] == batches // 5 and 0 < progress["first_batch"] <= batches % 5
    cut = train.run(resume=str(last)).save_dir
    _assert_equal(whole, cut)


def test_predictions_on_images_of_shards_are_drawn(tmp_path: Path, flags: dict[str, Any]) -> None:
    _, shards = make_both(tmp_path)
    data = DetectionDataset(shards.val, 64, rect=True).image_files
    drawn = PredictionImages(1, data)
    drawn.on_pretrain_routine_start(tmp_path)
    drawn.on_train_epoch_end(0)
    drawn.on_val_image_end(torch.tensor([[5.0, 5, 20, 20, 0.9, 0]]), str(data[1]))
    drawn.on_val_end(None)
    assert (tmp_path / "predictions/epoch0.jpg").is_file()


def test_shards_are_uploaded_as_they_are(tmp_path: Path) -> None:
    _, shards = make_both(tmp_path)
    opened: Any = Namespace(
        dataset=DetectionDataset(shards.train, 64), val=Namespace(dataset=DetectionDataset(shards.val, 64))
    )
    found = dataset_files(Namespace(upload_dataset="val"), opened)
    assert sorted(found) == sorted(f"val-000{n}.{end}" for n in (0, 1) for end in ("tar", "index.npz"))


def test_processes_divide_each_batch(tmp_path: Path) -> None:
    _, shards = make_both(tmp_path)
    data = DetectionDataset(shards.train, 64)
    whole = [batch.images for batch in make_loader(data, 4, workers=0, shuffle=True, buffer=BUFFER)]
    parts = [
        [
            batch.images
            for batch in make_loader(data, 4, workers=0, shuffle=True, buffer=BUFFER, share=Share(rank, 2))
        ]
        for rank in range(2)
    ]
    for batch, one, other in zip(whole, *parts, strict=True):
        assert np.array_equal(batch, torch.cat((one, other)))
