"""A first estimate of how long a training takes, from one step of it; before anything is trained."""

from __future__ import annotations

import time
from argparse import Namespace

_START = 5.0  # seconds until a process trains
_PICTURES = 16  # of a batch, where --batch-size is to be chosen


def minutes_of_training(opt: Namespace) -> float | None:
    """Minutes that a candidate will take on this machine's CPU; None on other devices, which it would occupy.

    Reading of pictures and the last validation are not in it.

    Raises:
        ConfigError, DataError: model, weights or data that cannot be used.
    """
    import torch

    from models.yolo import DetectionModel
    from utils.base.device import select_device
    from utils.data.dataset_yaml import read_data_yaml
    from utils.data.letterbox import check_img_size
    from utils.data.scan import load_labels
    from utils.train.setup import find_weights, make_config

    data = read_data_yaml(opt.data, allow_download=opt.download)
    pictures = len(load_labels(data.train, prefix="train: ").images)
    if select_device(opt.device.split(",")[0], verbose=False).type != "cpu":
        return None
    model = DetectionModel(make_config(opt, find_weights(opt)), nc=data.nc).train()
    side = check_img_size(opt.imgsz, stride=int(model.stride.max()))
    batch = min(opt.batch_size if opt.batch_size > 0 else _PICTURES, pictures)
    images = torch.rand(batch, 3, side, side)
    seconds = 0.0
    for _ in range(2):  # the first one is slower than all others
        started = time.perf_counter()
        sum(level.square().mean() for level in model(images)).backward()
        seconds = time.perf_counter() - started
    return (_START + opt.epochs * -(-pictures // batch) * seconds) / 60
