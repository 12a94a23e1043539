"""Build the model of a run: device, precision, batch size, hyperparameters, weights, freezing, anchors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from models.config import parse_settings, with_attention
from models.graft import graft, load_by_key
from models.official_weights import locate_weights
from models.profile import print_layers
from models.weights import Checkpoint, read_checkpoint
from models.yolo import BaseModel, DetectionModel, read_config
from models.yolo import make_model as make_yolo
from utils.base.device import select_device
from utils.base.errors import ConfigError, DataError
from utils.base.log import LOG, color
from utils.base.options import changed
from utils.base.paths import relative_to_cwd
from utils.base.seeds import seed_everything
from utils.ops.anchors import check_anchors
from utils.tasks.task import Task
from utils.train.distributed import is_launched
from utils.train.hyp import Hyp, describe_hyp
from utils.train.loaders import Loaders
from utils.train.state import Origin
from utils.train.train_options import TrainOptions

CPU_BATCH = 16  # batch size for --batch-size -1 where memory is not measured
BATCH_SIZES = (1, 2, 4, 8, 16)  # batch sizes that are measured
FALLBACK_BATCH = 16
LARGEST_BATCH = 1024
_BUDGET = 0.8  # fraction of the free memory to use
_FP16_TOLERANCE = 0.1  # of the image size or of 1; broken FP16 differs by far more, or is not finite
_PROBE_SIZE = 256


def prepare_machine(options: TrainOptions) -> torch.device:
    """Select the device and seed all global generators.

    Raises:
        ConfigError: this machine does not have the device.
    """
    device = select_device(options.device, keep_memory=not options.checkpoint_activations)
    seed_everything(options.seed, options.deterministic)
    return device


def read_hyp(options: TrainOptions, task: Task) -> Hyp:
    """Read the hyperparameters and log them."""
    hyp = task.read_hyp(options)
    LOG.info(f"{color('hyperparameters:', 'blue')} {describe_hyp(hyp)}")
    return hyp


def resolve_batch_size(options: TrainOptions, model: BaseModel) -> TrainOptions:
    """Replace `--batch-size -1` by a size that fits into the memory of the device."""
    if options.batch_size != -1:
        return options
    device_type = next(model.parameters()).device.type
    if device_type == "cuda":
        size = measure_batch(model, options.imgsz, choose_precision(options.amp, model, options.imgsz))
    else:
        size = CPU_BATCH
        LOG.info(f"--batch-size -1: {CPU_BATCH} on {device_type.upper()}, whose memory is not measured")
    return changed(options, batch_size=size)


def make_model(
    options: TrainOptions, task: Task, hyp: Hyp, names: dict[int, str], device: torch.device
) -> tuple[BaseModel, Origin]:
    """Build the model and load its initial weights.

    Weights without --cfg bring their own architecture. Weights with --cfg are grafted: layers are aligned
    by structure, whatever their numbers. Without weights, training starts from scratch.

    Args:
        options: of the train script.
        task: of the model.
        hyp: hyperparameters; `anchors` sets the number of anchors per level.
        names: the classes of the dataset.
        device: where the model is put.

    Returns:
        The model, and which of its tensors were loaded from the weights.

    Raises:
        ConfigError: weights or a yaml that do not exist or do not fit.
    """
    anchors = round(hyp["anchors"]) if "anchors" in hyp else None
    checkpoint = find_weights(options, task)
    cfg = "" if options.resume else options.cfg
    model: BaseModel = make_yolo(make_config(options, task, checkpoint), nc=len(names), anchors=anchors)
    print_layers(model)
    LOG.info(model.summary(640) + "\n")
    origin = Origin()
    if checkpoint is not None and not options.resume:
        if task.uses_weights(options):
            load = graft if options.graft == "auto" else load_by_key
            report = load(model, checkpoint, keep_anchors=bool(cfg) or anchors is not None)
            origin = Origin(report.transferred, report.new)
            transferred, size = len(report.transferred), len(model.state_dict())
            LOG.info(str(report))
            LOG.info(f"Transferred {transferred}/{size} items from {relative_to_cwd(checkpoint.path)}")
    elif checkpoint is not None and checkpoint.training is not None:
        origin = Origin(**checkpoint.training.get("origin", {}))
    task.prepare_model(model, options)
    model.names = dict(names)
    model.checkpoint_activations = options.checkpoint_activations
    model = model.to(device).to(memory_format=torch.channels_last)
    return _synchronize_norms(model) if options.sync_bn else model, origin


def _synchronize_norms(model: BaseModel) -> BaseModel:
    """Convert batch norms to SyncBatchNorm, which torch supports on CUDA only."""
    if not is_launched() or next(model.parameters()).device.type != "cuda":
        LOG.warning("--sync-bn has no effect: it is for several processes on CUDA")
        return model
    converted: BaseModel = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return converted


def make_config(options: TrainOptions, task: Task, checkpoint: Checkpoint | None) -> dict[str, Any]:
    """Return the content of the model yaml, or of the checkpoint's, with `--attention` applied."""
    if options.resume:
        assert checkpoint is not None
        return checkpoint.yaml
    if options.cfg:
        config, name = read_config(options.cfg)
        config["yaml_file"] = name
    else:
        config = task.config_of_weights(options, checkpoint)
    return with_attention(task.model_config(options, config), parse_settings(options.attention))


def find_weights(options: TrainOptions, task: Task) -> Checkpoint | None:
    """Read the initial weights; None to train from scratch.

    A default official name that is neither on disk nor can be downloaded is no error if --cfg says what to
    build.

    Raises:
        ConfigError, DataError: weights that were given and cannot be read.
    """
    name = options.resume or task.initial_weights(options)
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


def has_parameters(layer: nn.Module) -> bool:
    """Return whether a layer has anything to train."""
    return next(layer.parameters(), None) is not None


def freeze(model: BaseModel, layers: list[int]) -> list[nn.Module]:
    """Freeze layers: `[10]` means the first ten, several numbers mean these layers.

    Returns:
        The frozen layers.

    Raises:
        ConfigError: the model has no such layer, or nothing would be left to train.
    """
    chosen = list(range(layers[0])) if len(layers) == 1 else sorted(set(layers))
    count, given = len(model.model), " ".join(map(str, layers))
    if chosen and chosen[-1] >= count:
        raise ConfigError(f"--freeze {given}: the model has layers 0 to {count - 1}")
    frozen = [model.model[index] for index in chosen]
    if not any(has_parameters(layer) for index, layer in enumerate(model.model) if index not in chosen):
        last = max((index for index, layer in enumerate(model.model) if has_parameters(layer)), default=0)
        raise ConfigError(
            f"--freeze {given}: freezes all layers that have parameters, so that nothing "
            f"is left to train; the largest number of first layers that works is {last}"
        )
    for layer in frozen:
        layer.requires_grad_(False)
    if frozen:
        LOG.info(f"freezing layers {', '.join(map(str, chosen))}, with their batch norm statistics")
    return frozen


def check_graft_freeze(model: BaseModel, origin: Origin, options: TrainOptions) -> None:
    """Check that the first epochs have something to train.

    Raises:
        ConfigError: `--graft-freeze`, and all layers that are not frozen come from the weights.
    """
    if not options.graft_freeze or options.resume:
        return
    transferred = set(origin.transferred)
    left = (key for key, parameter in model.named_parameters() if parameter.requires_grad)
    if all(key in transferred for key in left):
        raise ConfigError(
            f"--graft-freeze {options.graft_freeze}: trains only the new layers at first, but all layers "
            f"that are not frozen come from {options.weights}; the largest number that works is 0"
        )


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


def choose_batch(memory: Callable[[int], int], free: int) -> int:
    """Return the batch size that needs a fixed fraction of the free memory.

    Args:
        memory: returns the bytes that a training step takes at a batch size; raises torch.OutOfMemoryError.
        free: free memory in bytes.

    Returns:
        The batch size; `FALLBACK_BATCH` if the measurements are implausible.
    """
    sizes: list[int] = []
    needs: list[int] = []
    for size in BATCH_SIZES:
        try:
            needs.append(memory(size))
        except torch.OutOfMemoryError:
            break
        sizes.append(size)
    if len(sizes) < 2:
        return sizes[0] if sizes else 1
    best = _fitting(sizes, needs, _BUDGET * free)
    if len(sizes) < len(BATCH_SIZES):
        return min(best, sizes[-1])  # the next size did not fit, whatever the linear fit says
    return best if 1 <= best <= LARGEST_BATCH else FALLBACK_BATCH


def _fitting(sizes: Sequence[int], needs: Sequence[int], limit: float) -> int:
    slope, start = np.polyfit(sizes, needs, 1)
    return int((limit - start) / slope + 1e-6) if slope > 1e-9 else 0


def measure_batch(model: BaseModel, imgsz: int, precision: torch.dtype | None) -> int:
    """Choose the batch size for a model on a CUDA device by training steps on random images."""
    device = next(model.parameters()).device
    free, _ = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)

    def memory(size: int) -> int:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        images = torch.rand(size, 3, imgsz, imgsz, device=device).to(memory_format=torch.channels_last)
        with torch.autocast("cuda", dtype=precision, enabled=precision is not None):
            outputs = flat_outputs(model(images))
        torch.stack([each.float().mean() for each in outputs]).sum().backward()
        return torch.cuda.max_memory_allocated(device) - before

    training = model.training
    kept = {key: value.clone() for key, value in model.state_dict().items()}  # batch norm statistics included
    model.train()
    try:
        best = choose_batch(memory, free)
    finally:
        model.zero_grad(set_to_none=True)
        model.load_state_dict(kept)
        model.train(training)
        torch.cuda.empty_cache()
    LOG.info(
        f"--batch-size -1: {best} images of {imgsz} px use about {_BUDGET:.0%} of {free / 2**30:.1f} GiB"
    )
    return best


def flat_outputs(output: Any) -> list[torch.Tensor]:
    """Return the tensors of what a model returns in training: maps of levels, prototypes or logits."""
    return (
        [output] if isinstance(output, torch.Tensor) else [t for part in output for t in flat_outputs(part)]
    )


def choose_precision(wanted: str, model: nn.Module, imgsz: int) -> torch.dtype | None:
    """Return the dtype for autocast; None: FP32 throughout.

    Args:
        wanted: value of `--amp`. auto: FP16 on CUDA if the output stays the same, which some GPUs fail.
        model: on its device.
        imgsz: image size of the training; classifiers may take no other.

    Raises:
        ConfigError: the device does not support it.
    """
    device_type = next(model.parameters()).device.type
    if wanted == "off":
        return None
    if wanted == "auto":
        return torch.float16 if amp_works(model, imgsz) else None
    if wanted == "fp16":
        if device_type != "cuda":
            raise ConfigError(f"--amp fp16: needs a CUDA GPU, and this is {device_type.upper()}; try bf16")
        return torch.float16
    if device_type == "cuda" and not torch.cuda.is_bf16_supported():
        raise ConfigError("--amp bf16: this GPU does not support it; use fp16")
    if device_type == "cpu" and not torch.backends.mkldnn.is_available():
        raise ConfigError("--amp bf16: this build of torch does not support it on the CPU; use off")
    return torch.bfloat16


@torch.inference_mode()
def amp_works(model: nn.Module, imgsz: int) -> bool:
    """Return whether the output under autocast equals that in FP32 on a fixed image; False without CUDA."""
    device = next(model.parameters()).device
    if device.type != "cuda":
        return False
    training = model.training
    side = _PROBE_SIZE if isinstance(model, DetectionModel) else imgsz
    images = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device)
    model.eval()
    try:
        full = _comparable(model(images))
        with torch.autocast(device.type):
            half = _comparable(model(images))
    finally:
        model.train(training)
    works = torch.allclose(full, half, rtol=0.1, atol=_FP16_TOLERANCE)
    LOG.info(f"AMP: checks {'passed' if works else 'failed, training in float32'}")
    return works


def _comparable(output: Any) -> torch.Tensor:
    """Return the boxes of a detector as fractions of the image, or the probabilities of a classifier."""
    if isinstance(output, torch.Tensor):
        return output.float().softmax(1)
    boxes: torch.Tensor = output[0][..., :4].float() / _PROBE_SIZE
    return boxes
