"""From source and models to figures: one pass over the images, every model on each."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from studies.explain.labelled_models import load_labelled_models
from studies.explain.model_inputs import ModelInputs, frames_of, open_images
from studies.explain.visualize_options import VisualizeOptions
from studies.explain.visualizers import VISUALIZERS, VisualizeSummary, kinds_that_apply
from utils.base.device import select_device
from utils.base.log import LOG, color
from utils.base.paths import increment_path
from utils.base.progress import Bar
from utils.data.images import is_image
from utils.data.letterbox import check_img_size


def visualize(options: VisualizeOptions) -> VisualizeSummary:
    """Draw what `options.kind` asks for, of every model.

    Source, models, layers and classes are checked before a run folder is made.

    Raises:
        ConfigError, DataError: see `open_images`, `load_labelled_models`, `find_layers`; no model has a gate.
    """
    source = open_images(options.source, options.vid_stride)
    device = select_device(options.device)
    models = load_labelled_models(options.weights, options.cfg, device, options.seed, options.labels)
    stride = int(max(model.model.stride.max() for model in models))
    height, width = check_img_size(options.imgsz, stride=stride)
    views = ModelInputs((height, width), stride, device)
    kinds = options.kind or kinds_that_apply(models)
    parts = [VISUALIZERS[kind](options, models, views) for kind in dict.fromkeys(kinds)]

    save_dir = increment_path(Path(options.project) / options.name, options.exist_ok)
    save_dir.mkdir(parents=True, exist_ok=True)
    summary = VisualizeSummary(save_dir)
    try:
        images = Bar(frames_of(source, options.max_images), total=_count(source.files, options.max_images))
        for frame in images:
            view = views.make(frame)
            images.say(f"images, now {view.title}")
            summary.images += 1
            for part in parts:
                part.look(frame, view, summary)
            images.say(f"{summary.images} images seen")
        for part in parts:
            part.finish(summary)
    finally:
        with suppress(OSError):  # nothing was written
            save_dir.rmdir()
    LOG.info(f"{len(summary.files)} files saved to {color(str(save_dir), 'bold')}")
    return summary


def _count(files: list[Path], limit: int) -> int | None:
    """Images to come, if that can be told; says what is left out."""
    if not all(map(is_image, files)):
        return None
    if len(files) > limit:
        LOG.info(f"The first {limit} of {len(files)} images are used; --max-images N for another number")
    return min(len(files), limit)
