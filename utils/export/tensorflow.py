"""TensorFlow SavedModel, frozen graph (.pb), TensorFlow.js: images (B, H, W, 3) in, normalized boxes out."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from models.backends.tensorflow import load_tensorflow
from utils.base.errors import ConfigError, DataError
from utils.base.paths import atomic_write
from utils.export.export_settings import ExportSettings, atomic_folder, write_metadata
from utils.export.tf_graph import GraphBuilder


def export_saved_model(model: nn.Module, images: Tensor, path: Path, settings: ExportSettings) -> None:
    """Write a SavedModel with the signature `serving_default`: images -> output0.

    Raises:
        ConfigError: TensorFlow is missing, or the model has an operation that cannot be converted.
    """
    tf = load_tensorflow("--include saved_model")
    network = _build(tf, model, images, settings)
    spec = tf.TensorSpec(_channels_last_shape(images), tf.float32, name="images")
    module = tf.Module()
    names = settings.outputs
    module.serve = tf.function(
        lambda images: dict(zip(names, network(images), strict=True)), input_signature=[spec]
    )
    with atomic_folder(path) as folder:
        tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})
        write_metadata(folder / "metadata.yaml", settings.metadata(images))


def export_pb(model: nn.Module, images: Tensor, path: Path, settings: ExportSettings) -> None:
    """Write a frozen graph from `images` to `output0`.

    Raises:
        ConfigError: TensorFlow is missing, or the model has an operation that cannot be converted.
    """
    tf = load_tensorflow("--include pb")
    network = _build(tf, model, images, settings)
    with tf.Graph().as_default() as graph:
        inputs = tf.compat.v1.placeholder(tf.float32, _channels_last_shape(images), name="images")
        for output, name in zip(network(inputs), settings.outputs, strict=True):
            tf.identity(output, name=name)
        tf.constant(str(settings.metadata(images)), name="metadata")
    with atomic_write(path) as file:
        file.write(graph.as_graph_def().SerializeToString())


def export_tfjs(model: nn.Module, images: Tensor, path: Path, settings: ExportSettings) -> None:
    """Write a frozen graph and convert it with Google's tensorflowjs_converter.

    Raises:
        ConfigError: TensorFlow is missing, or the converter is not on the PATH.
        DataError: the converter failed.
    """
    converter = shutil.which("tensorflowjs_converter")
    if converter is None:
        raise ConfigError(
            "--include tfjs needs tensorflowjs_converter: "
            "pipx install tensorflowjs, pipx inject tensorflowjs 'ydf<0.13'"
        )
    with tempfile.TemporaryDirectory(prefix="tfjs-") as work, atomic_folder(path) as folder:
        frozen = Path(work, "model.pb")
        export_pb(model, images, frozen, settings)
        command = [
            converter,
            "--input_format=tf_frozen_model",
            f"--output_node_names={','.join(settings.outputs)}",
        ]
        done = subprocess.run([*command, str(frozen), str(folder)], capture_output=True, text=True)
        if done.returncode or not (folder / "model.json").is_file():
            raise DataError(f"tensorflowjs_converter failed: {(done.stderr or done.stdout).strip()[-300:]}")
        write_metadata(folder / "metadata.yaml", settings.metadata(images))


def _channels_last_shape(images: Tensor) -> list[int]:
    batch, channels, height, width = images.shape
    return [batch, height, width, channels]


def _build(tf: Any, model: nn.Module, images: Tensor, settings: ExportSettings) -> Callable[[Any], list[Any]]:
    """Return a function from images (B, H, W, 3) to its outputs: normalized boxes, after NMS with `--nms`.

    Raises:
        ConfigError: `--nms` for a segmentation model.
    """
    if settings.nms and settings.task == "segment":
        raise ConfigError("--nms: TensorFlow's NMS returns no mask coefficients; export without it")
    decode = GraphBuilder(tf, model, images.contiguous())
    height, width = images.shape[2:]

    def network(inputs: Any) -> list[Any]:
        decoded, *others = decode(inputs)
        if settings.task == "classify":
            return [decoded]
        boxes = decoded[..., :4] / tf.constant([width, height, width, height], tf.float32)
        if settings.nms:
            return [_nms(tf, boxes, decoded[..., 4:5] * decoded[..., 5:], settings)]
        return [tf.concat([boxes, decoded[..., 4:]], -1), *others]

    return network


def _nms(tf: Any, xywh: Any, scores: Any, settings: ExportSettings) -> Any:
    """Suppress boxes (B, N, 4) with scores (B, N, nc).

    Returns:
        (B, K, 6): xyxy, score, class; best first, padded with zeros.
    """
    half = xywh[..., 2:] / 2
    boxes = tf.concat([xywh[..., :2] - half, xywh[..., :2] + half], -1)
    best, classes = tf.reduce_max(scores, -1), tf.argmax(scores, -1)
    if settings.agnostic_nms:
        one_image = _agnostic_nms(tf, settings)
        return tf.map_fn(one_image, (boxes, best, classes), fn_output_signature=tf.float32)
    # A box competes in its best class only, as in detect.py.
    class_scores = scores * tf.one_hot(classes, len(settings.names), dtype=scores.dtype)
    kept = tf.image.combined_non_max_suppression(
        boxes[:, :, None],
        class_scores,
        settings.topk_per_class,
        settings.topk_all,
        settings.iou_thres,
        settings.conf_thres,
        clip_boxes=False,
    )
    return tf.concat([kept[0], kept[1][..., None], kept[2][..., None]], -1)


def _agnostic_nms(tf: Any, settings: ExportSettings) -> Callable[[Any], Any]:
    """Return class-agnostic NMS for one image: boxes (N, 4), scores (N,) and classes (N,) -> (K, 6)."""
    limit, iou, conf = settings.topk_all, settings.iou_thres, settings.conf_thres

    def one_image(inputs: Any) -> Any:
        boxes, scores, classes = inputs
        kept = tf.image.non_max_suppression(boxes, scores, min(limit, settings.topk_per_class), iou, conf)
        columns = [boxes, scores[:, None], tf.cast(classes, boxes.dtype)[:, None]]
        rows = tf.gather(tf.concat(columns, -1), kept)
        return tf.ensure_shape(tf.pad(rows, [[0, limit - tf.shape(rows)[0]], [0, 0]]), (limit, 6))

    return one_image
