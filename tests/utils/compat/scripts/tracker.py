import sys

import torch

from models.experimental import attempt_load
from utils.dataloaders import LoadImages
from utils.general import check_img_size, non_max_suppression, scale_boxes, xyxy2xywh
from utils.plots import colors, plot_one_box
from utils.torch_utils import select_device


class Tracker:
    def __init__(self):
        self.tracks = []

    def update(self, xywhs, confs, classes, image):
        self.tracks += torch.cat((xywhs, confs[:, None], classes[:, None]), 1).tolist()


device = select_device("0" if torch.cuda.is_available() else "cpu")
model = attempt_load(sys.argv[2], device=device)
stride = model.stride.max()
imgsz = check_img_size(64, s=stride)
model.to(device).eval()
model(torch.zeros(1, 3, imgsz, imgsz).to(device).type_as(next(model.parameters())))
tracker = Tracker()
result = []
for frame_idx, (path, img, im0s, vid_cap, s) in enumerate(LoadImages(sys.argv[4], img_size=imgsz)):
    img = torch.from_numpy(img).to(device).float() / 255.0
    det = non_max_suppression(model(img[None])[0], 0.001, 0.45)[0]
    det[:, :4] = scale_boxes(img.shape[1:], det[:, :4], im0s.shape).round()
    tracker.update(xyxy2xywh(det[:, 0:4]), det[:, 4], det[:, 5], im0s)
    for *box, conf, cls in det:
        plot_one_box(box, im0s, label=f"{int(cls)}", color=colors(cls, True), line_thickness=2)
    result += det.tolist()
assert len(tracker.tracks) == len(result)
