import argparse

import torch
from numpy import random

from models.experimental import attempt_load
from numpy import random
from utils.datasets import LoadStreams, LoadImages
from utils.general import check_img_size, check_requirements, check_imshow, non_max_suppression, apply_classifier, \
    scale_coords, xyxy2xywh, strip_optimizer, set_logging, increment_path
from utils.plots import plot_one_box
from utils.torch_utils import select_device, load_classifier, time_synchronized

parser = argparse.ArgumentParser()
parser.add_argument("--weights")
parser.add_argument("--source")
opt = parser.parse_args()
check_requirements(exclude=("pycocotools", "thop"))
set_logging()
device = select_device("cpu")
half = device.type != "cpu"
model = attempt_load(opt.weights, map_location=device)
stride = int(model.stride.max())
imgsz = check_img_size(64, s=stride)
dataset = LoadImages(opt.source, img_size=imgsz, stride=stride)
names = model.module.names if hasattr(model, "module") else model.names
colors = [[random.randint(0, 255) for _ in range(3)] for _ in names]
assert [name for i, name in enumerate(names)] == ["cell", "red plate"]
result = []
for path, img, im0s, vid_cap in dataset:
    img = torch.from_numpy(img).to(device)
    img = img.float() / 255.0
    if img.ndimension() == 3:
        img = img.unsqueeze(0)
    t1 = time_synchronized()
    pred = model(img, augment=False)[0]
    pred = non_max_suppression(pred, 0.001, 0.45, classes=None, agnostic=False)
    for det in pred:
        im0 = im0s
        gn = torch.tensor(im0.shape)[[1, 0, 1, 0]]
        if len(det):
            det[:, :4] = scale_coords(img.shape[2:], det[:, :4], im0.shape).round()
            for *xyxy, conf, cls in reversed(det):
                xywh = (xyxy2xywh(torch.tensor(xyxy).view(1, 4)) / gn).view(-1).tolist()
                assert len(xywh) == 4
                label = f"{names[int(cls)]} {conf:.2f}"
                plot_one_box(xyxy, im0, label=label, color=colors[int(cls)], line_thickness=3)
        result += det.tolist()
