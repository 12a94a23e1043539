"""Label files of segment/val.py hold the masks: read back they give the same pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from utils.data.labels import parse_labels
from utils.data.loader import Batch
from utils.tasks.segment.rasterize import MaskFormat
from utils.tasks.segment.validation import SegmentOutputs
from utils.val.outputs import OutputOptions


def test_masks_are_read_back_from_the_label_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    masks = np.zeros((4, 60, 80), np.uint8)
    masks[0, 5:31, 7:40] = 1
    masks[1, 20:50, 30:70] = rng.random((30, 40)) < 0.97  # with holes of a pixel
    masks[2, 40, 3] = 1
    detections = torch.tensor([[0, 0, 1, 1, 0.9 - 0.1 * k, k] for k in range(4)])
    outputs = SegmentOutputs(OutputOptions(tmp_path, save_txt=True, save_conf=True), {})
    batch = Batch(torch.zeros(1, 3, 64, 96), torch.zeros(0, 6), ["a/x.jpg"], [None])

    outputs.masks(batch, 0, detections, masks)

    lines = (tmp_path / "labels" / "x.txt").read_text().splitlines()
    assert [line.split()[-1] for line in lines] == ["0.9", "0.8", "0.7"], "the empty mask has no line"
    labels = parse_labels("\n".join(line.rpartition(" ")[0] for line in lines))
    assert labels.rows[:, 0].tolist() == [0, 1, 2] and not labels.errors
    drawn, _ = MaskFormat(1, overlap=False).draw([points * (80, 60) for points in labels.polygons], (60, 80))
    for mask, again in zip(masks, drawn, strict=False):
        assert (mask & again).sum() / (mask | again).sum() > 0.97
