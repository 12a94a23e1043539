"""Training from the weights of another architecture: grafted, loaded by key, partly frozen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import train
from models.weights import read_checkpoint
from tests.utils.train.small import small_models, small_set
from utils.base.errors import ConfigError
from utils.loggers.callbacks import Callbacks

Flags = Callable[..., dict[str, Any]]
NEW = "model.3.conv1.bias"  # of the gate that the second yaml has before its last convolution
OLD, MOVED = "model.3.conv.weight", "model.4.conv.weight"  # that convolution, in either numbering


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> Flags:
    """Return a function for the options of training a yaml with a gate from the weights of one without."""
    home = tmp_path_factory.mktemp("graft")
    data = small_set(home, train=16)
    plain, gated = small_models(home)
    fixed = {
        "imgsz": 64,
        "batch_size": 4,
        "workers": 0,
        "device": "cpu",
        "noplots": True,
        "noautoanchor": True,
    }
    paths = {"data": str(data), "project": str(home / "runs")}
    source = train.run(**fixed, **paths, epochs=1, cfg=str(plain), weights="", name="source")
    paths |= {"cfg": str(gated), "weights": str(source.last)}

    def make(**changes: Any) -> dict[str, Any]:
        return {**fixed, **paths, "epochs": 2, **changes}

    return make


class Watch(Callbacks):
    """Callback that collects the weights after each epoch."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Tensor]] = []

    def on_model_save(self, path: Path, epoch: int, best: bool) -> None:
        content = read_checkpoint(path).training
        assert content is not None
        self.seen.append(content["model"]["state_dict"])


def _run(options: dict[str, Any]) -> list[dict[str, Tensor]]:
    watch = Watch()
    train.run(**options, callbacks=[watch])
    return watch.seen


def _source(flags: Flags) -> dict[str, Tensor]:
    return read_checkpoint(flags()["weights"]).state


def test_the_grafted_layers_are_frozen_for_some_epochs(flags: Flags) -> None:
    *_, first, _, _, second = _run(flags(epochs=8, graft_freeze=5, name="freeze"))
    start = _source(flags)

    assert torch.equal(first[MOVED].half(), start[OLD])
    assert torch.equal(first["model.1.bn.running_mean"].half(), start["model.1.bn.running_mean"])
    assert not torch.equal(first[NEW], torch.ones(16)), "the new layers are trained"
    assert not torch.equal(second[MOVED], first[MOVED]), "later all layers are"


def test_a_resumed_run_knows_which_layers_are_new(flags: Flags, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("utils.train.run_dir.strip_checkpoint", lambda path: None)
    course: dict[str, Any] = {"epochs": 4, "graft_freeze": 3, "graft_lr": 5.0}
    through = train.run(**flags(name="through", **course))

    class Stop(Callbacks):
        def on_train_epoch_start(self, epoch: int) -> None:
            if epoch == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train.run(**flags(name="stopped", **course), callbacks=[Stop()])
    resumed = train.run(resume=str(through.save_dir.parent / "stopped" / "weights" / "last.pt"))
    one, two = read_checkpoint(str(through.last)), read_checkpoint(str(resumed.last))
    assert all(torch.equal(value, two.state[key]) for key, value in one.state.items())


def test_new_layers_can_have_a_higher_learning_rate(flags: Flags, capsys: pytest.CaptureFixture[str]) -> None:
    key = NEW.replace("bias", "weight")  # initialised with zeros
    slow = _run(flags(name="slow", epochs=12))[-1][key]
    fast = _run(flags(name="fast", epochs=12, graft_lr=10.0))[-1][key]

    assert "new with lr=0.1" in capsys.readouterr().out
    assert fast.abs().mean() > 5 * slow.abs().mean() > 0


def test_loading_by_key_loses_renumbered_layers(flags: Flags, capsys: pytest.CaptureFixture[str]) -> None:
    train.run(**flags(name="graft", epochs=1))
    grafted = capsys.readouterr().out
    train.run(**flags(name="key", epochs=1, graft="off"))
    by_key = capsys.readouterr().out

    assert "Grafted 29 of 29 tensors" in grafted
    assert "Loaded by key 18 of 29 tensors" in by_key


def test_attention_arguments_come_from_the_command_line(flags: Flags) -> None:
    result = train.run(**flags(name="kernel", epochs=1, attention=["k=11", "design=LKA"]))
    config = read_checkpoint(str(result.last)).yaml

    assert config["head"][0][2:] == ["LKA", [11]]


def test_freezing_all_layers_at_first_is_rejected(flags: Flags) -> None:
    weights = flags()["weights"]
    with pytest.raises(ConfigError, match="--graft-freeze 1: .* all layers that are not frozen come from"):
        train.run(**flags(cfg="", graft_freeze=1, epochs=2))
    assert Path(weights).exists()


def test_freezing_for_the_whole_run_is_rejected(flags: Flags) -> None:
    with pytest.raises(ConfigError, match="--graft-freeze 2: expected 0 to 1"):
        train.run(**flags(graft_freeze=2))
