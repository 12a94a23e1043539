import sys

import torch

from models.experimental import attempt_load
from utils.datasets import LoadImages, LoadStreams
from utils.general import apply_classifier, check_img_size, check_imshow, check_requirements, check_suffix, colorstr, \
    increment_path, is_ascii, non_max_suppression, print_args, save_one_box, scale_coords, set_logging, \
    strip_optimizer, xyxy2xywh
from utils.plots import Annotator, colors
from utils.torch_utils import load_classifier, select_device, time_sync

weights, source = sys.argv[2], sys.argv[4]
set_logging()
device = select_device("cpu")
check_suffix(weights, [".pt", ".onnx", ".tflite", ".pb", ""])
model = attempt_load(weights, map_location=device)
stride = int(model.stride.max())
names = model.module.names if hasattr(model, "module") else model.names
ascii = is_ascii(names)
dataset = LoadImages(source, img_size=64, stride=stride, auto=True)
dt, seen, result = [0.0, 0.0, 0.0], 0, []
for path, img, im0s, vid_cap in dataset:
    t1 = time_sync()
    img = torch.from_numpy(img).to(device).float()
    img = img / 255.0
    if len(img.shape) == 3:
        img = img[None]
    t2 = time_sync()
    dt[0] += t2 - t1
    pred = model(img, augment=False, visualize=False)[0]
    pred = non_max_suppression(pred, 0.001, 0.45, None, False, max_det=1000)
    for i, det in enumerate(pred):
        seen += 1
        im0, number = im0s.copy(), dataset.count
        s = f"{number}: "
        annotator = Annotator(im0, line_width=3, pil=not ascii)
        det[:, :4] = scale_coords(img.shape[2:], det[:, :4], im0.shape).round()
        for c in det[:, 5].unique():
            s += names[int(c)] + f" {int((det[:, 5] == c).sum())} "
        for *xyxy, conf, cls in reversed(det):
            annotator.box_label(xyxy, f"{names[int(cls)]} {conf:.2f}", color=colors(int(cls), True))
        assert annotator.result() is im0
        result += det.tolist()
