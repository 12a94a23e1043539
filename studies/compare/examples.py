"""Example images on which models disagree most, and how a report keeps them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from utils.base.errors import DataError
from utils.base.paths import atomic_write
from utils.base.progress import Bar

if TYPE_CHECKING:
    from models.backends.base import Backend
    from utils.data.dataset_yaml import DataSpec
    from utils.data.scan import LabelledFiles


KEPT = "report.json"


@dataclass(frozen=True)
class Example:
    """An image with the boxes of several sources side by side."""

    title: str
    panels: tuple[tuple[str, np.ndarray], ...]  # label, image (h, w, 3) uint8 BGR


@dataclass(frozen=True)
class Gallery:
    """The parts of a report that do not come from its csv files."""

    command: tuple[str, ...] = ()  # for the reader to repeat
    examples: tuple[Example, ...] = ()

    def write(self, folder: Path) -> None:
        """Write report.json, and the images into `folder`/examples."""
        from utils.plots.annotator import write_image

        examples = []
        for number, example in enumerate(self.examples, 1):
            panels = []
            for index, (label, image) in enumerate(example.panels):
                name = f"examples/{number}-{index}.jpg"
                write_image(folder / name, image)
                panels.append({"label": label, "file": name})
            examples.append({"title": example.title, "panels": panels})
        with atomic_write(folder / KEPT, "w", encoding="utf-8") as file:
            json.dump({"command": self.command, "examples": examples}, file, indent=1)


def read_gallery(folder: Path) -> Gallery:
    """Read what `Gallery.write` wrote; an empty one if nothing was.

    Raises:
        DataError: report.json or an image is damaged.
    """
    from utils.data.images import read_image

    file = folder / KEPT
    if not file.is_file():
        return Gallery()
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        examples = tuple(
            Example(
                str(one["title"]),
                tuple((str(panel["label"]), read_image(folder / panel["file"])) for panel in one["panels"]),
            )
            for one in content["examples"]
        )
        return Gallery(tuple(map(str, content["command"])), examples)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file}: damaged ({error!r}); delete it to do without its images") from error


SHOWN = 4  # models side by side, the first ones
LOOKED_AT = 500  # images of a set at most, evenly spread
TRUTH = "truth"
_CONFIDENCE, _OVERLAP = 0.25, 0.45  # as detect.py draws
_SAME = 0.5  # IoU from which two boxes are the same object
_WIDEST = 640  # pixels of an image on the page


class Split(NamedTuple):
    """The images to look at, and how."""

    data: DataSpec
    name: str  # train, val or test
    imgsz: int
    single_cls: bool
    device: str


def find_examples(models: Mapping[str, Path], split: Split, count: int) -> list[Example]:
    """Choose the images with the most boxes that only one of two models finds.

    A single model is compared with the labels.

    Args:
        models: weight files by label; the first is compared with each of the others.
        split: the images.
        count: of examples at most; images on which all agree are none.
    """
    from models.backends import load_backend
    from utils.base.device import select_device
    from utils.data.scan import load_labels

    names = {0: "item"} if split.single_cls else split.data.names
    files = load_labels(getattr(split.data, split.name), None if split.single_cls else names)
    indices = np.linspace(0, len(files.images) - 1, min(len(files.images), LOOKED_AT)).round().astype(int)
    device = select_device(split.device, verbose=False)
    truth = [_true_boxes(files, int(index), split.single_cls) for index in indices]
    found = {TRUTH: truth}
    for label, file in islice(models.items(), SHOWN):
        backend = load_backend([str(file)], device, names=names)
        images = Bar(indices.tolist(), f"what {label} finds")
        found[label] = [find_boxes(backend, files.images.read_image(i), split) for i in images]
    base, *others = list(found)[1:]
    pairs = [(base, other) for other in others] or [(base, TRUTH)]
    apart = np.array([[differing(found[a][i], found[b][i]) for a, b in pairs] for i in range(len(truth))])
    total = apart.sum(1)
    worst = [i for i in np.argsort(-total, kind="stable").tolist() if total[i]][:count]
    return [
        _example(
            files.images[indices[i]].name,
            files.images.read_image(indices[i]),
            {label: boxes[i] for label, boxes in found.items()},
            pairs[int(apart[i].argmax())],
            names,
        )
        for i in worst
    ]


def find_boxes(backend: Backend, image: np.ndarray, split: Split) -> np.ndarray:
    """What a model finds on an image (H, W, 3), as detect.py does: (n, 6) xyxy, confidence, class."""
    import torch

    from utils.data.letterbox import check_img_size, letterbox
    from utils.ops.boxes import scale_boxes
    from utils.ops.nms import non_max_suppression

    size = check_img_size(split.imgsz, stride=backend.stride)
    fitted, _, _ = letterbox(image, size, auto=backend.pt, stride=backend.stride)
    rgb = np.ascontiguousarray(fitted[..., ::-1].transpose(2, 0, 1)[None])
    images = torch.from_numpy(rgb).to(backend.device)
    images = (images.half() if backend.fp16 else images.float()) / 255
    with torch.inference_mode():
        (boxes,) = non_max_suppression(backend(images), _CONFIDENCE, _OVERLAP, agnostic=split.single_cls)
        scale_boxes(fitted.shape[:2], boxes[:, :4], image.shape[:2])
    if split.single_cls:
        boxes[:, 5] = 0
    return boxes.float().cpu().numpy()


def alone(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which of `boxes` (n, 6) have no partner of their class among `others` (m, 6) at IoU 0.5: (n,) bool."""
    import torch

    from utils.ops.metrics import match_predictions

    one, two = torch.from_numpy(boxes), torch.from_numpy(others)
    labels = torch.cat((two[:, 5:], two[:, :4]), 1)
    return ~match_predictions(one, labels, torch.tensor([_SAME]), "coco")[:, 0].numpy()


def differing(a: np.ndarray, b: np.ndarray) -> int:
    """How many boxes of either are not among the other's."""
    return int(alone(a, b).sum() + alone(b, a).sum())


def _true_boxes(files: LabelledFiles, index: int, single_cls: bool) -> np.ndarray:
    """The labels of an image as if a model had found them, with confidence 1."""
    from utils.ops.boxes import xywhn2xyxy

    labels = files.labels[index]
    width, height = files.sizes[index]
    boxes = np.ones((len(labels), 6), np.float32)
    boxes[:, :4] = xywhn2xyxy(labels[:, 1:], width, height)
    boxes[:, 5] = 0 if single_cls else labels[:, 0]
    return boxes


def _example(
    name: str,
    image: np.ndarray,
    boxes: Mapping[str, np.ndarray],
    pair: tuple[str, str],
    names: Mapping[int, str],
) -> Example:
    """Draw an image once for each model; what its counterpart of the pair does not find is emphasized."""
    base, other = pair
    strange = {label: alone(rows, boxes[other if label == base else base]) for label, rows in boxes.items()}
    told = f"{strange[base].sum()} only in {base}, {strange[other].sum()} only in {other}"
    strange[TRUTH] = np.ones(len(boxes[TRUTH]), bool)
    panels = tuple((label, _draw(image, rows, strange[label], names)) for label, rows in boxes.items())
    return Example(f"{name}: {told}", panels)


def _draw(image: np.ndarray, boxes: np.ndarray, strong: np.ndarray, names: Mapping[int, str]) -> np.ndarray:
    """Strong boxes with their names, the others as thin lines."""
    import cv2

    from utils.plots.annotator import Annotator, colors

    gain = min(_WIDEST / max(image.shape[:2]), 1.0)
    height, width = (max(round(side * gain), 1) for side in image.shape[:2])
    paper = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    thin, thick = Annotator(paper, line_width=1), Annotator(paper)
    for index in np.argsort(strong, kind="stable"):
        *xyxy, confidence, kind = boxes[index].tolist()
        name = names.get(int(kind), str(int(kind)))
        label = name if confidence == 1 else f"{name} {confidence:.2f}"
        pen = thick if strong[index] else thin
        pen.box_label([v * gain for v in xyxy], label if strong[index] else "", colors(int(kind), bgr=True))
    return paper
