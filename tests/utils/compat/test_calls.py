"""Calls as scripts of each age write them: positions, keywords, kinds of arguments."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import val
from models.common import Detections, DetectMultiBackend, autopad
from models.experimental import Ensemble, attempt_load
from models.yolo import Model
from tests.models.backends.files import checkpoint
from utils import general, metrics
from utils.augmentations import letterbox
from utils.base.errors import DataError
from utils.base.paths import ROOT
from utils.callbacks import Callbacks
from utils.dataloaders import LoadImages, LoadStreams, create_dataloader
from utils.loss import ComputeLoss
from utils.plots import plot_results, save_one_box
from utils.torch_utils import ModelEMA


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Four images with a box each, as the content of a data yaml."""
    root = tmp_path_factory.mktemp("set with a space")
    for folder in ("images", "labels"):
        (root / folder).mkdir()
    for index in range(4):
        cv2.imwrite(str(root / f"images/{index}.png"), np.full((64, 64, 3), 60 * index, np.uint8))
        (root / f"labels/{index}.txt").write_text("0 0.5 0.5 0.3 0.4\n")
    return {"path": str(root), "train": "images", "val": "images", "names": ["cell", "red plate"]}


def test_autopad_takes_a_padding() -> None:
    assert (autopad(3), autopad(3, None), autopad(5, 1), autopad(3, p=0), autopad(3, d=2)) == (1, 1, 1, 0, 2)
    assert autopad([3, 5]) == (1, 2)


def test_old_names_of_arguments_are_accepted() -> None:
    boxes = torch.tensor([[10.0, 10, 20, 20]])
    same = general.scale_coords(img1_shape=(64, 64), coords=boxes, img0_shape=(128, 128))
    assert same is boxes and boxes.tolist() == [[20, 20, 40, 40]]
    general.clip_coords(boxes, img_shape=(30, 30))
    assert boxes.max() == 30
    assert general.check_img_size(img_size=65, s=torch.tensor([32.0])) == 96
    assert general.check_img_size(np.int64(64)) == 64
    general.set_logging(rank=-1)
    assert letterbox(img=np.zeros((10, 20, 3), np.uint8), new_shape=32)[0].shape == (32, 32, 3)
    assert general.check_git_info()["commit"] is None


def test_iou_of_general_and_of_metrics_have_the_defaults_of_their_age() -> None:
    one, two = torch.tensor([0.0, 0, 10, 10]), torch.tensor([[0.0, 0, 10, 10], [5, 5, 15, 15]])
    assert general.bbox_iou(one, two).tolist() == pytest.approx([1, 1 / 7], abs=1e-5)
    assert metrics.bbox_iou(one[None], two, xywh=False).shape == (2, 1)
    assert metrics.bbox_iou(one, two.T.contiguous().T, x1y1x2y2=True).shape == (2,)


def test_numbers_of_numpy_and_arrays_are_accepted() -> None:
    decoded = torch.tensor([[[5.0, 5, 4, 4, 0.9, 1, 0], [20, 20, 4, 4, 0.9, 0, 1]]])
    (found,) = general.non_max_suppression(decoded, classes=np.int64(1))
    assert found[:, 5].tolist() == [1]
    assert general.non_max_suppression([decoded], classes=[])[0].shape == (0, 6)
    assert next(iter(LoadImages(str(ROOT / "data/images"), np.int64(64))))[1].shape[0] == 3
    matrix = metrics.ConfusionMatrix(nc=2)
    matrix.process_batch(np.array([[0, 0, 10, 10, 0.9, 1.0]]), np.array([[1, 0, 0, 10, 10.0]]))
    assert matrix.matrix[1, 1] == 1
    assert len(metrics.ap_per_class(torch.ones(1, 10), *torch.tensor([[0.9], [1.0], [1.0]]))) == 7


@pytest.mark.parametrize("box", [[-50, -50, -20, -20], [-60, 100, -30, 200], [10, -90, 40, -40]])
def test_a_box_outside_of_the_image_has_an_empty_crop(box: list[float], tmp_path: Path) -> None:
    image = np.zeros((300, 400, 3), np.uint8)
    assert save_one_box(box, image, file=tmp_path / "x.jpg", BGR=True).size == 0
    assert not list(tmp_path.iterdir())


def test_boxes_may_be_tensors_with_gradients() -> None:
    box = torch.tensor([10.0, 10, 30, 40], requires_grad=True)
    crop = save_one_box(list(box), np.zeros((64, 64, 3), np.uint8), save=False)
    assert crop.shape == save_one_box(box[None], np.zeros((64, 64, 3), np.uint8), save=False).shape


def test_check_file_reports_an_absolute_path_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="File not found"):
        general.check_file(str(tmp_path / "no.yaml"))
    with pytest.raises(AssertionError, match="File not found"):
        general.check_file("no-such-file.yaml")
    assert Path(general.check_file("shapes.yaml")).is_file()


def test_check_dataset_reads_the_content_of_a_yaml(data: dict[str, object]) -> None:
    checked = general.check_dataset(data)
    assert checked["val"] == str(Path(str(data["path"]), "images"))
    assert checked["names"] == {0: "cell", 1: "red plate"} and checked["nc"] == 2
    assert general.check_dataset(checked)["val"] == checked["val"]
    with pytest.raises(DataError, match="nowhere"):
        general.check_dataset(data | {"val": "nowhere"})


def test_val_run_takes_positions_dicts_and_callbacks(data: dict[str, object], tmp_path: Path) -> None:
    kept = {"workers": 0, "device": "cpu", "project": str(tmp_path)}
    by_file = val.run(general.check_dataset(data), checkpoint(), 2, 64, plots=False, **kept)
    assert by_file.seen == 4 and not list(tmp_path.iterdir())
    callbacks, seen = Callbacks(), []
    callbacks.register_action("on_val_image_end", callback=lambda *values: seen.append(values))
    model = attempt_load(str(checkpoint()))
    in_memory = val.run(data, model=model, imgsz=64, batch_size=2, callbacks=callbacks)
    assert len(seen) == 4 and in_memory.map50 == pytest.approx(by_file.map50, abs=1e-3)


def test_an_ensemble_is_a_list_of_models() -> None:
    models = Ensemble()
    for _ in range(2):
        models.append(attempt_load(str(checkpoint())))
    image = torch.zeros(1, 3, 64, 64)
    assert models(image)[0].shape[1] == 2 * models[-1](image)[0].shape[1]
    loaded = attempt_load([str(checkpoint())] * 2)
    assert isinstance(loaded, Ensemble) and len(loaded) == 2 and loaded.names == {0: "cell", 1: "red plate"}
    assert torch.equal(loaded(image)[0], models(image)[0])


def test_a_file_that_is_no_model_is_a_clear_error(tmp_path: Path) -> None:
    for name, content in (
        ("empty.pt", b""),
        ("text.pt", b"abc"),
        ("cut.pt", checkpoint().read_bytes()[:5000]),
    ):
        (tmp_path / name).write_bytes(content)
        for load in (attempt_load, DetectMultiBackend):
            with pytest.raises(DataError, match=name):
                load(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="missing.pt"):
        DetectMultiBackend(tmp_path / "missing.pt")
    with pytest.raises(AssertionError, match=r"README.md: expected a file that ends in .pt"):
        DetectMultiBackend(ROOT / "README.md")


def test_attributes_that_scripts_read_and_set() -> None:
    model = Model("yolov5n.yaml", nc=2)
    head = model.model[-1]
    assert len(head.grid) == head.nl and head.anchor_grid[0].shape == (1, 3, 1, 1, 2)
    model.stride = torch.tensor([8.0, 16.0, 32.0])
    assert head.stride.tolist() == [8, 16, 32]
    ema = ModelEMA(model)
    ema.ema = Model("yolov5n.yaml", nc=2).eval()
    before = next(iter(ema.ema.parameters())).clone()
    ema.update(model)
    assert not torch.equal(next(iter(ema.ema.parameters())), before)
    assert attempt_load(str(checkpoint()), inplace=False).model[0].act.inplace is False
    model.hyp = {"giou": 0.05, "obj": 1.0, "cls": 0.5}
    maps = model(torch.zeros(1, 3, 64, 64))
    assert ComputeLoss(model)(maps, torch.tensor([[0, 1, 0.5, 0.5, 0.2, 0.2]]))[0] > 0


def test_indices_of_a_dataset_choose_the_images(data: dict[str, object]) -> None:
    loader, dataset = create_dataloader(f"{data['path']}/images", 64, 2, 32, workers=0)
    dataset.indices = random.choices(range(dataset.n), weights=[1, 0, 0, 0], k=dataset.n)
    paths = [path for _, _, paths, _ in loader for path in paths]
    assert len(paths) == 4 and len(set(paths)) == 1
    images, targets, paths, shapes = dataset.collate_fn([dataset[0], dataset[1]])
    assert images.shape == (2, 3, 64, 64) and len(targets) == len(paths) == len(shapes) == 2


def test_detections_have_the_names_of_each_age(tmp_path: Path) -> None:
    image = np.zeros((20, 30, 3), np.uint8)
    found = Detections([image], [torch.tensor([[1.0, 2, 9, 12, 0.9, 0]])], ["a.jpg"], names={0: "x"})
    assert found.imgs is found.ims and found.t == (0, 0, 0)
    assert found.save(str(tmp_path / "out")) == tmp_path / "out" and (tmp_path / "out/a.jpg").is_file()


def test_a_list_of_streams_may_hold_paths_with_spaces(tmp_path: Path) -> None:
    video = tmp_path / "a video.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 5.0, (64, 64))
    for _ in range(5):
        writer.write(np.zeros((64, 64, 3), np.uint8))
    writer.release()
    (tmp_path / "streams.txt").write_text(f"{video}\n\n")
    for source in (tmp_path / "streams.txt", video):
        loader = LoadStreams(str(source), img_size=64)
        assert loader.sources == [str(video)] and next(iter(loader))[1].shape == (1, 3, 64, 64)


def test_results_of_v5_are_not_drawn_but_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(AssertionError, match="no results.csv"):
        plot_results(dir=tmp_path)
    (tmp_path / "results.txt").write_text("0/2 0G 0.1\n")
    plot_results(save_dir=tmp_path)
    assert "results.txt of v5.0 is not drawn" in caplog.text


def test_a_script_that_ends_with_open_loaders_reports_nothing(data: dict[str, object]) -> None:
    code = f"""
from utils.dataloaders import create_dataloader
loader, _ = create_dataloader({str(data["path"]) + "/images"!r}, 64, 2, 32, workers=2)
for batch in loader:
    break
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr
