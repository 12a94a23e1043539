"""TensorFlow: SavedModel folder or frozen graph (.pb); channels last, boxes as fractions of the image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from models.backends.tensorflow import load_tensorflow
from utils.base.paths import atomic_write
from utils.export.export_options import ExportOptions
from utils.export.output import whole_folder, write_metadata
from utils.export.tf_graph import Builder


def export(model: nn.Module, images: Tensor, path: Path, options: ExportOptions) -> None:
    """Write a SavedModel with the signature `serving_default`: images -> output0.

    Raises:
        ConfigError: TensorFlow is missing, or the model has an operation that is not known here.
    """
    tf = load_tensorflow("--include saved_model")
    build = _network(tf, model, images, options)
    spec = tf.TensorSpec(_channels_last(images), tf.float32, name="images")
    module = tf.Module()
    module.serve = tf.function(lambda images: {"output0": build(images)}, input_signature=[spec])
    with whole_folder(path) as folder:
        tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})
        write_metadata(folder / "metadata.yaml", options.metadata(images))


def export_pb(model: nn.Module, images: Tensor, path: Path, options: ExportOptions) -> None:
    """Write a frozen graph from `images` to `output0`.

    Raises:
        ConfigError: as `export`.
    """
    tf = load_tensorflow("--include pb")
    build = _network(tf, model, images, options)
    with tf.Graph().as_default() as graph:
        given = tf.compat.v1.placeholder(tf.float32, _channels_last(images), name="images")
        tf.identity(build(given), name="output0")
        tf.constant(str(options.metadata(images)), name="metadata")
    with atomic_write(path) as file:
        file.write(graph.as_graph_def().SerializeToString())


def _channels_last(images: Tensor) -> list[int]:
    batch, channels, height, width = images.shape
    return [batch, height, width, channels]


def _network(tf: Any, model: nn.Module, images: Tensor, options: ExportOptions) -> Callable[[Any], Any]:
    """From images to boxes as fractions, thinned out if that is asked for."""
    build = Builder(tf, model, images.contiguous())
    height, width = images.shape[2:]

    def run(inputs: Any) -> Any:
        decoded = build(inputs)
        boxes = decoded[..., :4] / tf.constant([width, height, width, height], tf.float32)
        if options.nms:
            return _suppressed(tf, boxes, decoded[..., 4:5] * decoded[..., 5:], options)
        return tf.concat([boxes, decoded[..., 4:]], -1)

    return run


def _suppressed(tf: Any, xywh: Any, scores: Any, o: ExportOptions) -> Any:
    """(B, N, 4) boxes and (B, N, nc) scores -> (B, K, 6) xyxy, score, class; best first, zeros behind."""
    half = xywh[..., 2:] / 2
    boxes = tf.concat([xywh[..., :2] - half, xywh[..., :2] + half], -1)
    best, kinds = tf.reduce_max(scores, -1), tf.argmax(scores, -1)
    if not o.agnostic_nms:  # a box competes in its best class alone, as in detect.py
        own = scores * tf.one_hot(kinds, len(o.names), dtype=scores.dtype)
        found = tf.image.combined_non_max_suppression(
            boxes[:, :, None], own, o.topk_per_class, o.topk_all, o.iou_thres, o.conf_thres, clip_boxes=False
        )
        return tf.concat([found[0], found[1][..., None], found[2][..., None]], -1)

    def one_image(given: Any) -> Any:
        boxes, best, kinds = given
        most = min(o.topk_all, o.topk_per_class)
        kept = tf.image.non_max_suppression(boxes, best, most, o.iou_thres, o.conf_thres)
        columns = [boxes, best[:, None], tf.cast(kinds, boxes.dtype)[:, None]]
        rows = tf.gather(tf.concat(columns, -1), kept)
        return tf.ensure_shape(tf.pad(rows, [[0, o.topk_all - tf.shape(rows)[0]], [0, 0]]), (o.topk_all, 6))

    return tf.map_fn(one_image, (boxes, best, kinds), fn_output_signature=tf.float32)
