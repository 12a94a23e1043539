"""YOLOv5's `utils.torch_utils`: devices, timing, EMA, optimizers, and changes of modules."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ContextDecorator, contextmanager
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

import utils.compat.unpickling  # noqa: F401 - torch.load reads files with models from here on
from models.yolo import ClassificationModel
from utils.base.device import describe
from utils.base.device import select_device as find_device
from utils.base.errors import ConfigError
from utils.base.log import LOG
from utils.tasks.classify.head import replace_last
from utils.train.optim import ModelEMA as OurEMA
from utils.train.optim import parameter_groups
from utils.train.state import EarlyStopping as OurStopping


def select_device(device: Any = "", batch_size: int | None = 0, newline: bool = True) -> torch.device:
    """Return the torch device of `''` (the best), `'cpu'`, `'mps'`, `0`, `'0,1'`, `'cuda:0'` or a device.

    Raises:
        AssertionError: the device does not exist, or `batch_size` does not divide by the number of GPUs.
    """
    name = str("" if device is None else device).strip().lower().replace("cuda:", "")
    name = "0" if name == "cuda" else name.strip("() []").replace(" ", "")
    count = name.count(",") + 1
    if count > 1 and batch_size and batch_size % count:
        raise AssertionError(
            f"batch size {batch_size} is not a multiple of the {count} GPUs of device {name}"
        )
    try:
        chosen = find_device(name.split(",")[0], verbose=False)
    except ConfigError as error:
        raise AssertionError(str(error).replace("--device", "device")) from None
    LOG.info(f"YOLOv5-LSKA torch-{torch.__version__} {describe(chosen)}")
    return chosen


def time_sync() -> float:
    """Return seconds as `time.time()`, after all work on the GPU is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.time()


time_synchronized = time_sync


class Profile(ContextDecorator):
    """Stopwatch, as a context manager or decorator: `dt` seconds of the last block, `t` of all."""

    def __init__(self, t: float = 0.0, device: torch.device | None = None) -> None:
        self.t = t
        self.dt = 0.0
        self.device = device
        self.start = 0.0

    def __enter__(self) -> Profile:
        self.start = self.time()
        return self

    def __exit__(self, *error: object) -> None:
        self.dt = self.time() - self.start
        self.t += self.dt

    def time(self) -> float:
        """Return seconds, after all work on the GPU is done."""
        return time_sync()


def smart_inference_mode() -> Callable[[Any], Any]:
    """Return a decorator that runs a function in `torch.inference_mode`."""
    return torch.inference_mode()


class ModelEMA:
    """Exponential moving average of a model: `ema` is the averaged model."""

    def __init__(self, model: nn.Module, decay: float = 0.9999, tau: float = 2000, updates: int = 0) -> None:
        self._average = OurEMA(de_parallel(model), decay, tau, updates)

    @property
    def ema(self) -> Any:
        """The averaged model; another one may be set."""
        return self._average.model

    @ema.setter
    def ema(self, model: nn.Module) -> None:
        self._average.replace(model)

    @property
    def updates(self) -> int:
        """Number of updates so far."""
        return self._average.updates

    @updates.setter
    def updates(self, value: int) -> None:
        self._average.updates = value

    def decay(self, x: float) -> float:
        """Return the decay of update `x`."""
        return self._average.decay_at(int(x))

    def update(self, model: nn.Module) -> None:
        """Update the average with the weights of `model`."""
        self._average.update(de_parallel(model))

    def update_attr(
        self, model: Any, include: Iterable[str] = (), exclude: Iterable[str] = ("process_group", "reducer")
    ) -> None:
        """Copy attributes of `model` to the averaged model."""
        copy_attr(self.ema, model, include, exclude)


class EarlyStopping(OurStopping):
    """Whether training should stop, after `patience` epochs without a better fitness; 0 never stops."""

    def __init__(self, patience: int = 30) -> None:
        super().__init__(patience)


@contextmanager
def torch_distributed_zero_first(local_rank: int) -> Iterator[None]:
    """Let rank 0 run the block before the other ranks of a process group."""
    if local_rank not in (-1, 0):
        torch.distributed.barrier()
    yield
    if local_rank == 0:
        torch.distributed.barrier()


def is_parallel(model: nn.Module) -> bool:
    """Return whether a model is wrapped in DataParallel or DistributedDataParallel."""
    return isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel)


def de_parallel(model: Any) -> Any:
    """Return the model inside DataParallel or DistributedDataParallel."""
    return model.module if is_parallel(model) else model


def smart_DDP(model: nn.Module) -> nn.Module:
    """Wrap a model in DistributedDataParallel."""
    return nn.parallel.DistributedDataParallel(model)


def smart_optimizer(
    model: nn.Module, name: str = "Adam", lr: float = 0.001, momentum: float = 0.9, decay: float = 1e-5
) -> torch.optim.Optimizer:
    """Create an optimizer with three groups: biases, weights with decay, weights of norm layers.

    Raises:
        NotImplementedError: not Adam, AdamW, RMSProp or SGD.
    """
    biases, weights, norms = parameter_groups(model)
    optimizer: torch.optim.Optimizer
    if name in ("Adam", "AdamW"):
        kind = torch.optim.Adam if name == "Adam" else torch.optim.AdamW
        optimizer = kind(biases, lr=lr, betas=(momentum, 0.999), weight_decay=0.0)
    elif name == "RMSProp":
        optimizer = torch.optim.RMSprop(biases, lr=lr, momentum=momentum)
    elif name == "SGD":
        optimizer = torch.optim.SGD(biases, lr=lr, momentum=momentum, nesterov=True)
    else:
        raise NotImplementedError(f"optimizer {name}: expected Adam, AdamW, RMSProp or SGD")
    optimizer.add_param_group({"params": weights, "weight_decay": decay})
    optimizer.add_param_group({"params": norms, "weight_decay": 0.0})
    return optimizer


def smart_resume(
    ckpt: dict[str, Any],
    optimizer: Any,
    ema: Any = None,
    weights: str = "yolov5s.pt",
    epochs: int = 300,
    resume: bool = True,
) -> tuple[float, int, int]:
    """Restore optimizer and EMA from a checkpoint; return best fitness, first epoch and number of epochs.

    Raises:
        AssertionError: nothing is left to resume.
    """
    last = ckpt["epoch"]
    if resume and last < 0:
        raise AssertionError(f"{weights}: the training of {epochs} epochs is finished, nothing to resume")
    saved_optimizer, average = ckpt.get("optimizer"), ckpt.get("ema")
    if saved_optimizer is not None:
        optimizer.load_state_dict(saved_optimizer)
    if ema and average:
        state = average.float().state_dict()
        ema.ema.load_state_dict(state)
        ema.updates = ckpt.get("updates", 0)
    fitness = 0.0 if saved_optimizer is None else float(np.max(ckpt["best_fitness"]))
    more = last if epochs <= last else 0  # a finished training continues for `epochs` more
    return fitness, last + 1, epochs + more


def fuse_conv_and_bn(conv: nn.Conv2d, bn: nn.BatchNorm2d) -> nn.Conv2d:
    """Return a convolution into which a batch norm is folded."""
    return fuse_conv_bn_eval(deepcopy(conv).eval(), bn.eval()).requires_grad_(False)


def scale_img(img: Tensor, ratio: float = 1.0, same_shape: bool = False, gs: int = 32) -> Tensor:
    """Scale images (B, 3, H, W) by `ratio`, and pad them to multiples of `gs` unless `same_shape`."""
    if ratio == 1.0:
        return img
    h, w = img.shape[2:]
    size = (int(h * ratio), int(w * ratio))
    img = functional.interpolate(img, size=size, mode="bilinear", align_corners=False)
    if not same_shape:
        h, w = (math.ceil(side * ratio / gs) * gs for side in (h, w))
    return functional.pad(img, [0, w - size[1], 0, h - size[0]], value=0.447)


def copy_attr(a: Any, b: Any, include: Iterable[str] = (), exclude: Iterable[str] = ()) -> None:
    """Copy public attributes from `b` to `a`; only those of `include`, if it names any."""
    include, exclude = tuple(include), tuple(exclude)
    for key, value in b.__dict__.items():
        if (not include or key in include) and not key.startswith("_") and key not in exclude:
            setattr(a, key, value)


def initialize_weights(model: nn.Module) -> None:
    """Set the constants of batch norms, and activations in place."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps, module.momentum = 1e-3, 0.03
        elif isinstance(module, nn.Hardswish | nn.LeakyReLU | nn.ReLU | nn.ReLU6 | nn.SiLU):
            module.inplace = True


def find_modules(model: Iterable[nn.Module], mclass: type = nn.Conv2d) -> list[int]:
    """Return the indices of the modules in a list that are of a class."""
    return [index for index, module in enumerate(model) if isinstance(module, mclass)]


def sparsity(model: nn.Module) -> float:
    """Return the fraction of parameters that are 0."""
    counts = [(p.numel(), int((p == 0).sum())) for p in model.parameters()]
    return sum(zeros for _, zeros in counts) / sum(count for count, _ in counts)


def prune(model: nn.Module, amount: float = 0.3) -> None:
    """Set the smallest weights of all convolutions to 0, the fraction `amount` of each."""
    from torch.nn.utils import prune as pruning

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            pruning.l1_unstructured(module, name="weight", amount=amount)
            pruning.remove(module, "weight")
    LOG.info(f"Model pruned to {sparsity(model):.3g} sparsity")


def model_info(model: Any, verbose: bool = False, imgsz: int = 640, img_size: int | None = None) -> None:
    """Log layers, parameters and GFLOPs of a model; `verbose` also a row for each parameter."""
    if verbose:
        for index, (name, p) in enumerate(model.named_parameters()):
            LOG.info(f"{index:5d} {name:40s} {p.requires_grad!s:>6} {p.numel():9d} {list(p.shape)}")
    if hasattr(model, "summary"):
        LOG.info(model.summary(img_size or imgsz))
    else:
        LOG.info(
            f"{len(list(model.modules()))} layers, {sum(p.numel() for p in model.parameters())} parameters"
        )


def profile(
    input: Any, ops: Any, n: int = 10, device: torch.device | None = None
) -> list[list[float] | None]:
    """Run each module `n` times on each input; return rows of which [0] is parameters, [3] milliseconds."""
    device = device or torch.device("cpu")
    rows: list[list[float] | None] = []
    for x in input if isinstance(input, list) else [input]:
        x = x.to(device)
        for op in ops if isinstance(ops, list) else [ops]:
            op = op.to(device) if hasattr(op, "to") else op
            start = time_sync()
            for _ in range(n):
                op(x)
            mean = (time_sync() - start) / n * 1000
            size = sum(p.numel() for p in op.parameters()) if isinstance(op, nn.Module) else 0
            LOG.info(f"{size:12d} parameters, {mean:9.4g} ms forward, input {tuple(x.shape)}")
            rows.append([size, 0.0, 0.0, mean, 0.0])
    return rows


def device_count() -> int:
    """Return the number of CUDA devices."""
    return torch.cuda.device_count()


def init_torch_seeds(seed: int = 0) -> None:
    """Seed torch."""
    torch.manual_seed(seed)


def check_amp(model: nn.Module) -> bool:
    """Return whether mixed precision can be used: on CUDA only."""
    return next(model.parameters()).device.type == "cuda"


def reshape_classifier_output(model: Any, n: int = 1000) -> None:
    """Replace the last linear layer or convolution of a classifier by one with `n` outputs."""
    replace_last(model, n)
    if isinstance(model, ClassificationModel):
        model.nc = model.yaml["nc"] = n
        model.names = {index: model.names.get(index, str(index)) for index in range(n)}
