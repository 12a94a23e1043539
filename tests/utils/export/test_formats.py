"""Every format has an exporter, and files have the metadata that other programs read."""

from __future__ import annotations

import ast
import json

import pytest
import torch

from tests.models.backends.files import NAMES, exported
from utils.base.formats import EXPORTS, FORMATS, PYTORCH, format_of
from utils.export import MODULES


def test_every_format_has_a_module() -> None:
    assert set(MODULES) == set(EXPORTS)


def test_files_for_yolov5_are_checkpoints_like_others() -> None:
    assert "yolov5" not in FORMATS  # the formats that benchmarks.py and export_formats() compare with .pt
    assert format_of("best_yolov5.pt") == PYTORCH


@pytest.mark.filterwarnings("ignore::FutureWarning")  # TorchScript is deprecated
def test_torchscript_has_shape_stride_and_names() -> None:
    extra = {"config.txt": ""}
    torch.jit.load(str(exported("torchscript")), _extra_files=extra)
    config = json.loads(extra["config.txt"])
    names = {"0": "cell", "1": "red plate"}
    assert config == {"task": "detect", "shape": [1, 3, 64, 64], "stride": 32, "names": names}


@pytest.mark.parametrize("dynamic", [False, True])
def test_onnx_has_named_inputs_outputs_and_metadata(dynamic: bool) -> None:
    import onnx

    model = onnx.load(str(exported("onnx", dynamic)))
    metadata = {item.key: item.value for item in model.metadata_props}
    (images,), (output,) = model.graph.input, model.graph.output
    sizes = [size.dim_param or size.dim_value for size in images.type.tensor_type.shape.dim]

    assert (images.name, output.name) == ("images", "output0")
    assert sizes == (["batch", 3, "height", "width"] if dynamic else [1, 3, 64, 64])
    assert (metadata["stride"], ast.literal_eval(metadata["names"])) == ("32", NAMES)
    assert model.opset_import[0].version == 17
