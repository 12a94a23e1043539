"""YOLOv5's `utils.plots`: Annotator, colours, crops, and plots of training."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from utils.base.errors import DataError
from utils.base.log import LOG
from utils.base.names import class_names
from utils.compat.augment import denormalize
from utils.compat.helpers import increment_path
from utils.plots import annotator as ours
from utils.plots import batches
from utils.plots.annotator import PALETTE_RGB, crop_box, write_image


class Colors:
    """Twenty colours, which repeat: `colors(index)` is (r, g, b), `colors(index, True)` is (b, g, r)."""

    def __init__(self) -> None:
        self.palette = [ours.colors(index) for index in range(len(PALETTE_RGB))]
        self.n = len(self.palette)

    def __call__(self, i: Any, bgr: bool = False) -> tuple[int, int, int]:
        return ours.colors(int(i), bool(bgr))

    @staticmethod
    def hex2rgb(h: str) -> tuple[int, ...]:
        """Return (r, g, b) of a colour such as #FF3838."""
        return tuple(int(h[1 + i : 3 + i], 16) for i in (0, 2, 4))


colors = Colors()


def color_list() -> list[tuple[int, int, int]]:
    """Return the colours as (r, g, b)."""
    return list(colors.palette)


class Annotator:
    """Annotator of an image: an array (H, W, 3) uint8 BGR, drawn on in place, or a PIL image.

    Args:
        im: the image; a PIL image is copied to an RGB array, which `result` returns.
        line_width: width of lines in pixels; by default it follows the size of the image.
        font_size, font, example: accepted for compatibility; the font that is there has most scripts.
        pil: `fromarray` and the methods for PIL accept it; drawing is the same.

    Raises:
        AssertionError: rows of the array are not contiguous.
    """

    def __init__(
        self,
        im: Any,
        line_width: int | None = None,
        font_size: float | None = None,
        font: str = "Arial.ttf",
        pil: bool = False,
        example: Any = "abc",
    ) -> None:
        self.pil = pil or not isinstance(im, np.ndarray)
        if isinstance(im, np.ndarray):
            if not im.data.contiguous:
                raise AssertionError("Image not contiguous: use np.ascontiguousarray(im) first")
            self.im: Any = im
        else:
            self.im = np.array(im.convert("RGB"))  # colours are RGB then, as the original has it
        self.lw = line_width or max(round(sum(self.im.shape) / 2 * 0.003), 2)
        self._drawer = ours.Annotator(self.im, self.lw)

    def box_label(
        self,
        box: Sequence[Any],
        label: str = "",
        color: Any = (128, 128, 128),
        txt_color: Any = (255, 255, 255),
    ) -> None:
        """Draw a box (x1, y1, x2, y2), with a label unless it is empty."""
        corners = [float(value) for value in box[:4]]
        blue, green, red = (int(value) for value in color[:3])
        self._drawer.box_label(corners, str(label) if label else "", (blue, green, red))

    def rectangle(self, xy: Any, fill: Any = None, outline: Any = None, width: int = 1) -> None:
        """Draw a rectangle (x1, y1, x2, y2)."""
        x1, y1, x2, y2 = (int(value) for value in np.asarray(xy).reshape(-1))
        if fill is not None:
            cv2.rectangle(self.im, (x1, y1), (x2, y2), fill, cv2.FILLED)
        if outline is not None:
            cv2.rectangle(self.im, (x1, y1), (x2, y2), outline, width)

    def text(self, xy: Any, text: str, txt_color: Any = (255, 255, 255), anchor: str = "top") -> None:
        """Write text, with its top left (or for anchor `bottom` its bottom left) corner at `xy`."""
        x, y = (int(value) for value in xy)
        scale = self.lw / 3
        if anchor != "bottom":
            y += ours.text_size(text, scale)[1]
        ours.draw_text(self.im, text, (x, y), scale, txt_color)

    def masks(self, masks: Any, colors: Any, im_gpu: Any = None, alpha: float = 0.5, **ignored: Any) -> None:
        """Blend masks (n, h, w) into the image, each in its colour (RGB); see `utils.compat.masks`."""
        from utils.compat.masks import blend_masks

        blend_masks(self.im, masks, colors, im_gpu, alpha)

    def fromarray(self, im: np.ndarray) -> None:
        """Draw on another array from now on."""
        self.im = np.ascontiguousarray(im)
        self._drawer = ours.Annotator(self.im, self.lw)

    def result(self) -> np.ndarray:
        """Return the image as an array BGR; the very array that was given, if it was one."""
        return self.im


def save_one_box(
    xyxy: Any,
    im: np.ndarray,
    file: Any = Path("image.jpg"),
    gain: float = 1.02,
    pad: int = 10,
    square: bool = False,
    BGR: bool = False,
    save: bool = True,
) -> np.ndarray:
    """Crop a box, enlarged by `gain` and `pad` pixels; return the crop, RGB unless `BGR`.

    With `save` it is written to `file`, or to the first free file2, file3, ...
    """
    flat = xyxy.reshape(-1) if hasattr(xyxy, "reshape") else xyxy  # a list may hold tensors on a GPU
    x1, y1, x2, y2 = (float(value) for value in flat[:4])
    if square:
        half = max(x2 - x1, y2 - y1) / 2
        x, y = (x1 + x2) / 2, (y1 + y2) / 2
        x1, y1, x2, y2 = x - half, y - half, x + half, y + half
    crop = crop_box((x1, y1, x2, y2), im, gain, pad)
    crop = crop if BGR else crop[..., ::-1]
    if save and crop.size:
        path = increment_path(Path(file).with_suffix(".jpg"))
        write_image(path, np.ascontiguousarray(crop if BGR else crop[..., ::-1]), full_chroma=True)
    return crop


def plot_one_box(
    x: Any,
    img: Any = None,
    color: Any = None,
    label: str | None = None,
    line_thickness: int | None = None,
    im: Any = None,
) -> None:
    """Draw a box and a label into `img` in place; `color` is BGR, a random one for None."""
    chosen = color or [random.randint(0, 255) for _ in range(3)]
    Annotator(img if im is None else im, line_thickness).box_label(x, label or "", chosen)


def plot_one_box_PIL(
    box: Any, img: np.ndarray, color: Any = None, label: str | None = None, line_thickness: int | None = None
) -> np.ndarray:
    """Return a copy of an image (H, W, 3) with a box and a label."""
    copy = np.ascontiguousarray(img).copy()
    plot_one_box(box, copy, color, label, line_thickness)
    return copy


def plot_images(
    images: Any,
    targets: Any,
    paths: Any = None,
    fname: Any = "images.jpg",
    names: Any = None,
    max_size: int = 1920,
    max_subplots: int = 16,
) -> None:
    """Draw at most 16 images (B, 3, H, W) with boxes (n, 6 or 7) as a mosaic, and write it."""
    batches.plot_images(images, targets, paths, Path(fname), names, max_subplots)


def plot_labels(labels: Any, names: Any = (), save_dir: Any = Path()) -> None:
    """Write labels.jpg and labels_correlogram.jpg of labels (n, 5) to a folder."""
    labels = np.asarray(labels)
    batches.plot_labels(labels, class_names(names) if names else {}, Path(save_dir))


def plot_results(file: Any = "path/to/results.csv", dir: Any = "", **old: Any) -> None:
    """Write results.png beside a results.csv, or beside each results*.csv in `dir` (`save_dir`).

    Raises:
        AssertionError: there is no such file.
    """
    from utils.plots.results import plot_results as plot

    folder = Path(dir or old.get("save_dir") or Path(file).parent)
    files = sorted(folder.glob("results*.csv"))
    if not files and list(folder.glob("results*.txt")):
        LOG.warning(f"{folder}: results.txt of v5.0 is not drawn, only results.csv")
    elif not files:
        raise AssertionError(f"{folder}: no results.csv")
    for found in files:
        plot(found)


def plot_evolve(evolve_csv: Any = "path/to/evolve.csv") -> None:
    """Write evolve.png of an evolve.csv beside it.

    Raises:
        DataError: the file cannot be read.
    """
    from utils.plots.results import plot_evolution, read_results
    from utils.train.hyp import load_hyp

    file = Path(evolve_csv)
    table, known = read_results(file), load_hyp({})
    scores = np.asarray(0.1 * table["metrics/mAP_0.5"] + 0.9 * table["metrics/mAP_0.5:0.95"])
    genes = {name: values.tolist() for name, values in table.items() if name in known}
    if not genes:
        raise DataError(f"{file}: no hyperparameters in it")
    plot_evolution(genes, scores.tolist(), file.with_suffix(".png"))


def feature_visualization(
    x: Any, module_type: str, stage: int, n: int = 32, save_dir: Any = Path("runs/detect/exp")
) -> None:
    """Write the first channels of a feature map (1, C, H, W) as an image to a folder."""
    from utils.plots.figure import plot_features

    if "Detect" not in module_type:
        plot_features(x, module_type, stage, Path(save_dir), n)


def hist2d(x: np.ndarray, y: np.ndarray, n: int = 100) -> np.ndarray:
    """Return the logarithm of the number of points in the bin of each point."""
    edges = [np.linspace(values.min(), values.max(), n) for values in (x, y)]
    counts, *_ = np.histogram2d(x, y, edges)
    bins = [np.clip(np.digitize(v, e) - 1, 0, n - 2) for v, e in zip((x, y), edges, strict=True)]
    return np.log(counts[bins[0], bins[1]])


def butter_lowpass_filtfilt(data: np.ndarray, cutoff: float = 1500, fs: float = 50000, order: int = 5) -> Any:
    """Return data through a Butterworth low-pass filter, forwards and backwards."""
    from scipy.signal import butter, filtfilt

    b, a = butter(order, cutoff / (0.5 * fs), btype="low", analog=False)
    return filtfilt(b, a, data)


def plot_lr_scheduler(optimizer: Any, scheduler: Any, epochs: int = 300, save_dir: Any = "") -> None:
    """Write LR.png: the learning rate that a scheduler gives in each epoch."""
    from copy import copy

    from utils.plots.figure import new_figure, save_figure

    optimizer, scheduler = copy(optimizer), copy(scheduler)
    rates = []
    for _ in range(epochs):
        scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
    figure = new_figure(8, 5)
    axes = figure.subplots()
    axes.plot(rates, ".-", label="LR")
    axes.set_xlabel("epoch")
    save_figure(figure, Path(save_dir) / "LR.png", 200)


def imshow_cls(
    im: Any,
    labels: Any = None,
    pred: Any = None,
    names: Any = None,
    nmax: int = 25,
    verbose: bool = False,
    f: Any = Path("images.jpg"),
) -> Path:
    """Write at most `nmax` normalized images (B, 3, H, W) with their classes as a mosaic; return its path.

    Args:
        im: images.
        labels: (B,) their classes; None: no titles.
        pred: (B,) classes that were predicted, which follow in the titles.
        names: of the classes.
        nmax: largest number of images.
        verbose: log the path and the titles.
        f: image to write.
    """
    by_index = class_names(names or {})
    shown = denormalize(im[:nmax].detach().float().cpu().clone()).clamp(0, 1)

    def named(classes: Any) -> list[str]:
        return [by_index.get(int(index), f"class{int(index)}") for index in classes[:nmax]]

    titles = None if labels is None else named(labels)
    if titles is not None and pred is not None:
        titles = [f"{true} - {found}" for true, found in zip(titles, named(pred), strict=True)]
    batches.plot_images(shown, (), titles, Path(f), max_subplots=nmax)
    if verbose:
        LOG.info(f"Saved {f}: {', '.join(titles or ())}")
    return Path(f)
