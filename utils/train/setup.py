"""From options to the things that train: machine, data, model, loaders, anchors, state."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler

from models.config import parse_settings, with_attention
from models.graft import graft, load_by_key
from models.profile import print_layers
from models.weights import Checkpoint, locate_weights, read_checkpoint
from models.yolo import DetectionModel, read_config
from utils.base.device import select_device
from utils.base.errors import ConfigError, DataError
from utils.base.log import LOG, color
from utils.base.paths import relative_to_cwd
from utils.base.seeds import seed_everything
from utils.data.dataset import DetectionDataset
from utils.data.dataset_yaml import DataSpec, read_data_yaml
from utils.data.letterbox import check_img_size
from utils.data.loader import Loader, Share, make_loader
from utils.loggers.callbacks import CallbackList
from utils.ops.anchors import check_anchors
from utils.ops.loss import DetectionLoss
from utils.train.amp import choose_precision
from utils.train.autobatch import measure_batch
from utils.train.distributed import ProcessGroup, is_launched
from utils.train.hyp import Hyp, describe_hyp, load_hyp, scale_gains
from utils.train.loop import TrainConfig
from utils.train.optim import ModelEMA, Schedule, describe_optimizer, make_optimizer
from utils.train.run_dir import RunDir
from utils.train.sampling import image_weights
from utils.train.state import EarlyStopping, Origin, Progress, TrainState

LEAST_STRIDE = 32  # image sizes are multiples of it even where a model would take less
CPU_BATCH = 16  # for --batch-size -1


@dataclass(frozen=True)
class Loaders:
    """Batches to train on and to validate with; they share their image size."""

    train: Loader
    val: Loader
    dataset: DetectionDataset  # behind `train`
    imgsz: int
    stride: int
    batch_size: int

    def close(self) -> None:
        """End the worker processes."""
        self.train.close()
        self.val.close()


@dataclass(frozen=True)
class Task:
    """A run that is ready to be trained."""

    opt: Namespace
    data: DataSpec
    loaders: Loaders
    callbacks: CallbackList
    run: RunDir
    state: TrainState
    config: TrainConfig


def prepare_machine(opt: Namespace) -> torch.device:
    """Choose the device, and seed all global generators.

    Raises:
        ConfigError: this machine does not have the device.
    """
    device = select_device(opt.device, keep_memory=not opt.checkpoint_activations)
    seed_everything(opt.seed, opt.deterministic)
    return device


def settle_batch(opt: Namespace, model: DetectionModel) -> None:
    """Choose the size that `--batch-size -1` leaves open."""
    if opt.batch_size != -1:
        return
    kind = next(model.parameters()).device.type
    if kind == "cuda":
        opt.batch_size = measure_batch(model, opt.imgsz, choose_precision(opt.amp, model))
    else:
        opt.batch_size = CPU_BATCH
        LOG.info(f"--batch-size -1: {CPU_BATCH} on {kind.upper()}, whose memory is not measured")


def read_hyp(opt: Namespace) -> Hyp:
    """Read and print the hyperparameters."""
    hyp = load_hyp(opt.hyp, opt.label_smoothing)
    LOG.info(f"{color('hyperparameters:', 'blue')} {describe_hyp(hyp)}")
    return hyp


def read_data(opt: Namespace) -> DataSpec:
    """Read the data yaml; with --single-cls it has one class."""
    data = read_data_yaml(opt.data, allow_download=opt.download)
    if opt.single_cls and data.nc != 1:
        data.names, data.nc = {0: "item"}, 1
    return data


def make_model(
    opt: Namespace, hyp: Hyp, data: DataSpec, device: torch.device
) -> tuple[DetectionModel, Origin]:
    """Make the model that the options ask for, with the classes of the data.

    Weights without --cfg bring their own architecture. Weights with --cfg are grafted: layers are
    aligned by structure, whatever their numbers. Without weights it starts from scratch.

    Returns:
        The model, and which of its tensors came from the weights.

    Raises:
        ConfigError: weights or yaml that are not there or do not fit.
    """
    anchors = round(hyp["anchors"]) if "anchors" in hyp else None
    checkpoint = find_weights(opt)
    cfg = "" if opt.resume else opt.cfg
    model = DetectionModel(make_config(opt, checkpoint), nc=data.nc, anchors=anchors)
    print_layers(model)
    LOG.info(model.info(640) + "\n")
    origin = Origin()
    if checkpoint is not None and not opt.resume:
        bring = graft if opt.graft == "auto" else load_by_key
        report = bring(model, checkpoint, keep_anchors=bool(cfg) or anchors is not None)
        origin = Origin(report.transferred, report.new)
        arrived, size = len(report.transferred), len(model.state_dict())
        LOG.info(str(report))
        LOG.info(f"Transferred {arrived}/{size} items from {relative_to_cwd(checkpoint.path)}")
    elif checkpoint is not None and checkpoint.training is not None:
        origin = Origin(**checkpoint.training.get("origin", {}))
    model.names = dict(data.names)
    model.checkpoint_activations = opt.checkpoint_activations
    model = model.to(device).to(memory_format=torch.channels_last)
    return synchronize_norms(model, opt.sync_bn), origin


def synchronize_norms(model: DetectionModel, wanted: bool) -> DetectionModel:
    """With --sync-bn the batch norms of all processes see the whole batch; torch can do it on CUDA alone."""
    if not wanted:
        return model
    if not is_launched() or next(model.parameters()).device.type != "cuda":
        LOG.warning("--sync-bn has no effect: it is for several processes on CUDA")
        return model
    converted: DetectionModel = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return converted


def make_config(opt: Namespace, checkpoint: Checkpoint | None) -> dict[str, Any]:
    """The content of the model yaml, or of the checkpoint's, with `--attention` in its blocks."""
    if not opt.resume and opt.cfg:
        config, name = read_config(opt.cfg)
        config["yaml_file"] = name
    else:
        assert checkpoint is not None  # check_options wants --weights or --cfg
        config = checkpoint.yaml
    return config if opt.resume else with_attention(config, parse_settings(opt.attention))


def find_weights(opt: Namespace) -> Checkpoint | None:
    """Read the start weights; None to train from scratch.

    An official name that is neither on disk nor to be downloaded is no error where --cfg says what to build.
    """
    name = opt.resume or opt.weights
    if not name:
        return None
    try:
        path = locate_weights(name)
    except (ConfigError, DataError) as error:
        if "weights" in opt.given or not opt.cfg:
            raise
        LOG.warning(f"training {opt.cfg} from scratch, as {name} is not at hand ({error})")
        return None
    return read_checkpoint(path)


def freeze(model: DetectionModel, layers: list[int]) -> list[nn.Module]:
    """Stop the training of layers: `[10]` means the first ten, several numbers mean those.

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
        LOG.info(f"freezing layers {', '.join(map(str, chosen))}, their batch norm statistics too")
    return frozen


def make_loaders(
    opt: Namespace, hyp: Hyp, data: DataSpec, model: DetectionModel, process_group: ProcessGroup
) -> Loaders:
    """Open the training and the validation images; batches are no larger than the training set.

    Several processes share out each batch in training, and whole batches in validation.
    """
    with process_group.leader_first():  # it writes the caches of labels, which the others read
        return _make_loaders(opt, hyp, data, model, process_group)


def _make_loaders(
    opt: Namespace, hyp: Hyp, data: DataSpec, model: DetectionModel, process_group: ProcessGroup
) -> Loaders:
    stride = max(int(model.stride.max()), LEAST_STRIDE)
    imgsz = check_img_size(opt.imgsz, stride, floor=stride * 2)
    shared = {"stride": stride, "single_cls": opt.single_cls, "seed": opt.seed, "names": data.names}
    train_set = DetectionDataset(
        data.train,
        imgsz,
        batch_size=opt.batch_size,
        augment=True,
        hyp=hyp,
        rect=opt.rect,
        cache=None if opt.cache == "val" else opt.cache,
        fast_decode=opt.fast_decode,
        prefix="train: ",
        **shared,
    )
    batch_size = min(opt.batch_size, len(train_set))
    val_set = DetectionDataset(
        data.val,
        imgsz,
        batch_size=batch_size * 2,
        rect=True,
        cache=None if opt.noval else "ram" if opt.cache == "val" else opt.cache,
        pad=0.5,
        prefix="val: ",
        **shared,
    )
    pin = next(model.parameters()).device.type == "cuda"
    train_loader = make_loader(
        train_set,
        opt.batch_size if opt.rect else batch_size,
        workers=opt.workers,
        shuffle=True,
        seed=opt.seed,
        quad=opt.quad,
        pin_memory=pin,
        share=Share(process_group.rank, process_group.world),
        buffer=opt.shuffle_buffer,
    )
    part = Share(process_group.rank, process_group.world, whole_batches=True)
    val_loader = make_loader(val_set, batch_size * 2, workers=opt.workers, pin_memory=pin, share=part)
    return Loaders(train_loader, val_loader, train_set, imgsz, stride, batch_size)


def fit_anchors(model: DetectionModel, loaders: Loaders, opt: Namespace, hyp: Hyp) -> None:
    """Fit the anchors to the training labels where the present ones miss too many.

    Raises:
        ConfigError: the model has placeholders in place of anchors, and --noautoanchor keeps them.
    """
    if opt.noautoanchor:
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
        opt.seed,
    )
    LOG.info(line)
    if found is not None:
        # Rounded to what a stripped checkpoint keeps of them, so that it decodes as it was trained.
        grid = (torch.as_tensor(found) / model.stride.view(-1, 1, 1)).half().float()
        model.head.set_anchors(grid * model.stride.view(-1, 1, 1))


def make_state(
    model: DetectionModel,
    opt: Namespace,
    hyp: Hyp,
    loaders: Loaders,
    origin: Origin,
    process_group: ProcessGroup,
    checkpoint: Checkpoint | None = None,
) -> TrainState:
    """Gather what changes in training, as it was when `checkpoint` was saved, else before the first step.

    `model` is final by now: the moving average starts as a copy of it.
    """
    gains = scale_gains(hyp, levels=model.head.nl, nc=model.nc, imgsz=loaders.imgsz)
    model.hyp = dict(gains)
    optimizer = make_optimizer(model, opt.optimizer, hyp, loaders.batch_size, origin.new, opt.graft_lr)
    LOG.info(f"{color('optimizer:', 'blue')} {describe_optimizer(optimizer)}")
    precision = choose_precision(opt.amp, model)
    state = TrainState(
        model=model,
        ema=ModelEMA(model),
        optimizer=optimizer,
        scaler=GradScaler("cuda", enabled=precision == torch.float16),  # bfloat16 has the range of float32
        loss=DetectionLoss(model.head.anchors, model.stride, model.nc, gains),
        stopper=EarlyStopping(opt.patience),
        progress=Progress(),
        origin=origin,
        precision=precision,
        process_group=process_group,
    )
    if opt.compile:
        model.compile()  # in place: the keys of its tensors stay
    torch.manual_seed(opt.seed + process_group.rank)  # what is drawn in training differs; the weights do not
    if checkpoint is not None and checkpoint.training is not None:
        state.restore(checkpoint.training)
    return state


def weigh_images(loaders: Loaders, opt: Namespace, data: DataSpec, progress: Progress) -> None:
    """With --image-weights, show more of what the latest validation found hard."""
    if not opt.image_weights:
        return
    maps = np.asarray(progress.maps) if progress.maps else None
    weights = image_weights(loaders.dataset.labels, data.nc, maps)
    loaders.train.set_weights(weights if weights.sum() > 0 else None)  # 0: nothing is hard any more


def announce(
    folder: Path, opt: Namespace, hyp: Hyp, data: DataSpec, loaders: Loaders, callbacks: CallbackList
) -> None:
    """Say what is about to happen, and tell the callbacks."""
    callbacks.on_pretrain_routine_start(folder)
    options = {key: value for key, value in vars(opt).items() if key != "given"}
    callbacks.on_params_update(options | {"hyp": dict(hyp)})
    callbacks.on_pretrain_routine_end(loaders.dataset.labels.joined(), data.names)
    LOG.info(
        f"Image sizes {loaders.imgsz} train, {loaders.imgsz} val\n"
        f"Using {loaders.train.workers} dataloader workers\n"
        f"Logging results to {color(relative_to_cwd(folder), 'bold')}\n"
        f"Starting training for {opt.epochs} epochs..."
    )
    callbacks.on_train_start()


def make_train_config(
    opt: Namespace, hyp: Hyp, loaders: Loaders, frozen: list[nn.Module], state: TrainState
) -> TrainConfig:
    """How every epoch is trained."""
    old = set(state.origin.transferred)
    schedule = Schedule(hyp, opt.epochs, len(loaders.train), loaders.batch_size, opt.cos_lr)
    return TrainConfig(
        schedule=schedule,
        imgsz=loaders.imgsz,
        stride=loaders.stride,
        seed=opt.seed,
        multi_scale=opt.multi_scale,
        quad=opt.quad,
        frozen=frozen,
        grafted=[p for key, p in state.model.named_parameters() if key in old and p.requires_grad]
        if opt.graft_freeze
        else (),
        graft_freeze=opt.graft_freeze,
    )
