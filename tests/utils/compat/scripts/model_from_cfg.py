import sys

import torch

from models.yolo import Model
from utils.dataloaders import LoadImages
from utils.general import intersect_dicts, non_max_suppression, scale_boxes

ckpt = torch.load(sys.argv[6], map_location="cpu", weights_only=False)
model = Model(ckpt["model"].yaml, ch=3, nc=2, anchors=None).to("cpu")
csd = intersect_dicts(ckpt["model"].float().state_dict(), model.state_dict(), exclude=["anchor"])
model.load_state_dict(csd, strict=False)
assert len(csd) >= len(model.state_dict()) - 1
model.eval()
result = []
for path, im, im0, cap, s in LoadImages(sys.argv[4], img_size=64):
    with torch.no_grad():
        pred = model(torch.from_numpy(im)[None].float() / 255)[0]
    det = non_max_suppression(pred, 0.001, 0.45)[0]
    det[:, :4] = scale_boxes(im.shape[1:], det[:, :4], im0.shape).round()
    result += det.tolist()
