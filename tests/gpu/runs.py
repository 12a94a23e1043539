"""Trainings on the device: AMP, AutoBatch, loaders, resuming, determinism, torch.compile, hidden waits."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml

from models.weights import read_checkpoint
from tests.gpu.cases import (
    CFG,
    SeededLoader,
    dataset,
    flags,
    read_rows,
    run_training,
    seeded_model,
    train_state,
    train_steps,
)
from tests.gpu.checks import Check, Context, SkippedCheck, compare
from tests.utils.train.small import small_models
from utils.base.paths import ROOT
from utils.data.dataset import DetectionDataset
from utils.data.loader import Batch, make_loader
from utils.loggers.callbacks import Callbacks
from utils.train.build import BATCH_SIZES, LARGEST_BATCH, measure_batch
from utils.train.hyp import check_hyp

RESUMED = 1e-3  # of weights, as some kernels of CUDA add in another order in each run
COMPILED = 0.02  # of losses
_METER = "utils/train/loss_meter.py"  # reads losses a few times per epoch, see tests/utils/train


def amp(task: str, context: Context) -> str:
    """Train steps with autocast, in FP16 with GradScaler on CUDA; check that everything remains finite."""
    precision = torch.float16 if context.on_cuda else torch.bfloat16
    state = train_state(context, CFG[task], precision)
    losses = train_steps(context, state, SeededLoader(context, task, context.steps))
    assert all(math.isfinite(value) for value in losses), f"losses {losses}"
    for key, value in {**state.model.state_dict(), **state.ema.state_dict()}.items():
        assert torch.isfinite(value).all(), f"{key} is not finite"
    scale = state.scaler.get_scale()
    assert scale >= 1, f"the scale of GradScaler fell to {scale:g}"
    shown = ", ".join(f"{value:.3g}" for value in losses)
    with_scaler = f"scale of GradScaler {scale:g}" if state.scaler.is_enabled() else "no GradScaler"
    return f"{str(precision).removeprefix('torch.')}, {context.steps} steps, losses {shown}, {with_scaler}"


def amp_training(task: str, context: Context) -> str:
    """Train an epoch with the train script and `--amp`: FP16 on CUDA."""
    name = "fp16" if context.on_cuda else "bf16"
    row = run_training(task, flags(context, task, f"amp-{task}", amp=name)).rows[0]
    losses = {key: value for key, value in row.items() if "loss" in key}
    assert all(math.isfinite(value) for value in losses.values()), f"losses {losses}"
    return f"--amp {name}: " + ", ".join(f"{key} {value:.3g}" for key, value in losses.items())


def autobatch(context: Context) -> str:
    """Train with `--batch-size -1`, and measure the batch size of models of all tasks."""
    settings = flags(context, "detect", "autobatch", batch_size=-1)
    opt = yaml.safe_load((run_training("detect", settings).result.save_dir / "opt.yaml").read_text())
    sizes = {"train.py": opt["batch_size"]}
    if context.on_cuda:
        for task, cfg in CFG.items():
            sizes[task] = measure_batch(seeded_model(cfg, context.device), context.imgsz, torch.float16)
    for name, size in sizes.items():
        assert BATCH_SIZES[0] <= size <= LARGEST_BATCH, f"{name}: batch size {size}"
    return ", ".join(f"{name} {size}" for name, size in sizes.items())


def loaders(context: Context) -> str:
    """Compare the batches of 0 and 2 workers, on CUDA in page-locked memory, and their copies there."""
    images = dataset(context, "detect").with_name("shapes-detect") / "images" / "train"
    hyp = check_hyp({}, "tests.gpu")
    found: list[list[Batch]] = []
    for workers in (0, 2):
        samples = DetectionDataset([images], context.imgsz, batch_size=context.batch, augment=True, hyp=hyp)
        loader = make_loader(
            samples, context.batch, workers=workers, shuffle=True, pin_memory=context.on_cuda
        )
        with closing(loader):
            found.append(list(loader))
    for one, two in zip(*found, strict=True):
        assert one.images.is_pinned() == two.images.is_pinned() == context.on_cuda, "page-locked memory"
        moved = [batch.images.to(context.device, non_blocking=True) for batch in (one, two)]
        assert torch.equal(*moved) and torch.equal(moved[0].cpu(), one.images), "images differ"
        assert torch.equal(one.targets, two.targets) and one.paths == two.paths, "labels differ"
    memory = "page-locked" if context.on_cuda else "ordinary"
    return f"{len(found[0])} batches are equal, in {memory} memory"


class _StopWithin(Callbacks):
    """Ends a training at the first step of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch, self.now = epoch, -1

    def on_train_epoch_start(self, epoch: int) -> None:
        self.now = epoch

    def on_train_batch_end(self, *values: Any) -> None:
        self.stop_training = self.now == self.epoch


def resume(task: str, context: Context) -> str:
    """Stop a training within its second epoch, resume it, and compare it with one that was not stopped."""
    settings = flags(context, task, f"whole-{task}", epochs=40, save_period=1)  # in the warmup: many updates
    whole = run_training(task, {**settings, "callbacks": [_StopWithin(2)]}).result
    other = {**settings, "name": f"stopped-{task}", "callbacks": [_StopWithin(1)]}
    stopped = run_training(task, other).result
    assert len(read_rows(stopped.save_dir)) == 1, "the training was not stopped within its second epoch"
    last = str(stopped.save_dir / "weights" / "last.pt")
    resumed = run_training(
        task, {"resume": last, "device": context.flag, "callbacks": [_StopWithin(2)]}
    ).result
    assert resumed.save_dir == stopped.save_dir and len(read_rows(resumed.save_dir)) == 2
    states = [_training(run.save_dir / "weights" / "epoch1.pt") for run in (resumed, whole)]
    most = 0.0
    for part in ("model", "ema"):
        found, expected = (state[part]["state_dict"] for state in states)
        for key, value in expected.items():
            most = max(most, compare(f"{part} {key}", found[key], value, RESUMED, RESUMED))
    assert states[0]["updates"] == states[1]["updates"], "other numbers of updates"
    return f"weights and EMA differ by {most:.1e} (allowed {RESUMED:g}) after {states[0]['updates']} updates"


def _training(path: Path) -> Any:
    content = read_checkpoint(path).training
    assert content is not None, f"{path} cannot be resumed"
    return content


@contextmanager
def _nondeterministic_again() -> Iterator[None]:
    """Undo `--deterministic`, which is a setting of the process."""
    before = torch.backends.cudnn.benchmark
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.benchmark = before


def deterministic(task: str, context: Context) -> str:
    """Train twice with `--deterministic`, and compare the weights bit for bit."""
    states = []
    with _nondeterministic_again():
        for name in ("first", "second"):
            settings = flags(context, task, f"{name}-{task}", deterministic=True, save_period=1)
            folder = run_training(task, settings).result.save_dir
            states.append(_training(folder / "weights" / "epoch0.pt")["model"]["state_dict"])
    different = [key for key, value in states[0].items() if not torch.equal(value, states[1][key])]
    assert not different, f"{len(different)} tensors differ, {different[0]} first"
    return f"all {len(states[0])} tensors are equal bit for bit"


def compiled(context: Context) -> str:
    """Train a small model with an LSKA gate with `--compile`, and compare its losses with those without."""
    cfg = str(small_models(context.home)[1])
    settings = flags(context, "detect", "compiled", cfg=cfg, compile=True)
    try:
        found = run_training("detect", settings).rows[0]
    except Exception as error:
        if "compiler" in str(error).lower() or "triton" in str(error).lower():
            reason = str(error).splitlines()[0][:100]
            raise SkippedCheck(f"torch.compile lacks a compiler: {reason}") from error
        raise
    expected = run_training("detect", {**settings, "name": "eager", "compile": False}).rows[0]
    names = [name for name in expected if name.startswith("train/")]
    most = max(compare(name, found[name] / expected[name], 1.0, 0, COMPILED) for name in names)
    return f"losses differ by {most:.1e} (allowed {COMPILED:g})"


def waits(task: str, context: Context) -> str:
    """Let CUDA report what synchronizes in steps with AMP: only the meter of the losses may."""
    context.require_cuda("whose debug mode this uses; tests/utils/train/test_hidden_waits.py simulates it")
    state, loader = train_state(context, CFG[task], torch.float16), SeededLoader(context, task, 6)
    train_steps(context, state, loader)  # the first ones choose algorithms
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            train_steps(context, state, loader)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    found = [warning for warning in caught if "called a synchronizing" in str(warning.message)]
    places = sorted({f"{_relative(warning.filename)}:{warning.lineno}" for warning in found})
    strangers = [place for place in places if not place.startswith(_METER)]
    assert not strangers, f"{len(found)} waits, in {', '.join(strangers)}"
    return f"{len(found)} waits in 6 steps, all in {_METER}"


def _relative(path: str) -> str:
    return Path(path).relative_to(ROOT).as_posix() if path.startswith(str(ROOT)) else path


CHECKS = [
    *(Check(f"amp steps {task}", partial(amp, task)) for task in CFG),
    *(Check(f"amp training {task}", partial(amp_training, task)) for task in CFG),
    Check("batch-size -1", autobatch),
    Check("loaders", loaders),
    *(Check(f"resume {task}", partial(resume, task)) for task in CFG),
    *(Check(f"deterministic {task}", partial(deterministic, task)) for task in CFG),
    Check("compile", compiled),
    *(Check(f"waits {task}", partial(waits, task)) for task in CFG),
]
