"""Images with detections, plotted every n epochs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from utils.data.packed import PackedPaths
from utils.plots.annotator import write_image
from utils.train.callbacks import PredictionImages


def test_detections_are_plotted_every_n_epochs(tmp_path: Path) -> None:
    image = tmp_path / "1.jpg"
    write_image(image, np.zeros((50, 100, 3), np.uint8))
    found = torch.tensor([[10.0, 10, 90, 40, 0.9, 0]])
    before = found.clone()
    callback = PredictionImages(2, PackedPaths.of([str(image)]))
    callback.on_pretrain_routine_start(tmp_path)
    callback.on_pretrain_routine_end(np.zeros((0, 5)), {0: "cell"})
    for epoch in range(4):
        callback.on_train_epoch_end(epoch)
        for _ in range(20):  # more than are shown
            callback.on_val_image_end(found, str(image))
        callback.on_val_end(None)
    callback.on_val_image_end(found, str(image))  # of best.pt, which has images of its own
    callback.on_val_end(None)

    assert sorted(path.name for path in (tmp_path / "predictions").iterdir()) == ["epoch1.jpg", "epoch3.jpg"]
    assert torch.equal(found, before), "a callback changes nothing"
    assert not callback.found
