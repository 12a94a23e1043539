"""--blocks: a file of the user adds blocks; checkpoints record it, and never import it by themselves."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import detect
import export
import graft
import train
import val
import visualize
from models import registry, user_blocks
from models.attention.gates import GATES
from models.user_blocks import load_blocks
from models.weights import build_model, model_record, read_checkpoint, save_checkpoint
from models.yolo import DetectionModel
from tests.utils.train.small import CONFIG, small_set
from utils.base.errors import ConfigError, DataError
from utils.base.paths import ROOT

PAGE = ROOT / "docs" / "your-own-code.md"
FLAGS: dict[str, Any] = {
    "imgsz": 64, "batch_size": 4, "workers": 0, "device": "cpu", "noplots": True, "noautoanchor": True,
    "epochs": 1, "weights": "",
}  # fmt: skip


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Forget the files of a test."""
    blocks, gates = registry.snapshot(), dict(GATES)
    yield
    forget(blocks, gates)


def forget(blocks: dict[str, Any], gates: dict[str, Any]) -> None:
    registry.restore(blocks)
    GATES.clear()
    GATES.update(gates)
    user_blocks._loaded.clear()


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """The template of the docs as a file."""
    section = PAGE.read_text(encoding="utf-8").partition("## A block of your own")[2]
    code = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert code is not None
    file = tmp_path / "my_block.py"
    file.write_text(code[1])
    return file


def write(folder: Path, text: str) -> Path:
    file = folder / "own.py"
    file.write_text(text)
    return file


def config(row: list[Any]) -> dict[str, Any]:
    return {**CONFIG, "backbone": [*CONFIG["backbone"][:2], row, *CONFIG["backbone"][2:]]} | {
        "head": [[-1, 1, "Conv", [16, 3, 2]], [[3, 4], 1, "Detect", ["nc", "anchors"]]]
    }


def test_the_template_is_a_layer_and_a_design(template: Path) -> None:
    found = load_blocks(template)
    assert found is not None and found.names == ("MyGate",)
    assert load_blocks(template) is found, "a file is run once"
    for row in ([-1, 1, "MyGate", [5]], [-1, 1, "C3LSKA", [8, {"design": "MyGate", "k": 5}]]):
        model = DetectionModel(config(row))
        gates = [module for module in model.modules() if type(module).__name__ == "MyGate"]
        assert [gate.conv.kernel_size for gate in gates] == [(5, 5)]
        x = torch.rand(1, 8, 6, 6)
        assert torch.equal(gates[0](x), x)
        digest = hashlib.sha256(template.read_bytes()).hexdigest()
        assert model.yaml["blocks"] == {"MyGate": {"file": "my_block.py", "sha256": digest}}
    assert "blocks" not in DetectionModel("yolov5n-LSKA.yaml").yaml


def test_a_checkpoint_names_its_file_and_does_not_import_it(
    template: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where the file is
    blocks, gates = registry.snapshot(), dict(GATES)
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(config([-1, 1, "MyGate", [5]])))
    paths = {"data": str(small_set(tmp_path / "d")), "project": str(tmp_path / "runs")}
    result = train.run(**FLAGS, **paths, cfg=str(tmp_path / "own.yaml"), blocks=str(template))
    weights = str(result.last)
    recorded = read_checkpoint(weights).yaml["blocks"]["MyGate"]
    assert recorded["file"] == "my_block.py" and len(recorded["sha256"]) == 64

    forget(blocks, gates)
    message = "last.pt: .*MyGate is a block of my_block.py .*give --blocks my_block.py"
    with pytest.raises(DataError, match=message):
        build_model(read_checkpoint(weights))

    template.write_text(template.read_text() + "# changed\n")
    capsys.readouterr()
    options = {"imgsz": 64, "device": "cpu", "workers": 0, "blocks": str(template), **paths}
    val.run(weights=weights, **options)
    assert f"recorded with SHA-256 {recorded['sha256'][:12]}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "registers no block; call models.registry.register"),
        ("import math\n\nmath.nothing\n", "own.py, line 3: AttributeError: module 'math'"),
        ("def f(:\n", "own.py, line 1: SyntaxError"),
        ("raise SystemExit(3)\n", "own.py, line 1: SystemExit: 3"),
        (
            "from torch import nn\nfrom models.registry import register, same_channels\n"
            "class Conv(nn.Identity): ...\nregister(same_channels, Conv)\n",
            "Conv is a block of this program; choose another name",
        ),
    ],
)
def test_errors_of_the_file_are_one_line(tmp_path: Path, text: str, message: str) -> None:
    before = registry.snapshot()
    with pytest.raises(ConfigError, match=message) as error:
        load_blocks(write(tmp_path, text))
    assert "\n" not in str(error.value) and registry.snapshot() == before
    with pytest.raises(ConfigError, match="--blocks nowhere.py: no such file"):
        load_blocks("nowhere.py")


@pytest.mark.parametrize("script", [export, detect, visualize, graft], ids=lambda script: script.__name__)
def test_scripts_need_the_flag(template: Path, tmp_path: Path, script: Any) -> None:
    blocks, gates = registry.snapshot(), dict(GATES)
    load_blocks(template)
    cfg, weights = tmp_path / "own.yaml", tmp_path / "own.pt"
    cfg.write_text(yaml.safe_dump(config([-1, 1, "MyGate", [5]])))
    save_checkpoint(weights, {"epoch": -1, "model": model_record(DetectionModel(str(cfg)))})
    forget(blocks, gates)
    image = str(next((small_set(tmp_path / "d").parent / "set/images/val").iterdir()))
    drawn = {"source": image, "imgsz": 64, "device": "cpu", "project": str(tmp_path / "runs")}
    options: dict[str, Any] = {
        "export": {"include": ["torchscript"], "imgsz": 64},
        "detect": {**drawn, "nosave": True},
        "visualize": {**drawn, "kind": ["erf"]},
        "graft": {"cfg": str(cfg), "output": str(tmp_path / "again.pt")},
    }[script.__name__]
    options["weights"] = str(weights) if script is graft else [str(weights)]
    with pytest.raises((ConfigError, DataError), match="MyGate"):
        script.run(**options)
    script.run(**options, blocks=str(template))


def test_runs_of_other_files_are_other_runs(template: Path, tmp_path: Path) -> None:
    from studies.compare.compare_options import parse_command, read_comparison
    from studies.compare.run_plan import plan_runs, start_of

    data, cfg = small_set(tmp_path / "d"), tmp_path / "own.yaml"
    cfg.write_text(yaml.safe_dump(config([-1, 1, "MyGate", [5]])))
    keys = []
    for extra in ("", "# other\n"):
        file = tmp_path / f"own{len(extra)}.py"
        file.write_text(template.read_text() + extra)
        blocks, gates = registry.snapshot(), dict(GATES)
        words = f"--cfg {cfg} --seeds 0 --data {data} --weights= --epochs 1 --img 64 --blocks {file}".split()
        (run,) = plan_runs(read_comparison(*parse_command(words)))
        assert json.dumps(run.settings)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        assert start_of(run) == f"scratch, with {file.name} ({digest[:8]})"
        keys.append(run.key)
        forget(blocks, gates)
    assert keys[0] != keys[1]


def test_a_design_needs_no_argument_but_the_channels(tmp_path: Path) -> None:
    text = "from torch import nn\nfrom models.registry import register, same_channels\n"
    text += "class Plain(nn.BatchNorm2d): ...\nregister(same_channels, Plain)\n"
    load_blocks(write(tmp_path, text))
    model = DetectionModel(config([-1, 1, "C3LSKA", [8, {"design": "Plain", "k": 5}]]))
    assert any(type(module).__name__ == "Plain" for module in model.modules())
