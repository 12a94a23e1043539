"""Example images on which models disagree most, and the files in which a report keeps them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from utils.base.errors import DataError
from utils.base.log import Bar
from utils.base.paths import atomic_write

if TYPE_CHECKING:
    from models.backends.base import Backend
    from utils.data.dataset_yaml import DataSpec
    from utils.data.scan import LabelledFiles


KEPT = "report.json"


@dataclass(frozen=True)
class Example:
    """An image, drawn once with what each model finds."""

    title: str
    panels: tuple[tuple[str, np.ndarray], ...]  # label, image (h, w, 3) uint8 BGR


@dataclass(frozen=True)
class Gallery:
    """Command line and example images of a report, which its csv files do not contain."""

    command: tuple[str, ...] = ()  # command line of the comparison
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
    """Read a gallery from a report folder; an empty one if there is none.

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
        raise DataError(f"{file}: damaged ({error!r}); delete it to do without example images") from error


MAX_MODELS = 4  # side by side
MAX_IMAGES = 500  # evenly spaced among the images of the split
TRUTH = "truth"
CONF_THRES, _IOU_THRES = 0.25, 0.45  # the defaults of detect.py
_MATCH_IOU = 0.5  # from which on two boxes are the same object
_LONGEST = 640  # pixels of an image on the page


class Split(NamedTuple):
    """The images to run on, and the options for it."""

    data: DataSpec
    name: str  # train, val or test
    imgsz: int
    single_cls: bool
    device: str
    task: str = "detect"

    @property
    def names(self) -> dict[int, str]:
        """Names of the classes."""
        return {0: "item"} if self.single_cls else self.data.names


class Objects(NamedTuple):
    """What a model finds in an image, or what its labels say."""

    boxes: np.ndarray  # (n, 6) xyxy in pixels of the image, confidence, class
    polygons: Sequence[np.ndarray] = ()  # (k, 2) fractions of the image for each box; none for detection


class View(Protocol):
    """What models of a task find in the images of a split."""

    files: LabelledFiles

    def truth(self, index: int) -> Any:
        """Return what the labels of an image say."""
        ...

    def find(self, backend: Backend, image: np.ndarray) -> Any:
        """Return what a model finds in an image (H, W, 3) BGR."""
        ...

    def difference(self, a: Any, b: Any) -> float:
        """Return how far two findings differ; 0 if they agree."""
        ...

    def describe(self, found: Mapping[str, Any], pair: tuple[str, str]) -> str:
        """Describe how the models of a pair, by label, differ."""
        ...

    def panels(
        self, image: np.ndarray, found: Mapping[str, Any], pair: tuple[str, str]
    ) -> tuple[tuple[str, np.ndarray], ...]:
        """Draw the image with the findings of each model, and with captions."""
        ...


def find_examples(models: Mapping[str, Path], split: Split, count: int) -> list[Example]:
    """Choose the images on which two models differ most, see `View.difference`.

    A single model is compared with the labels.

    Args:
        models: weight files by label; the first is compared with each of the others.
        split: the images.
        count: maximum number of examples; images on which all models agree are left out.
    """
    from models.backends import load_backend
    from utils.base.device import select_device

    view = _view_of(split)
    device = select_device(split.device, verbose=False)
    indices = _spaced(len(view.files.images))
    found: dict[str, list[Any]] = {}
    for label, file in islice(models.items(), MAX_MODELS):
        backend = load_backend([str(file)], device, names=split.names)
        numbers = Bar(indices, f"predicting with {label}")
        found[label] = [view.find(backend, view.files.images.read_image(i)) for i in numbers]
    return _choose(view, found, indices, count)


def examples_of_findings(
    findings: Mapping[str, Callable[[int], Objects]], split: Split, count: int
) -> list[Example]:
    """Choose examples like `find_examples` from what models have found.

    Args:
        findings: by label, a function from the index of an image to its detections.
        split: the images.
        count: maximum number of examples.
    """
    view = _view_of(split)
    indices = _spaced(len(view.files.images))
    chosen = islice(findings.items(), MAX_MODELS)
    return _choose(view, {label: list(map(of, indices)) for label, of in chosen}, indices, count)


def _spaced(count: int) -> list[int]:
    """Return the indices of at most MAX_IMAGES of `count` images."""
    return [int(index) for index in np.linspace(0, count - 1, min(count, MAX_IMAGES)).round()]


def _choose(
    view: View, of_models: Mapping[str, Sequence[Any]], indices: Sequence[int], count: int
) -> list[Example]:
    """Return the images with these indices on which models differ most; `of_models`: findings by label."""
    images = view.files.images
    found = {TRUTH: [view.truth(index) for index in indices], **of_models}
    base, *others = of_models
    pairs = [(base, other) for other in others] or [(base, TRUTH)]
    differing = np.array(
        [[view.difference(found[a][i], found[b][i]) for a, b in pairs] for i in range(len(indices))]
    )
    total = differing.sum(1)
    examples = []
    for i in [i for i in np.argsort(-total, kind="stable").tolist() if total[i]][:count]:
        pair = pairs[int(differing[i].argmax())]
        of_image = {label: of_images[i] for label, of_images in found.items()}
        title = f"{images[indices[i]].name}: {view.describe(of_image, pair)}"
        examples.append(Example(title, view.panels(images.read_image(indices[i]), of_image, pair)))
    return examples


def _view_of(split: Split) -> View:
    if split.task != "classify":
        return BoxView(split)
    from studies.compare.class_examples import ClassView
    from utils.data.class_folders import load_split

    files = load_split(split.data, split.name, split.names)
    return ClassView(files, split.names, split.imgsz, TRUTH)


class BoxView:
    """Boxes of detectors, and polygons of masks; those that the other model of a pair lacks are bold."""

    def __init__(self, split: Split) -> None:
        from utils.data.scan import load_labels

        self.split = split
        sources = getattr(split.data, split.name)
        names = None if split.single_cls else split.names
        self.files = load_labels(sources, names, root=split.data.root, boxes=split.task != "segment")

    def truth(self, index: int) -> Objects:
        return _true_objects(self.files, index, self.split.single_cls)

    def find(self, backend: Backend, image: np.ndarray) -> Objects:
        return detect(backend, image, self.split)

    def difference(self, a: Objects, b: Objects) -> float:
        return count_unmatched(a.boxes, b.boxes)

    def describe(self, found: Mapping[str, Objects], pair: tuple[str, str]) -> str:
        strong = _without_partner(found, pair)
        return ", ".join(f"{strong[label].sum()} only in {label}" for label in pair)

    def panels(
        self, image: np.ndarray, found: Mapping[str, Objects], pair: tuple[str, str]
    ) -> tuple[tuple[str, np.ndarray], ...]:
        strong = _without_partner(found, pair)
        strong[TRUTH] = np.ones(len(found[TRUTH].boxes), bool)
        names = self.split.names
        return tuple((label, _draw(image, one, strong[label], names)) for label, one in found.items())


def _without_partner(found: Mapping[str, Objects], pair: tuple[str, str]) -> dict[str, np.ndarray]:
    """Return which objects of each model the first of the pair lacks; of that one, the second: (n,) bool."""
    base, other = pair
    return {
        label: unmatched(one.boxes, found[other if label == base else base].boxes)
        for label, one in found.items()
    }


def detect(backend: Backend, image: np.ndarray, split: Split) -> Objects:
    """Return what a model finds in an image (H, W, 3), as detect.py or segment/predict.py does."""
    import torch

    from utils.data.letterbox import check_img_size, letterbox, to_tensor
    from utils.ops.boxes import scale_boxes
    from utils.ops.nms import non_max_suppression
    from utils.tasks.segment.prediction import FrameMasks

    size = check_img_size(split.imgsz, stride=backend.stride)
    fitted, _, _ = letterbox(image, size, auto=backend.pt, stride=backend.stride)
    images = to_tensor([fitted], backend.device, backend.fp16)
    image_hw, input_hw = image.shape[:2], fitted.shape[:2]
    with torch.inference_mode():
        output = backend(images)
        decoded, protos = output if backend.task == "segment" else (output, None)
        nm = 0 if protos is None else protos.shape[1]
        (found,) = non_max_suppression(decoded, CONF_THRES, _IOU_THRES, agnostic=split.single_cls, nm=nm)
        boxes = scale_boxes(input_hw, found[:, :6].clone(), image_hw).cpu().numpy()
        masks = None if protos is None else FrameMasks.of(protos[0], found, input_hw, boxes, image_hw)
    if split.single_cls:
        boxes[:, 5] = 0
    return Objects(boxes, masks.polygons() if masks is not None else ())


def unmatched(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return which of `boxes` (n, 6) match none of `others` (m, 6) of their class at IoU 0.5: (n,) bool."""
    import torch

    from utils.ops.metrics import match_predictions

    one, two = torch.from_numpy(boxes), torch.from_numpy(others)
    labels = torch.cat((two[:, 5:], two[:, :4]), 1)
    return ~match_predictions(one, labels, torch.tensor([_MATCH_IOU]), "coco")[:, 0].numpy()


def count_unmatched(a: np.ndarray, b: np.ndarray) -> int:
    """Count the boxes of either (n, 6), (m, 6) that match none of the other."""
    return int(unmatched(a, b).sum() + unmatched(b, a).sum())


def _true_objects(files: LabelledFiles, index: int, single_cls: bool) -> Objects:
    """Return the labels of an image as detections with confidence 1."""
    from utils.ops.boxes import xywhn2xyxy

    labels = files.labels[index]
    width, height = files.sizes[index]
    boxes = np.ones((len(labels), 6), np.float32)
    boxes[:, :4] = xywhn2xyxy(labels[:, 1:], width, height)
    boxes[:, 5] = 0 if single_cls else labels[:, 0]
    return Objects(boxes, files.polygons[index])


def _draw(image: np.ndarray, found: Objects, strong: np.ndarray, names: Mapping[int, str]) -> np.ndarray:
    """Draw strong objects with class names, the others with thin lines."""
    import cv2

    from utils.plots.annotator import Annotator, colors

    gain = min(_LONGEST / max(image.shape[:2]), 1.0)
    height, width = (max(round(side * gain), 1) for side in image.shape[:2])
    canvas = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    thin, thick = Annotator(canvas, line_width=1), Annotator(canvas)
    for index in np.argsort(strong, kind="stable"):
        *xyxy, confidence, kind = found.boxes[index].tolist()
        name = names.get(int(kind), str(int(kind)))
        label = name if confidence == 1 else f"{name} {confidence:.2f}"
        pen, color = thick if strong[index] else thin, colors(int(kind), bgr=True)
        pen.box_label([v * gain for v in xyxy], label if strong[index] else "", color)
        if found.polygons and len(found.polygons[index]):
            points = (found.polygons[index] * (width, height)).round().astype(np.int32)
            cv2.polylines(canvas, [points], True, color, pen.line_width, cv2.LINE_AA)
    return canvas
