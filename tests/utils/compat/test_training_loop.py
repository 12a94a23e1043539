"""A training loop of one's own: create_dataloader, ComputeLoss, ModelEMA, validation, checkpoints."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import train
import val
from models.weights import build_model, read_checkpoint
from models.yolo import Model
from utils.autoanchor import check_anchors, kmean_anchors
from utils.base.paths import ROOT
from utils.callbacks import Callbacks
from utils.dataloaders import create_dataloader
from utils.general import labels_to_class_weights, labels_to_image_weights, one_cycle, strip_optimizer
from utils.loss import ComputeLoss
from utils.metrics import ap_per_class, fitness
from utils.torch_utils import EarlyStopping, ModelEMA, de_parallel, smart_optimizer
from utils.train.hyp import load_hyp


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images with one square each, as train and val."""
    root = tmp_path_factory.mktemp("squares")
    rng = np.random.default_rng(0)
    for index in range(8):
        image = rng.integers(0, 60, (64, 80, 3), np.uint8)
        x, y = rng.integers(5, 40, 2)
        image[y : y + 20, x : x + 24] = 230
        for folder in ("images", "labels"):
            (root / folder).mkdir(exist_ok=True)
        cv2.imwrite(str(root / "images" / f"{index}.png"), image)
        row = f"0 {(x + 12) / 80} {(y + 10) / 64} {24 / 80} {20 / 64}\n"
        (root / "labels" / f"{index}.txt").write_text(row)
    yaml = root / "squares.yaml"
    yaml.write_text(f"path: {root}\ntrain: images\nval: images\nnames: [square]\n")
    return yaml


def test_a_training_loop_trains_validates_and_saves(data: Path, tmp_path: Path) -> None:
    hyp = load_hyp("hyp.scratch-low.yaml")
    model = Model("yolov5n.yaml", ch=3, nc=1, anchors=hyp.get("anchors"))
    loader, dataset = create_dataloader(
        str(data.parent / "images"), 64, 4, 32, False, hyp=hyp, augment=True, cache="ram",
        rect=False, rank=-1, workers=0, image_weights=False, quad=False, prefix="train: ",
    )  # fmt: skip
    labels = np.concatenate(dataset.labels, 0)
    assert int(labels[:, 0].max()) == 0 and labels.shape == (8, 5) and dataset.n == 8
    assert {Path(file).name for file in dataset.im_files} == {f"{index}.png" for index in range(8)}
    check_anchors(dataset, model=model, thr=hyp["anchor_t"], imgsz=64)
    model.nc, model.hyp, model.names = 1, hyp, ["square"]
    model.class_weights = labels_to_class_weights(dataset.labels, 1)
    optimizer = smart_optimizer(model, "SGD", 0.01, 0.937, 5e-4)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lr_lambda=one_cycle(1, 0.1, 3))
    ema, stopper, compute_loss = ModelEMA(model), EarlyStopping(patience=3), ComputeLoss(model)
    losses = []
    for epoch in range(3):
        model.train()
        for imgs, targets, paths, _ in loader:
            assert imgs.dtype == torch.uint8 and targets.shape[1] == 6 and len(paths) == len(imgs)
            loss, items = compute_loss(model(imgs.float() / 255), targets)
            assert loss.shape == (1,) and items.shape == (3,) and not items.requires_grad
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            ema.update(model)
        losses.append(float(items.sum()))
        scheduler.step()
        ema.update_attr(model, include=["yaml", "nc", "hyp", "names", "stride", "class_weights"])
        assert not stopper(epoch=epoch, fitness=epoch)
    assert ema.updates == 6 and np.isfinite(losses).all()

    val_loader = create_dataloader(
        str(data.parent / "images"), 64, 4, 32, hyp=hyp, rect=True, pad=0.5, workers=0
    )[0]
    results, maps, times = val.run(
        str(data), batch_size=4, imgsz=64, model=ema.ema, dataloader=val_loader, save_dir=tmp_path / "val",
        plots=False, single_cls=False, callbacks=Callbacks(), compute_loss=compute_loss,
    )  # fmt: skip
    assert isinstance(results, tuple) and len(results) == 7 and results[4] > 0
    assert maps.shape == (1,) and len(times) == 3
    assert 0 <= fitness(np.array(results).reshape(1, -1))[0] <= 1

    last = tmp_path / "last.pt"
    ckpt = {"epoch": 2, "model": deepcopy(de_parallel(model)).half(), "ema": deepcopy(ema.ema).half()}
    torch.save(ckpt | {"updates": ema.updates, "optimizer": optimizer.state_dict()}, last)
    strip_optimizer(last)
    restored = build_model(read_checkpoint(last))
    assert restored.names == {0: "square"}
    image = torch.rand(1, 3, 64, 64)
    expected = ema.ema.eval()(image)[0]
    assert (restored(image)[0] - expected).abs().max() < 0.5  # pixels, after FP16


def test_the_loss_needs_hyperparameters() -> None:
    with pytest.raises(AttributeError, match="model.hyp"):
        ComputeLoss(Model("yolov5n.yaml", nc=1))


def test_weights_of_images_and_classes() -> None:
    labels = [np.array([[0, 0.5, 0.5, 0.1, 0.1]] * 3), np.array([[1, 0.5, 0.5, 0.1, 0.1]])]
    weights = labels_to_class_weights(labels, nc=3)
    assert weights.sum() == pytest.approx(1) and weights.tolist() == pytest.approx([1 / 7, 3 / 7, 3 / 7])
    assert labels_to_image_weights(labels, 3, weights.numpy()) == pytest.approx([3 / 7, 3 / 7])
    assert labels_to_class_weights([None]).numel() == 0


def test_ap_per_class_returns_seven_arrays() -> None:
    tp = np.ones((2, 10), bool)
    values = ap_per_class(
        tp, np.array([0.9, 0.8]), np.array([0, 1]), np.array([0, 1]), names={0: "a", 1: "b"}
    )
    tp, fp, p, r, f1, ap, classes = values
    assert ap.shape == (2, 10) and ap.mean() > 0.99 and classes.tolist() == [0, 1] and fp.tolist() == [0, 0]


def test_kmean_anchors_of_a_yaml(data: Path) -> None:
    anchors = kmean_anchors(str(data), n=2, img_size=64, gen=10)
    assert anchors.shape == (2, 2) and (np.diff(anchors.prod(1)) >= 0).all()


def test_callbacks_are_called_by_name() -> None:
    callbacks, seen = Callbacks(), []
    callbacks.register_action("on_train_start", "note", lambda value: seen.append(value))
    callbacks.run("on_train_start", 3)
    assert seen == [3] and callbacks.get_registered_actions("on_train_start")[0]["name"] == "note"
    with pytest.raises(AssertionError, match="on_nothing"):
        callbacks.run("on_nothing")
    with pytest.raises(AssertionError, match="cannot be called"):
        callbacks.register_action("on_train_start", callback=None)


def test_train_run_ignores_keywords_that_are_no_flags(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = train.run(
        data=str(data), cfg="yolov5n.yaml", weights="", imgsz=32, epochs=1, batch_size=4, workers=0,
        device="cpu", project=str(tmp_path / "runs"), nosave=True, noval=True, noplots=True, img_sz=3,
    )  # fmt: skip
    assert Path(result.save_dir) == tmp_path / "runs" / "exp"
    assert "train.run: ignored img_sz, which are no options of train.py" in capsys.readouterr().err


def test_val_run_takes_the_data_first_and_its_result_can_be_indexed(tmp_path: Path) -> None:
    if not (weights := ROOT.parent / "shared/weights/bccd_yolov5n.pt").is_file():
        pytest.skip("../shared is absent")
    result = val.run(
        str(ROOT.parent / "shared/data/bccd.yaml"), weights=weights, batch_size=8, imgsz=160, workers=0,
        plots=False, project=str(tmp_path), device="cpu",
    )  # fmt: skip
    assert len(result) == 3 and result[0][2] == result.map50 and ("bccd", *result[0][:4])[1] == result.mp
