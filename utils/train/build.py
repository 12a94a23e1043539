"""Build the model of a run: device, hyperparameters, architecture, weights, frozen layers, anchors."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from models.config import parse_settings, with_attention
from models.graft import graft, load_by_key
from models.profile import print_layers
from models.weights import Checkpoint, locate_weights, read_checkpoint
from models.yolo import DetectionModel, read_config
from utils.base.device import select_device
from utils.base.errors import ConfigError, DataError
from utils.base.log import LOG, color
from utils.base.options import changed
from utils.base.paths import relative_to_cwd
from utils.base.seeds import seed_everything
from utils.ops.anchors import check_anchors
from utils.train.amp import choose_precision
from utils.train.autobatch import measure_batch
from utils.train.distributed import is_launched
from utils.train.hyp import Hyp, describe_hyp, load_hyp
from utils.train.loaders import Loaders
from utils.train.state import Origin
from utils.train.train_options import TrainOptions

CPU_BATCH = 16  # batch size for --batch-size -1 where memory is not measured


def prepare_machine(options: TrainOptions) -> torch.device:
    """Select the device and seed all global generators.

    Raises:
        ConfigError: this machine does not have the device.
    """
    device = select_device(options.device, keep_memory=not options.checkpoint_activations)
    seed_everything(options.seed, options.deterministic)
    return device


def read_hyp(options: TrainOptions) -> Hyp:
    """Read the hyperparameters and log them."""
    hyp = load_hyp(options.hyp, options.label_smoothing)
    LOG.info(f"{color('hyperparameters:', 'blue')} {describe_hyp(hyp)}")
    return hyp


def resolve_batch_size(options: TrainOptions, model: DetectionModel) -> TrainOptions:
    """Replace `--batch-size -1` by a size that fits into the memory of the device."""
    if options.batch_size != -1:
        return options
    device_type = next(model.parameters()).device.type
    if device_type == "cuda":
        size = measure_batch(model, options.imgsz, choose_precision(options.amp, model))
    else:
        size = CPU_BATCH
        LOG.info(f"--batch-size -1: {CPU_BATCH} on {device_type.upper()}, whose memory is not measured")
    return changed(options, batch_size=size)


def make_model(
    options: TrainOptions, hyp: Hyp, names: dict[int, str], device: torch.device
) -> tuple[DetectionModel, Origin]:
    """Build the model and load its initial weights.

    Weights without --cfg bring their own architecture. Weights with --cfg are grafted: layers are aligned
    by structure, whatever their numbers. Without weights, training starts from scratch.

    Args:
        options: of train.py.
        hyp: hyperparameters; `anchors` sets the number of anchors per level.
        names: the classes of the dataset.
        device: where the model is put.

    Returns:
        The model, and which of its tensors were loaded from the weights.

    Raises:
        ConfigError: weights or a yaml that do not exist or do not fit.
    """
    anchors = round(hyp["anchors"]) if "anchors" in hyp else None
    checkpoint = find_weights(options)
    cfg = "" if options.resume else options.cfg
    model = DetectionModel(make_config(options, checkpoint), nc=len(names), anchors=anchors)
    print_layers(model)
    LOG.info(model.info(640) + "\n")
    origin = Origin()
    if checkpoint is not None and not options.resume:
        load = graft if options.graft == "auto" else load_by_key
        report = load(model, checkpoint, keep_anchors=bool(cfg) or anchors is not None)
        origin = Origin(report.transferred, report.new)
        transferred, size = len(report.transferred), len(model.state_dict())
        LOG.info(str(report))
        LOG.info(f"Transferred {transferred}/{size} items from {relative_to_cwd(checkpoint.path)}")
    elif checkpoint is not None and checkpoint.training is not None:
        origin = Origin(**checkpoint.training.get("origin", {}))
    model.names = dict(names)
    model.checkpoint_activations = options.checkpoint_activations
    model = model.to(device).to(memory_format=torch.channels_last)
    return _synchronize_norms(model) if options.sync_bn else model, origin


def _synchronize_norms(model: DetectionModel) -> DetectionModel:
    """Convert batch norms to SyncBatchNorm, which torch supports on CUDA only."""
    if not is_launched() or next(model.parameters()).device.type != "cuda":
        LOG.warning("--sync-bn has no effect: it is for several processes on CUDA")
        return model
    converted: DetectionModel = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return converted


def make_config(options: TrainOptions, checkpoint: Checkpoint | None) -> dict[str, Any]:
    """Return the content of the model yaml, or of the checkpoint's, with `--attention` applied."""
    if not options.resume and options.cfg:
        config, name = read_config(options.cfg)
        config["yaml_file"] = name
    else:
        assert checkpoint is not None  # TrainOptions requires --weights or --cfg
        config = checkpoint.yaml
    return config if options.resume else with_attention(config, parse_settings(options.attention))


def find_weights(options: TrainOptions) -> Checkpoint | None:
    """Read the initial weights; None to train from scratch.

    A default official name that is neither on disk nor can be downloaded is no error if --cfg says what to
    build.

    Raises:
        ConfigError, DataError: weights that were given and cannot be read.
    """
    name = options.resume or options.weights
    if not name:
        return None
    try:
        path = locate_weights(str(name))
    except (ConfigError, DataError) as error:
        if "weights" in options.given or not options.cfg:
            raise
        LOG.warning(f"training {options.cfg} from scratch, as {name} is not available ({error})")
        return None
    return read_checkpoint(path)


def freeze(model: DetectionModel, layers: list[int]) -> list[nn.Module]:
    """Freeze layers: `[10]` means the first ten, several numbers mean these layers.

    Returns:
        The frozen layers.

    Raises:
        ConfigError: the model has no such layer.
    """
    chosen = list(range(layers[0])) if len(layers) == 1 else sorted(set(layers))
    count = len(model.model)
    if chosen and chosen[-1] >= count:
        raise ConfigError(f"--freeze {layers}: the model has layers 0 to {count - 1}")
    frozen = [model.model[index] for index in chosen]
    for layer in frozen:
        layer.requires_grad_(False)
    if frozen:
        LOG.info(f"freezing layers {', '.join(map(str, chosen))}, with their batch norm statistics")
    return frozen


def fit_anchors(model: DetectionModel, loaders: Loaders, options: TrainOptions, hyp: Hyp) -> None:
    """Replace the anchors by better ones if too few of the training labels match them (AutoAnchor).

    Raises:
        ConfigError: the model yaml has no anchors, and --noautoanchor would leave it without.
    """
    if options.noautoanchor:
        if model.head.placeholders:
            raise ConfigError("--noautoanchor: this model has no anchors of its own; leave the flag out")
        return
    found, line = check_anchors(
        loaders.dataset.shapes,
        loaders.dataset.labels,
        model.head.anchors_px().cpu(),
        model.stride,
        loaders.imgsz,
        hyp["anchor_t"],
        options.seed,
    )
    LOG.info(line)
    if found is not None:
        # Round to FP16 as a stripped checkpoint does, so that the saved model decodes as it was trained.
        grid = (torch.as_tensor(found) / model.stride.view(-1, 1, 1)).half().float()
        model.head.set_anchors(grid * model.stride.view(-1, 1, 1))
