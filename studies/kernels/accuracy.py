"""Train VAN-Tiny for each design, kernel size and seed; collect top-1, and plot it with intervals."""

from __future__ import annotations

import csv
import math
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from studies.kernels.accuracy_options import CONTEXT, AccuracyOptions
from studies.kernels.cases import DESIGNS
from studies.kernels.context_images import make_context_images
from studies.kernels.plot_cost import DPI, STYLES
from utils.base.log import LOG
from utils.base.paths import atomic_write
from utils.plots.figure import new_figure, save_figure

CFG = "van-tiny-cls.yaml"
_LR0 = 0.001
_SHIFT = 0.8  # of the designs in the plot, in units of k
_CLASSES, _SIDE = 1000, 224  # of the parameters and GFLOPs, as the papers count them


class Row(NamedTuple):
    """One training."""

    design: str
    k: int
    seed: int
    top1: float  # of the last epoch: the best of several epochs would be biased upwards
    val_loss: float


class Summary(NamedTuple):
    """The trainings of one design and kernel size."""

    design: str
    k: int
    mean: float
    low: float  # ends of the 95% interval of the mean; NaN with a single seed
    high: float
    seeds: int


def run(options: AccuracyOptions) -> None:
    """Train what is missing in accuracy.csv, then log a table and draw accuracy.png."""
    folder = Path(options.project)
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "accuracy.csv"
    rows = read_rows(table)
    if not options.plot_only:
        data = prepare_data(options, folder)
        known = {row[:3] for row in rows}
        missing = [case for case in cases(options) if case not in known]
        for number, case in enumerate(missing, 1):
            rows.append(train_case(options, data, folder, *case))
            write_rows(table, rows)
            LOG.info(f"{number}/{len(missing)} {describe(rows[-1])}")
    found = summarize(rows)
    LOG.info("\n" + markdown(found))
    if found:
        draw(found, folder / "accuracy.png", f"VAN-Tiny, {Path(options.data).name}, {options.imgsz} px")
        LOG.info(f"Results saved to {folder}")


def cases(options: AccuracyOptions) -> Iterator[tuple[str, int, int]]:
    """Yield design, kernel size and seed of each training; a seed is complete before the next one."""
    for seed in options.seeds:
        for k in options.kernels:
            for design in options.designs:
                yield design, k, seed


def prepare_data(options: AccuracyOptions, folder: Path) -> Path:
    """Return class folders with `per_class` training images of each class."""
    if options.data == CONTEXT:
        return make_context_images(folder / f"{CONTEXT}-{options.per_class}", train=options.per_class or 100)
    from utils.data.class_folders import class_folders, read_class_data

    source = read_class_data(options.data)
    if not options.per_class:
        return source.root
    target = folder / f"{source.root.name}-{options.per_class}"
    if not target.is_dir():
        fresh = target.with_name(f".{target.name}-new")
        shutil.rmtree(fresh, ignore_errors=True)
        val = Path(str(source.val[0]))
        shutil.copytree(val, fresh / "val")
        for name in class_folders(source.root / "train"):
            (fresh / "train" / name).mkdir(parents=True)
            files = sorted(path for path in (source.root / "train" / name).iterdir() if path.is_file())
            for file in files[: options.per_class]:
                shutil.copyfile(file, fresh / "train" / name / file.name)
        fresh.rename(target)
    return target


def train_case(options: AccuracyOptions, data: Path, folder: Path, design: str, k: int, seed: int) -> Row:
    """Train one model from scratch and return its result."""
    from studies.training import train
    from utils.base.options import options_from
    from utils.tasks.classify.options import ClassifyTrainOptions

    values = {
        "weights": "", "cfg": CFG, "attention": [f"design={design}", f"k={k}"], "data": str(data),
        "imgsz": options.imgsz, "epochs": options.epochs, "batch_size": options.batch_size, "seed": seed,
        "optimizer": "AdamW", "lr0": _LR0, "noaugment": options.data == CONTEXT, "device": options.device,
        "workers": options.workers, "noplots": True, "loggers": ["none"], "exist_ok": True,
        "project": str(folder / "trainings"), "name": f"{design}-{k}-{seed}",
    }  # fmt: skip
    result = train(options_from(ClassifyTrainOptions, values))
    with (result.save_dir / "results.csv").open(newline="") as file:
        last = list(csv.DictReader(file))[-1]
    shutil.rmtree(result.save_dir / "weights")  # 60 models of 8 MB
    return Row(design, k, seed, float(last["metrics/accuracy_top1"]), float(last["val/loss"]))


def read_rows(table: Path) -> list[Row]:
    """Read accuracy.csv; no rows if it does not exist."""
    if not table.is_file():
        return []
    with table.open(newline="") as file:
        return [
            Row(row["design"], int(row["k"]), int(row["seed"]), float(row["top1"]), float(row["val_loss"]))
            for row in csv.DictReader(file)
        ]


def write_rows(table: Path, rows: Sequence[Row]) -> None:
    """Write accuracy.csv atomically."""
    with atomic_write(table, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([Row._fields, *rows])


def summarize(rows: Sequence[Row]) -> list[Summary]:
    """Return mean and 95% interval (Student's t) of top-1 for each design and kernel size."""
    from scipy import stats

    values: dict[tuple[str, int], list[float]] = defaultdict(list)
    for row in rows:
        values[row.design, row.k].append(row.top1)
    found = []
    for design in DESIGNS:
        for k in sorted(k for name, k in values if name == design):
            top1 = np.array(values[design, k])
            half = math.nan
            if len(top1) > 1:
                half = float(stats.t.ppf(0.975, len(top1) - 1) * top1.std(ddof=1) / math.sqrt(len(top1)))
            mean = float(top1.mean())
            found.append(Summary(design, k, mean, mean - half, mean + half, len(top1)))
    return found


def cost(design: str, k: int) -> tuple[int, float]:
    """Return parameters and multiply-adds (1e9) of VAN-Tiny with 1000 classes at 224 px."""
    import torch

    from models.config import parse_settings, with_attention
    from models.yolo import make_model, read_config

    config = with_attention(read_config(CFG)[0], parse_settings([f"design={design}", f"k={k}"]))
    with torch.device("meta"):
        model = make_model(config, nc=_CLASSES)
    return sum(p.numel() for p in model.parameters()), model.gflops(_SIDE) / 2


def describe(row: Row) -> str:
    """Return a training in one line."""
    return f"{DESIGNS[row.design]} k={row.k} seed {row.seed}: top-1 {row.top1:.3f}, loss {row.val_loss:.3f}"


def markdown(found: Sequence[Summary]) -> str:
    """Return the results as a markdown table."""
    lines = [
        "| design | k | parameters | GMACs at 224 px | top-1 | 95% interval | seeds |",
        "|---|" + "---:|" * 6,
    ]
    for one in found:
        parameters, gmacs = cost(one.design, one.k)
        interval = "-" if math.isnan(one.low) else f"{one.low:.3f} to {one.high:.3f}"
        lines.append(
            f"| {DESIGNS[one.design]} | {one.k} | {parameters:,} | {gmacs:.3f} | {one.mean:.3f} | {interval} "
            f"| {one.seeds} |"
        )
    return "\n".join(lines)


def draw(found: Sequence[Summary], path: Path, title: str) -> None:
    """Draw top-1 with intervals, parameters and multiply-adds over the kernel size."""
    figure = new_figure(11, 3.8)
    panels = figure.subplots(1, 3)
    for number, design in enumerate(dict.fromkeys(one.design for one in found)):
        own = [one for one in found if one.design == design]
        color, marker, line = STYLES[design]
        ks, means = [one.k for one in own], [one.mean for one in own]
        half = np.nan_to_num([one.high - one.mean for one in own])
        style = {"color": color, "marker": marker, "linestyle": line, "label": DESIGNS[design]}
        shifted = [k + _SHIFT * (number - 1.5) for k in ks]  # so that intervals do not cover each other
        panels[0].errorbar(shifted, means, yerr=half, capsize=3, elinewidth=1, **style)
        costs = [cost(design, k) for k in ks]
        panels[1].plot(ks, [parameters / 1e6 for parameters, _ in costs], **style)
        panels[2].plot(ks, [gmacs for _, gmacs in costs], **style)
    labels = ("top-1, mean and 95% interval", "parameters, millions", "GMACs at 224 px")
    for axes, label in zip(panels, labels, strict=True):
        axes.set_xlabel("kernel size k")
        axes.set_title(label, fontsize=10)
        axes.grid(alpha=0.25)
    panels[1].legend(fontsize=8)
    figure.suptitle(title)
    save_figure(figure, path, DPI)
