import sys

import cv2
import numpy as np
import torch

from models.common import DetectMultiBackend
from utils.augmentations import letterbox
from utils.general import check_img_size, non_max_suppression, scale_boxes
from utils.plots import Annotator, colors
from utils.torch_utils import select_device


class Window:
    def __init__(self, weights):
        self.device = select_device("cpu")
        self.model = DetectMultiBackend(weights=weights, device=self.device, dnn=False, data="", fp16=False)
        self.names = self.model.names
        self.imgsz = check_img_size((64, 64), s=self.model.stride)
        self.model.warmup(imgsz=(1, 3, *self.imgsz))

    @torch.no_grad()
    def show(self, image):
        im = letterbox(image, self.imgsz, stride=self.model.stride, auto=self.model.pt)[0]
        im = np.ascontiguousarray(im.transpose((2, 0, 1))[::-1])
        im = torch.from_numpy(im).to(self.model.device).float() / 255
        det = non_max_suppression(self.model(im[None], augment=False), 0.001, 0.45, None, False, max_det=300)[
            0
        ]
        det[:, :4] = scale_boxes(im.shape[1:], det[:, :4], image.shape).round()
        annotator = Annotator(image.copy(), line_width=3, example=str(self.names))
        for *xyxy, conf, cls in reversed(det):
            annotator.box_label(xyxy, self.names[int(cls)], color=colors(int(cls), True))
        return det, annotator.result()


window = Window(sys.argv[2])
boxes, drawn = window.show(cv2.imread(sys.argv[4]))
result = boxes.tolist()
