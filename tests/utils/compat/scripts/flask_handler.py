import io
import sys

import torch
from PIL import Image

from models.common import AutoShape, DetectMultiBackend

model = AutoShape(DetectMultiBackend(sys.argv[2], device=torch.device("cpu")))
model.conf, model.iou, model.max_det = 0.001, 0.45, 300


def predict(data):
    image = Image.open(io.BytesIO(data))
    return model(image, size=64)


results = predict(open(sys.argv[4], "rb").read())
records = results.pandas().xyxy[0].to_dict(orient="records")
result = results.xyxy[0].round().tolist()
for row, exact in zip(result, results.xyxy[0].tolist()):
    row[4:] = exact[4:]
assert len(records) == len(result)
