import sys
from pathlib import Path

import torch

from models.common import DetectMultiBackend
from utils.dataloaders import IMG_FORMATS, VID_FORMATS, LoadImages, LoadScreenshots, LoadStreams
from utils.general import LOGGER, Profile, cv2, colorstr, print_args, check_requirements, check_imshow, check_file
from utils.general import non_max_suppression, scale_boxes, xyxy2xywh, strip_optimizer, increment_path, check_img_size
from utils.plots import Annotator, colors, save_one_box
from utils.torch_utils import select_device, smart_inference_mode

result = []


@smart_inference_mode()
def run(weights, source, imgsz=(64, 64), save_dir=Path("crops")):
    print_args(None)
    is_file = Path(source).suffix[1:] in (IMG_FORMATS + VID_FORMATS)
    assert is_file
    device = select_device("cpu")
    model = DetectMultiBackend(weights, device=device, dnn=False, data="data/coco128.yaml", fp16=False)
    names, stride = model.names, model.stride
    pt = model.pt
    imgsz = check_img_size(imgsz, s=stride)
    dataset = LoadImages(source, img_size=imgsz, stride=stride, auto=pt, vid_stride=1)
    dt = [Profile() for _ in range(3)]
    assert not model.triton
    model.warmup(imgsz=(1, 3, *imgsz))
    for path, im, im0s, vid_cap, s in dataset:
        with dt[0]:
            im = torch.from_numpy(im)[None].to(model.device).float() / 255
            im = im.half() if model.fp16 else im
        with dt[1]:
            pred = model(im, augment=False, visualize=False)
        with dt[2]:
            pred = non_max_suppression(pred, 0.001, 0.45, None, False, max_det=300)
        for det in pred:
            im0, frame = im0s.copy(), getattr(dataset, "frame", 0)
            annotator = Annotator(im0, line_width=3, example=str(names))
            det[:, :4] = scale_boxes(im.shape[2:], det[:, :4], im0.shape).round()
            for *xyxy, conf, cls in reversed(det):
                annotator.box_label(xyxy, f"{names[int(cls)]} {conf:.2f}", color=colors(int(cls), True))
                save_one_box(xyxy, im0s, file=save_dir / f"{names[int(cls)]}.jpg", BGR=True)
            result.extend(det.tolist())
        LOGGER.info(f"{s}{'' if len(det) else '(no detections), '}{dt[1].dt * 1e3:.1f}ms")


run(sys.argv[2], sys.argv[4])
