import sys

import torch

from utils.datasets import *
from utils.general import *
from utils.torch_utils import *

device = select_device("cpu")
model = torch.load(sys.argv[6], map_location=device, weights_only=False)["model"].float().fuse().eval()
model.info(img_size=64)
assert model.names[1] == "red plate" and int(model.stride.max()) == 32
result = []
for path, img, im0s, vid_cap in LoadImages(sys.argv[4], img_size=64):
    t0 = time.time()
    img = torch.from_numpy(img).to(device).float() / 255.0
    pred = model(img.unsqueeze(0), augment=False)[0]
    for det in non_max_suppression(pred, 0.001, 0.45, classes=None, agnostic=False):
        det[:, :4] = scale_coords(img.shape[1:], det[:, :4], im0s.shape).round()
        result += det.tolist()
assert os.path.exists(sys.argv[4]) and np.array(result).shape[1] == 6 and isinstance(Path(path), Path)
