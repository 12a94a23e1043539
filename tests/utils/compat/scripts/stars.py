import sys

from models.common import *
from models.experimental import *
from models.yolo import *
from utils.datasets import *
from utils.utils import *

model = attempt_load(sys.argv[2], "cpu")
assert (
    issubclass(Conv, nn.Module) and C3 and SPP and Focus and Concat and Bottleneck and yaml and json and math
)
assert glob and shutil and tqdm and random and Detect and torch_utils.select_device("cpu").type == "cpu"
result = []
for path, img, im0s, cap in LoadImages(sys.argv[4], 64):
    pred = model(torch.from_numpy(img)[None].float() / 255)[0]
    det = non_max_suppression(pred, 0.001, 0.45, fast=True, classes=None, agnostic=False)[0]
    det[:, :4] = scale_coords(img.shape[1:], det[:, :4], im0s.shape).round()
    result += det.tolist()
