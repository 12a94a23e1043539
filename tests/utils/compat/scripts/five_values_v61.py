import sys

import torch

from models.common import DetectMultiBackend
from utils.datasets import IMG_FORMATS, VID_FORMATS, LoadImages, LoadStreams
from utils.general import LOGGER, check_img_size, non_max_suppression, scale_coords
from utils.torch_utils import select_device, time_sync

device = select_device("cpu")
model = DetectMultiBackend(sys.argv[2], device=device, dnn=False)
stride, names, pt, jit, onnx, engine = (
    model.stride,
    model.names,
    model.pt,
    model.jit,
    model.onnx,
    model.engine,
)
half = (pt or jit or onnx or engine) and device.type != "cpu"
if pt or jit:
    model.model.half() if half else model.model.float()
dataset = LoadImages(sys.argv[4], img_size=64, stride=stride, auto=pt)
model.warmup(imgsz=(1, 3, 64, 64), half=half)
result = []
for path, im, im0s, vid_cap, s in dataset:
    im = torch.from_numpy(im).to(device).float() / 255
    pred = model(im[None], augment=False, visualize=False)
    for det in non_max_suppression(pred, 0.001, 0.45, None, False, max_det=300):
        det[:, :4] = scale_coords(im.shape[1:], det[:, :4], im0s.shape).round()
        result += det.tolist()
