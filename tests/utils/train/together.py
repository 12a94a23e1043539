"""Tasks of a process under torchrun: `torchrun -m tests.utils.train.together TASK[,TASK] FOLDER [FILE]`."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from tests.studies.classifiers import CONFIG as CLASSIFY_CONFIG
from tests.utils.train.small import (
    CONFIG,
    SEGMENT_CONFIG,
    SIZE,
    DrawnLoader,
    make_state,
    make_train_config,
)
from utils.base import script
from utils.base.errors import YoloError
from utils.data.loader import Batch
from utils.data.samplers import Share
from utils.loggers.callbacks import CallbackList
from utils.tasks.task import get_task
from utils.train.distributed import ProcessGroup, make_process_group
from utils.train.loop import train_one_epoch

IMAGES = 16  # in a batch of all processes


class Part(DrawnLoader):
    """The images of random batches that belong to this rank, with the labels of a task."""

    def __init__(self, batches: int, share: Share, task: str) -> None:
        super().__init__(batches)
        self.share = share
        self.task = task

    def __iter__(self) -> Iterator[Batch]:
        for index in range(self.first, self.batches):
            draw = torch.Generator().manual_seed(1000 * self.epoch + index)
            images = torch.randint(0, 256, (IMAGES, 3, SIZE, SIZE), generator=draw, dtype=torch.uint8)
            targets = torch.rand(3 * IMAGES, 6, generator=draw)
            targets[:, 0] = torch.arange(3 * IMAGES) // 5  # the last images have none
            targets[:, 1] = (targets[:, 1] * CONFIG["nc"]).floor()
            targets[:, 2:] = targets[:, 2:] * 0.4 + 0.2
            if self.task == "classify":  # rows of image and class
                targets = torch.stack((torch.arange(IMAGES), targets[:IMAGES, 1]), 1)
            own: Any = self.share.part_of(list(range(IMAGES)))  # type: ignore[arg-type]  # any list
            rows = targets[(targets[:, 0] >= own[0]) & (targets[:, 0] <= own[-1])]
            rows[:, 0] -= own[0]
            maps = (
                torch.randint(0, 6, (IMAGES, 32, 32), generator=draw)[own] if self.task == "segment" else None
            )
            yield Batch(images[own], rows, ["a.jpg"] * len(own), [None] * len(own), maps)


def segment_steps(process_group: ProcessGroup, out: Path, *_: str) -> None:
    """Make the steps of `steps` with a segmentation model."""
    steps(process_group, out, config=SEGMENT_CONFIG)


def classify_steps(process_group: ProcessGroup, out: Path, *_: str) -> None:
    """Make the steps of `steps` with a classification model."""
    steps(process_group, out, config=CLASSIFY_CONFIG)


def steps(process_group: ProcessGroup, out: Path, *_: str, config: dict[str, Any] = CONFIG) -> None:
    """Make 20 optimizer steps with frozen batch norms; save losses and weights to `out`."""
    state = make_state(config)
    state.process_group = process_group
    task = get_task(state.model.task)
    settings = make_train_config(batches=10, frozen=list(state.model.model), row=task.row_style)
    losses = []
    for epoch in range(2):
        loader: Any = Part(10, Share(process_group.rank, process_group.world), task.name)
        losses.append(train_one_epoch(epoch, state, loader, settings, CallbackList()))
        state.progress.record(epoch, None)
    assert state.ema.updates == 20
    weights = {key: value.clone() for key, value in state.model.state_dict().items()}
    if process_group.is_main:
        torch.save({"losses": torch.tensor(losses), "weights": weights}, out)
    spread = process_group.gather(weights)
    assert all(torch.equal(value, other[key]) for other in spread for key, value in weights.items())


def measured(process_group: ProcessGroup, out: Path, weights: str) -> None:
    """Validate the images of BCCD together."""
    from models.weights import load_for_inference
    from tests.known import SHARED
    from utils.data.dataset import DetectionDataset
    from utils.data.loader import make_loader
    from utils.val.evaluate import evaluate

    with process_group.main_first():
        images = DetectionDataset([SHARED / "data/bccd/images/test"], 160, batch_size=5, rect=True, pad=0.5)
    share = Share(process_group.rank, process_group.world, whole_batches=True)
    loader = make_loader(images, 5, workers=0, share=share)
    model: Any = load_for_inference(weights, torch.device("cpu"))
    result = evaluate(
        model, loader, dict(enumerate("abc")), device=torch.device("cpu"), gather=process_group.gather
    )
    assert result.matches is not None
    content = {"seen": result.seen, "map": result.map, "map50": result.map50, "p": result.mp}
    everywhere = process_group.gather(content | {"confidence": result.matches.confidence.tolist()})
    assert all(other == everywhere[0] for other in everywhere)
    if process_group.is_main:
        torch.save(everywhere[0], out)


def fails(process_group: ProcessGroup, out: Path, *_: str) -> None:
    """Fail on rank 1 while rank 0 waits for it."""
    if process_group.rank == 1:
        raise YoloError("this one fails")
    process_group.sum_counts([1])


def main() -> None:
    """Run the tasks that the command line names; each writes to a file of its name."""
    tasks, folder, *more = sys.argv[1:]
    torch.set_num_threads(1)
    with make_process_group(Namespace(device="cpu", batch_size=IMAGES, resume=False)) as process_group:
        for task in tasks.split(","):
            run = {
                "steps": steps, "segment_steps": segment_steps, "classify_steps": classify_steps,
                "measured": measured, "fails": fails,
            }[task]  # fmt: skip
            run(process_group, Path(folder, task), *more)


if __name__ == "__main__":
    script.main(main)
