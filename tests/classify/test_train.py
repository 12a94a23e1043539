"""classify/train.py and classify/val.py end to end: small runs on drawn shapes."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml

from classify import train, val
from models.weights import load_for_inference, model_record, read_checkpoint, save_checkpoint
from models.yolo import make_model
from tests.classify.small import COLUMNS, SMALL, Flags, predicted, read_csv, rows_of
from tests.utils.tasks.classify.folders import make_folders
from tests.utils.train.small import CONFIG
from utils.base.errors import ConfigError, DataError
from utils.data.shapes import NAMES, make_class_shapes
from utils.loggers.callbacks import Callbacks
from utils.tasks.classify.options import ClassifyTrainOptions
from utils.train.run_dir import TrainResult


def test_a_run_writes_checkpoints_tables_and_plots(trained: TrainResult) -> None:
    folder = trained.save_dir
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")}
    assert {f"weights/{name}.pt" for name in ("last", "best", "epoch0", "epoch1")} <= files
    assert {"opt.yaml", "results.csv", "results.png", "train_images.jpg", "predictions.csv"} <= files
    assert {"confusion_matrix.png", "val_batch0_labels.jpg", "val_batch0_pred.jpg"} <= files
    assert not {"labels.jpg", "PR_curve.png"} & files
    assert (folder / "results.csv").read_text().splitlines()[0] == COLUMNS
    rows = rows_of(folder)
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert [float(row["lr/0"]) for row in rows] == pytest.approx([0.001, 0.000505])
    assert all(float(row["train/loss"]) > 0 and float(row["val/loss"]) > 0 for row in rows)
    assert trained.fitness == trained.metrics["metrics/accuracy_top1"]
    assert trained.fitness == pytest.approx(
        max(float(row["metrics/accuracy_top1"]) for row in rows), abs=0.051
    )


def test_the_checkpoint_is_a_classifier_with_the_names_of_the_folders(trained: TrainResult) -> None:
    model = load_for_inference(str(trained.best), torch.device("cpu"))
    assert model.task == "classify" and model.names == dict(enumerate(sorted(NAMES)))  # type: ignore[union-attr]
    checkpoint = read_checkpoint(str(trained.best))
    assert checkpoint.yaml["nc"] == 5 and checkpoint.training is None


def test_val_measures_what_training_did(trained: TrainResult, flags: Flags, tmp_path: Path) -> None:
    result = val.run(
        weights=trained.best, data=flags()["data"], imgsz=32, device="cpu", workers=0, project=tmp_path
    )
    assert result.top1 == trained.metrics["metrics/accuracy_top1"] and result.seen == 20
    with (tmp_path / "exp/predictions.csv").open(newline="") as file:
        own = list(csv.reader(file))
    with (trained.save_dir / "predictions.csv").open(newline="") as file:
        assert own == list(csv.reader(file))


def test_a_classifier_learns_colours(flags: Flags, tmp_path: Path) -> None:
    """Red, green and blue are found within seconds, in images that training has not seen."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 6)):
        for channel, name in enumerate(("blue", "green", "red")):
            for index in range(count):
                image = draw.integers(0, 90, (24, 32, 3), dtype=np.uint8)
                image[..., channel] += 120
                path = tmp_path / "colours" / split / name / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), image)
    result = train.run(**flags(data=tmp_path / "colours", epochs=12, lr0=0.01, project=tmp_path))
    assert result.metrics["metrics/accuracy_top1"] == 1 and result.metrics["metrics/accuracy_top5"] == 1


def test_the_default_dataset_is_drawn_once(
    flags: Flags, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from utils.data import class_folders as folders

    monkeypatch.setattr(folders, "output_root", lambda: tmp_path)
    drawn = tmp_path / "datasets/shapes-cls"
    monkeypatch.setattr(
        "utils.data.shapes.make_class_shapes", lambda root: make_class_shapes(root, train=2, val=1, size=24)
    )
    assert ClassifyTrainOptions().data == "shapes-cls"
    for _ in range(2):
        train.run(**flags(data="shapes-cls", epochs=1, project=tmp_path / "runs"))
    assert len(list((drawn / "train").rglob("*.jpg"))) == 10
    assert rows_of(tmp_path / "runs/exp") == rows_of(tmp_path / "runs/exp2"), "runs are reproducible"


def test_equal_seeds_give_equal_runs_and_others_do_not(flags: Flags, tmp_path: Path) -> None:
    made = [train.run(**flags(epochs=1, seed=seed, project=tmp_path)) for seed in (3, 3, 4)]
    tables = [rows_of(result.save_dir) for result in made]
    assert tables[0] == tables[1] != tables[2]


@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_caches_do_not_change_a_run(cache: str, flags: Flags, trained: TrainResult, tmp_path: Path) -> None:
    result = train.run(**flags(cache=cache, project=tmp_path))
    assert rows_of(result.save_dir) == rows_of(trained.save_dir)


class Interrupt(Callbacks):
    """Callback that ends a run at the start of its second epoch."""

    def on_train_epoch_start(self, epoch: int) -> None:
        if epoch == 1:
            raise KeyboardInterrupt


@pytest.mark.parametrize(("workers", "cache"), [(0, None), (1, "ram"), (1, "disk")])
def test_a_run_that_was_stopped_after_an_epoch_ends_like_a_whole_one(
    workers: int, cache: str | None, flags: Flags, trained: TrainResult, tmp_path: Path
) -> None:
    options = flags(workers=workers, cache=cache, project=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train.run(**options, callbacks=[Interrupt()])
    result = train.run(resume=tmp_path / "exp/weights/last.pt")
    assert_equal_states(result.last, trained.last)
    assert rows_of(result.save_dir) == rows_of(trained.save_dir)


def assert_equal_states(one: object, other: object) -> None:
    """Check that two checkpoints have the same tensors, to the bit."""
    first, second = (read_checkpoint(str(path)).state for path in (one, other))
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[key]) for key, value in first.items())


def test_a_test_folder_serves_where_there_is_no_val(flags: Flags, home: Path, tmp_path: Path) -> None:
    make_folders(tmp_path / "pets", train={"cat": 3, "dog": 3}, test={"dog": 2, "cat": 2})
    result = train.run(**flags(data=tmp_path / "pets", epochs=1, project=tmp_path))
    assert result.metrics["metrics/accuracy_top5"] == 1
    model = load_for_inference(str(result.best), torch.device("cpu"))
    assert model.names == {0: "cat", 1: "dog"}


def test_one_class_and_batches_of_one_image_are_trained(
    flags: Flags, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_folders(tmp_path / "pets", train={"cat": 3}, val={"cat": 1})
    result = train.run(**flags(data=tmp_path / "pets", epochs=1, batch_size=1, project=tmp_path))
    assert result.metrics["metrics/accuracy_top1"] == 1
    output = capsys.readouterr()
    assert "has one class, cat; there is nothing to learn" in output.out + output.err


def test_a_thousand_classes_of_one_image_are_trained(flags: Flags, tmp_path: Path) -> None:
    names = [f"class {index:04}" for index in range(1000)]
    make_folders(tmp_path / "set", train=dict.fromkeys(names, 1), val=dict.fromkeys(names[::100], 1))
    data = {"data": tmp_path / "set", "imgsz": 16, "batch_size": 250}
    result = train.run(**flags(**data, epochs=1, noplots=False, project=tmp_path))
    model = load_for_inference(str(result.best), torch.device("cpu"))
    assert model.names == dict(enumerate(names))
    rows = read_csv(result.save_dir / "predictions.csv")
    assert [row[1] for row in rows] == ["class", *names[::100]] and set(rows[1][2:]) < set(names)
    assert (result.save_dir / "confusion_matrix.png").exists()


def test_val_may_lack_classes_but_not_have_others(
    flags: Flags, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = make_folders(tmp_path / "pets", train={"cat": 3, "dog": 1, "owl": 2}, val={"owl": 3})
    result = train.run(**flags(data=data, epochs=1, project=tmp_path))
    assert read_checkpoint(str(result.best)).yaml["nc"] == 3
    assert {row[1] for row in read_csv(result.save_dir / "predictions.csv")[1:]} == {"owl"}
    make_folders(data, val={"fish": 1})
    with pytest.raises(ConfigError, match="fish is not a class of the model, which has 3: cat, dog, owl"):
        train.run(**flags(data=data, epochs=1, project=tmp_path))


def test_any_image_size_is_trained(flags: Flags, tmp_path: Path) -> None:
    result = train.run(**flags(imgsz=41, epochs=1, project=tmp_path))
    assert result.best is not None


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW", "RMSProp"])
def test_other_optimizers_train(optimizer: str, flags: Flags, tmp_path: Path) -> None:
    result = train.run(**flags(optimizer=optimizer, epochs=4, noaugment=True, project=tmp_path))
    losses = [float(row["train/loss"]) for row in rows_of(result.save_dir)]
    assert losses[-1] < losses[0]


def test_a_detector_is_cut_and_its_weights_are_kept(flags: Flags, tmp_path: Path, logged: list[str]) -> None:
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "det.pt", {"model": model_record(make_model(CONFIG))})
    result = train.run(
        **flags(model=tmp_path / "det.pt", cfg="", cutoff=4, epochs=1, lr0=1e-9, project=tmp_path)
    )
    text = "\n".join(logged)
    assert "Grafted 18 of " in text
    checkpoint = read_checkpoint(str(result.best))
    assert [row[2] for row in checkpoint.yaml["backbone"] + checkpoint.yaml["head"]] == ["Conv"] * 3 + [
        "Classify"
    ]
    theirs = read_checkpoint(str(tmp_path / "det.pt")).state
    own = checkpoint.state["model.0.conv.weight"].float()
    torch.testing.assert_close(own, theirs["model.0.conv.weight"].float(), atol=1e-3, rtol=1e-2)


def test_an_own_yaml_gets_attention_and_weights_and_its_first_layers_are_frozen(
    trained: TrainResult, flags: Flags, tmp_path: Path, logged: list[str]
) -> None:
    """The yaml has a gate before the last block of the model that the weights are from."""
    *first, last = SMALL["backbone"]
    own = {**SMALL, "backbone": [*first, [-1, 1, "LSKA", [7]], last]}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(own))
    result = train.run(
        **flags(
            model=trained.best, cfg=tmp_path / "own.yaml", attention=["design=LKA", "k=11"], freeze=[2],
            epochs=1, project=tmp_path,
        )
    )  # fmt: skip
    theirs, made = (read_checkpoint(str(path)) for path in (trained.best, result.best))
    assert made.yaml["backbone"][2][2:] == ["LKA", [11]]
    new = [key for key in made.state if key.startswith("model.2.")]
    assert f"Grafted {len(theirs.state)} of {len(theirs.state)} tensors" in "\n".join(logged)
    assert len(made.state) == len(theirs.state) + len(new)
    frozen = [key for key in made.state if key.startswith(("model.0.", "model.1."))]
    assert frozen and all(torch.equal(made.state[key], theirs.state[key]) for key in frozen)
    change = made.state["model.3.cv1.conv.weight"] - theirs.state["model.2.cv1.conv.weight"]
    assert 0 < float(change.abs().max()) < 0.05, "loaded, then trained for an epoch"


def test_a_classifier_is_trained_further_on_other_classes(
    trained: TrainResult, flags: Flags, tmp_path: Path, logged: list[str]
) -> None:
    make_folders(tmp_path / "pets", train={"cat": 3, "dog": 3}, val={"dog": 2, "cat": 2})
    result = train.run(
        **flags(model=trained.best, cfg="", data=tmp_path / "pets", epochs=1, project=tmp_path)
    )
    assert read_checkpoint(str(result.best)).yaml["nc"] == 2
    size = len(read_checkpoint(str(result.best)).state)
    assert any(line.startswith(f"Transferred {size - 2}/{size} items from ") for line in logged)


def test_pretrained_false_keeps_the_architecture_only(
    trained: TrainResult, flags: Flags, tmp_path: Path, logged: list[str]
) -> None:
    result = train.run(
        **flags(model=trained.best, cfg="", epochs=1, pretrained="False", lr0=1e-9, project=tmp_path)
    )
    assert not any("Transferred" in line for line in logged)
    states = [read_checkpoint(str(path)).state["model.0.conv.weight"] for path in (result.best, trained.best)]
    assert states[0].shape == states[1].shape and not torch.allclose(*states, atol=1e-3)


def test_a_torchvision_model_is_trained_and_used(flags: Flags, home: Path, tmp_path: Path) -> None:
    result = train.run(
        **flags(model="squeezenet1_1", cfg="", pretrained="False", epochs=1, project=tmp_path, dropout=0.1)
    )
    measured = val.run(
        weights=result.best, data=home / "set", imgsz=32, device="cpu", workers=0, project=tmp_path
    )
    assert measured.top1 == result.metrics["metrics/accuracy_top1"]
    image = next((home / "set/val/star").iterdir())
    assert predicted(result.best, image, tmp_path).frames == 1


def test_missing_torchvision_weights_are_an_error_without_network(
    flags: Flags, offline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(offline))

    def no_network(*args: Any, **keywords: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", no_network)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_network)
    with pytest.raises(DataError, match=r"--model squeezenet1_1: no weights, .*--pretrained false"):
        train.run(**flags(model="squeezenet1_1", cfg="", project=offline))
