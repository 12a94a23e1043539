import sys

import cv2
import numpy as np
import torch

from models.experimental import attempt_load
from utils.augmentations import letterbox
from utils.general import non_max_suppression, scale_coords

model = attempt_load(sys.argv[2], map_location="cpu")
image = cv2.imread(sys.argv[4])
img = letterbox(image, 64, stride=int(model.stride.max()), auto=True)[0]
img = img[:, :, ::-1].transpose(2, 0, 1)
img = torch.from_numpy(np.ascontiguousarray(img)).float().unsqueeze(0) / 255.0
with torch.no_grad():
    pred = non_max_suppression(model(img)[0], conf_thres=0.001, iou_thres=0.45)
result = []
for det in pred:
    if det is not None and len(det):
        det[:, :4] = scale_coords(img.shape[2:], det[:, :4], image.shape).round()
        result += det.numpy().tolist()
