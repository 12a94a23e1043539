import sys
from pathlib import Path

import torch

import detect
from detect import parse_opt
from utils.general import xywh2xyxy

sys.argv = [
    sys.argv[0],
    "--weights",
    sys.argv[2],
    "--source",
    sys.argv[4],
    "--device",
    "cpu",
    "--imgsz",
    "64",
]
sys.argv += [
    "--conf-thres",
    "0.001",
    "--save-txt",
    "--save-conf",
    "--project",
    "out",
    "--exist-ok",
    "--max-det",
    "300",
]
opt = parse_opt()
detect.run(**vars(opt))
(file,) = Path("out/exp/labels").glob("*.txt")
rows = torch.tensor([[float(value) for value in line.split()] for line in file.read_text().splitlines()])
import cv2

height, width = cv2.imread(sys.argv[4]).shape[:2]
boxes = xywh2xyxy(rows[:, 1:5] * torch.tensor([width, height, width, height])).round()
result = torch.cat((boxes, rows[:, 5:], rows[:, :1]), 1).tolist()
