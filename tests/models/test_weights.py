"""Checkpoints: official files give the original's outputs, no file runs code, own files are plain data."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.official_weights import locate_weights
from models.pickles import Record, read_torch_file, write_torch_file
from models.weights import (
    Ensemble,
    build_model,
    load_for_inference,
    model_record,
    read_checkpoint,
    save_checkpoint,
    strip_checkpoint,
)
from models.yolo import DetectionModel
from tests.known import SHARED, arrays, golden, needs_shared, pattern_image, to_tensor
from utils.base.errors import ConfigError, DataError
from utils.export.yolov5 import yolov5_content

OFFICIAL = SHARED / "weights/yolov5n.pt"


def small_model(nc: int = 2) -> DetectionModel:
    torch.manual_seed(1)
    head = [[[-1], 1, "Detect", ["nc", "anchors"]]]
    backbone = [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "LSKA", [7]]]
    return DetectionModel({"nc": nc, "anchors": [[10, 13, 16, 30]], "backbone": backbone, "head": head})


@needs_shared
def test_official_weights_give_the_original_outputs() -> None:
    known, cases = arrays("02_forward"), golden("02_forward")["cases"]
    x = to_tensor(np.stack([pattern_image(256, 320, 0), pattern_image(256, 320, 100)]))
    model = build_model(read_checkpoint(OFFICIAL))
    assert model.names == {int(k): v for k, v in cases["model"]["fused"]["names"].items()}

    seen: list[dict[str, float]] = []

    def watch(layer: Any, y: torch.Tensor) -> None:
        seen.append({"mean": y.double().mean().item(), "std": y.double().std().item()})

    with torch.no_grad():
        decoded, maps = model(x, visualize=watch)
    for mine, theirs in zip(seen, cases["pattern/unfused/layers"], strict=True):
        assert mine["mean"] == pytest.approx(theirs["mean"], rel=1e-4)
        assert mine["std"] == pytest.approx(theirs["std"], rel=1e-4)
    for level, logits in enumerate(maps):
        rows = logits.reshape(-1, 85)[known[f"pattern/raw{level}_idx"].astype(np.int64)]
        assert np.abs(rows.numpy() - known[f"pattern/unfused/raw{level}_rows"]).max() < 2e-3
    check_decoded(decoded, known["pattern/decoded_idx"], known["pattern/unfused/decoded_rows"])
    with torch.no_grad():
        fused = model.fuse()(x)[0]
    check_decoded(fused, known["pattern/decoded_idx"][::2], known["pattern/fused/decoded_rows"])


def check_decoded(decoded: torch.Tensor, index: np.ndarray, expected: np.ndarray) -> None:
    rows = decoded.reshape(-1, 85)[index.astype(np.int64)].numpy()
    assert np.allclose(rows[:, :4], expected[:, :4], atol=0.02, rtol=1e-4)
    assert np.abs(rows[:, 4:] - expected[:, 4:]).max() < 2e-4


@needs_shared
def test_train_mode_uses_batch_statistics() -> None:
    known = arrays("02_forward")
    x = to_tensor(np.stack([pattern_image(256, 320, 0), pattern_image(256, 320, 100)]))
    model = build_model(read_checkpoint(OFFICIAL)).train()
    with torch.no_grad():
        maps = model(x)
    for level, logits in enumerate(maps):
        rows = logits.reshape(-1, 85)[known[f"pattern/raw{level}_idx"].astype(np.int64)]
        assert np.abs(rows.numpy() - known[f"pattern/train_mode/raw{level}_rows"]).max() < 2e-3


@needs_shared
def test_vectors_of_the_official_model_and_its_augmentation() -> None:
    model = load_for_inference(OFFICIAL, torch.device("cpu"))
    index = torch.arange(3 * 96 * 128)
    with torch.no_grad():
        plain = model((index % 255 / 255.0).view(1, 3, 96, 128))[0]
        wave = (torch.sin(0.001 * index.double()) / 2 + 0.5).float().view(1, 3, 96, 128)
        augmented, none = model(wave, augment=True)
    assert plain.double().sum().item() == pytest.approx(155706.650, rel=1e-6)
    assert none is None and augmented.shape == (1, 1611, 85)
    assert augmented.double().sum().item() == pytest.approx(337949.248, rel=1e-6)


@needs_shared
def test_another_number_of_classes_keeps_all_but_the_head() -> None:
    checkpoint = read_checkpoint(OFFICIAL)
    model = build_model(checkpoint, nc=3)
    same = [k for k, v in model.state_dict().items() if torch.equal(v, checkpoint.state[k].to(v.dtype))]
    assert len(same) == 343 and len(model.state_dict()) == 349


def test_saved_checkpoints_are_read_back(tmp_path: Path) -> None:
    model = small_model()
    model.names = {0: "a cat", 1: "ein Hund"}
    model.head.set_anchors(torch.tensor([[[7.0, 9.0], [30.0, 41.0]]]))
    path = tmp_path / "own file.pt"
    save_checkpoint(path, {"model": model_record(model), "epoch": 3})

    again = read_checkpoint(path)
    assert (again.names, again.epoch, again.nc, again.stride) == (model.names, 3, 2, [2.0])
    loaded = build_model(again)
    assert loaded.head.anchors_px().tolist() == [[[7, 9], [30, 41]]]
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in loaded.state_dict().items())
    x = torch.rand(1, 3, 16, 16)
    assert torch.equal(loaded(x)[0], model.eval()(x)[0])
    assert all(p.requires_grad for p in loaded.parameters())
    torch.load(path, weights_only=True)  # plain data
    assert [p.name for p in tmp_path.iterdir()] == ["own file.pt"]


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"model": model_record(small_model())})
    before = path.read_bytes()
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        save_checkpoint(path, {"model": lambda: None})
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_stripping_keeps_the_ema_in_fp16(tmp_path: Path) -> None:
    model, ema = small_model(), small_model()
    with torch.no_grad():
        for value in ema.parameters():
            value.add_(0.25)
    path = tmp_path / "last.pt"
    content = {"model": model_record(model), "ema": model_record(ema), "optimizer": {"state": {}}, "epoch": 7}
    save_checkpoint(path, content)
    assert read_checkpoint(path).training is not None
    strip_checkpoint(path)

    checkpoint = read_checkpoint(path)
    assert (checkpoint.epoch, checkpoint.training) == (-1, None)
    weight = checkpoint.state["model.0.conv.weight"]
    assert weight.dtype == torch.float16
    assert torch.equal(weight, ema.state_dict()["model.0.conv.weight"].half())


def pickled(path: Path, theirs: bool) -> Path:
    """Save a model as a pickle of modules, by a script that uses our classes, or as YOLOv5 has it."""
    model = small_model()
    if not theirs:
        torch.save({"epoch": 4, "model": model, "ema": None, "optimizer": {"state": {}}}, path)
        return path
    save_checkpoint(path, {"model": model_record(model)})
    checkpoint = read_checkpoint(path)
    with path.open("wb") as file:
        write_torch_file(file, yolov5_content(build_model(checkpoint), checkpoint))
    return path


def test_files_of_other_programs_are_not_overwritten(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, link = pickled(tmp_path / "theirs.pt", theirs=True), tmp_path / "link.pt"
    link.symlink_to(path)
    before = path.read_bytes()
    with caplog.at_level("WARNING"):
        assert not strip_checkpoint(path) and not strip_checkpoint(path, link)
    assert path.read_bytes() == before
    assert all("--include yolov5" in line and str(path) in line for line in caplog.messages)

    assert strip_checkpoint(path, tmp_path / "ours.pt") and path.read_bytes() == before
    assert strip_checkpoint(tmp_path / "ours.pt")


def test_a_pickle_of_our_own_modules_is_stripped(tmp_path: Path) -> None:
    path = pickled(tmp_path / "script.pt", theirs=False)
    assert strip_checkpoint(path)
    assert read_checkpoint(path).epoch == -1
    torch.load(path, weights_only=True)


class Bomb:
    """An object that runs a command when pickle loads it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch '{self.marker}'",)


@pytest.mark.parametrize("how", ["pickle", "torch zip", "torch legacy"])
def test_no_file_runs_code(tmp_path: Path, how: str) -> None:
    marker, path = tmp_path / "owned", tmp_path / "bomb.pt"
    content = {"model": Bomb(marker), "ema": None}
    if how == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "torch zip")
    with pytest.raises(DataError, match=r"bomb\.pt: "):
        read_checkpoint(path)
    assert not marker.exists()


def test_unknown_classes_become_passive_records(tmp_path: Path) -> None:
    path = tmp_path / "module.pt"
    for new in (True, False):  # both file formats of torch
        torch.save({"m": torch.nn.Linear(2, 3)}, path, _use_new_zipfile_serialization=new)
        record = read_torch_file(path)["m"]
        assert isinstance(record, Record) and record.origin == "torch.nn.modules.linear.Linear"
        assert record.get("weight").shape == (3, 2)


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", b"not a checkpoint", b"\x80\x02}q\x00.", b"\x80\x02]q\x00."]
)
def test_files_that_are_no_checkpoints_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"x\.pt: not a"):
        read_checkpoint(path)


def test_a_truncated_checkpoint_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.pt"
    save_checkpoint(path, {"model": model_record(small_model())})
    whole = path.read_bytes()
    for part in (0.1, 0.5, 0.99):
        path.write_bytes(whole[: int(len(whole) * part)])
        with pytest.raises(DataError, match=r"cut\.pt: "):
            read_checkpoint(path)


def test_missing_weights_are_named() -> None:
    for call in (read_checkpoint, locate_weights):
        with pytest.raises(ConfigError, match=r"nowhere\.pt"):
            call("nowhere.pt")


def test_an_ensemble_concatenates_boxes() -> None:
    a, b = small_model().eval(), small_model().eval()
    x = torch.rand(1, 3, 16, 16)
    assert Ensemble([a, b])(x)[0].shape[1] == 2 * a(x)[0].shape[1]
    with pytest.raises(ConfigError, match="equal classes"):
        Ensemble([a, small_model(nc=5)])


def test_old_activations_are_read_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "v3.pt"
    model = small_model()
    model.yaml["activation"] = "nn.Hardswish()"
    save_checkpoint(path, {"model": model_record(model)})
    assert isinstance(build_model(read_checkpoint(path)).model[0].act, torch.nn.Hardswish)


def test_activations_of_a_v3_file_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pickle a module as v3 did, with Hardswish in Conv and LeakyReLU in BottleneckCSP."""
    yaml = small_model().yaml | {"activation": "nn.Hardswish()", "csp_activation": "nn.LeakyReLU(0.1)"}
    yaml["backbone"] = [[-1, 1, "Focus", [8, 3]], [-1, 1, "BottleneckCSP", [8]]]
    model = DetectionModel(yaml)
    for key in ("activation", "csp_activation"):
        del model.yaml[key]
    vars(model).update(nc=2, stride=model.stride, names=["a", "b"])
    monkeypatch.delattr(DetectionModel, "stride")  # old models hold it as an attribute
    path = tmp_path / "v3.pt"
    torch.save({"model": model.half(), "ema": None, "epoch": -1}, path)
    monkeypatch.undo()

    again = build_model(read_checkpoint(path))
    assert again.yaml["csp_activation"] == "nn.LeakyReLU(0.1)" and again.names == {0: "a", 1: "b"}
    assert isinstance(again.model[0].conv.act, torch.nn.Hardswish)
    assert isinstance(again.model[1].act, torch.nn.LeakyReLU)
    x = torch.rand(1, 3, 32, 32)
    assert torch.allclose(again(x)[0], model.float().eval()(x)[0], atol=1e-4)


def save_as_fork(path: Path, row: list[Any], **attributes: Any) -> DetectionModel:
    """Write a file as forks of YOLOv5 do, the yaml of which has `row` as layer 1."""
    model = small_model()
    for name, value in attributes.items():
        setattr(model.model[1], name, value)
    model.yaml["backbone"][1] = row
    torch.save({"model": model, "epoch": -1}, path)
    return model


@pytest.mark.parametrize(
    ("design", "k", "dilation"),
    [("LSKA", 23, None), ("LSKA", 17, 3), ("LSKA", 7, 2), ("LKA", 35, 3), ("LSKATrivial", 9, None)],
)
@pytest.mark.parametrize("args", [[], [8]])
def test_the_kernel_of_a_published_lska_is_read_from_its_tensors(
    tmp_path: Path, design: str, k: int, dilation: int | None, args: list[int]
) -> None:
    config = small_model().yaml
    config["backbone"][1] = [-1, 1, design, [k, dilation]]
    model = DetectionModel(config)
    model.yaml["backbone"][1] = [-1, 1, design, args]  # the kernel stands in the code of the fork
    torch.save({"model": model, "epoch": -1}, tmp_path / "fork.pt")
    again = build_model(read_checkpoint(tmp_path / "fork.pt"))
    gate: Any = again.model[1]
    assert gate.k == k
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(again(x)[0], model.eval()(x)[0])


def test_a_fork_with_another_block_is_named(tmp_path: Path) -> None:
    save_as_fork(tmp_path / "gam.pt", [-1, 1, "GAM", [8]])
    with pytest.raises(DataError, match=r"gam.pt: .*layer 1 \(GAM\): no block is called.*your-own-code.md"):
        build_model(read_checkpoint(tmp_path / "gam.pt"))
    save_as_fork(tmp_path / "more.pt", [-1, 1, "LSKA", [7]], gate=torch.nn.Conv2d(8, 8, 1))
    key = r"model\.1\.gate\.weight of layer 1 \(LSKA\) is \[8, 8, 1, 1\] in the file, and absent in the model"
    with pytest.raises(DataError, match=rf"more.pt: yaml and weights do not belong together: {key}"):
        build_model(read_checkpoint(tmp_path / "more.pt"))


def test_a_checkpoint_of_a_later_version_is_named(tmp_path: Path) -> None:
    model = small_model()
    model.yaml |= {"scales": {"n": [0.33, 0.25, 1024]}, "backbone": [[-1, 3, "C2f", [8, True]]]}
    del model.yaml["anchors"]
    torch.save({"model": model, "epoch": -1}, tmp_path / "later.pt")
    with pytest.raises(DataError, match="later.pt: a checkpoint of YOLOv8 or a later .* ultralytics"):
        build_model(read_checkpoint(tmp_path / "later.pt"))
