"""Images per second of the training loop, against the bare step on one batch: does loading keep up?

    python benchmarks/training.py --weights yolov5n.pt --data bccd.yaml

Epochs of the training loop and bare steps alternate in one process; workers wait during bare steps. The
first epoch, which fills the image cache, is not counted. `--images` limits the training set.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from timing import ROOT, ResultTable, parser, ratio

SHARED = ROOT.parent / "shared"
BARE_STEPS = 3


def main() -> None:
    """Run the benchmark."""
    p = parser(__doc__)
    p.set_defaults(rounds=5)
    p.add_argument("--weights", default=str(SHARED / "weights" / "yolov5n.pt"), help="checkpoint path")
    p.add_argument("--data", default=str(SHARED / "data" / "bccd.yaml"), help="dataset yaml")
    p.add_argument("--img", type=int, nargs="+", default=[320, 640], help="image size(s) (pixels)")
    p.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="number(s) of workers")
    p.add_argument("--images", "--pictures", type=int, default=96, help="number of training images")
    opt = p.parse_args()
    for path in (opt.weights, opt.data):
        if not Path(path).is_file():
            p.error(f"{path}: no such file")
    table = ResultTable("Training loop", opt.csv)
    for img in opt.img:
        for workers in opt.workers:
            for mosaic in (True, False):
                measure(table, opt, img, workers, mosaic)


def measure(table: ResultTable, opt: Any, img: int, workers: int, mosaic: bool) -> None:
    """Measure one setting."""
    loop_rates, bare_rates = [], []
    with tempfile.TemporaryDirectory() as folder, quiet():
        for loop, bare in epochs(opt, Path(folder), img, workers, mosaic):
            loop_rates.append(loop)
            bare_rates.append(bare)
    median = len(loop_rates) // 2
    sides = f"loop {sorted(loop_rates)[median]:.1f}, bare step {sorted(bare_rates)[median]:.1f} images/s"
    name = f"{img} px, {workers} workers, {'mosaic' if mosaic else 'no mosaic'}"
    table.add(ratio(name, ">= 0.9", loop_rates, bare_rates, sides))


def epochs(opt: Any, home: Path, img: int, workers: int, mosaic: bool) -> Iterator[tuple[float, float]]:
    """Yield images per second of the loop and of the bare step, for each round."""
    from utils.loggers.callbacks import CallbackList
    from utils.train import loop
    from utils.train.distributed import make_process_group
    from utils.train.task import build_setup, make_state, make_train_config
    from utils.train.train_options import options_from

    given = {"weights": opt.weights, "data": subset(opt, home), "imgsz": img, "workers": workers}
    given |= {"epochs": opt.rounds + 1, "noval": True, "noplots": True, "loggers": ["none"]}
    settings = options_from({**given, "noautoanchor": True})
    with make_process_group(settings) as process_group:
        setup = build_setup(settings, None, process_group)
        setup.hyp["mosaic"] = float(mosaic)
        loaders, state = setup.loaders, make_state(setup)
        config = make_train_config(setup, state)
        no_callbacks = CallbackList()
        clock = make_clock()
        callbacks = CallbackList([clock])
        for epoch in state.epochs_left(settings.epochs):
            clock.ends.clear()
            loop.train_one_epoch(epoch, state, loaders.train, config, callbacks)
            state.progress.record(epoch, None)
            if epoch == 0:
                continue
            images = (len(clock.ends) - 1) * loaders.batch_size
            rate = images / (clock.ends[-1] - clock.ends[0])
            yield rate, bare_rate(state, config, clock.batch, no_callbacks)
        loaders.close()


def bare_rate(state: Any, config: Any, batch: tuple[Any, Any], callbacks: Any) -> float:
    """Return images per second of forward, loss, backward and as many updates as the loop makes."""
    from utils.train import loop

    images, targets = loop.to_device(batch[0], state.device), batch[1]
    time.sleep(0.5)  # until the workers have finished their batches
    times = []
    for number in range(BARE_STEPS + 1):
        start = time.perf_counter()
        loop.compute_loss(state, images, (targets,), config)[0].backward()
        if number % config.schedule.accumulate(10**6) == 0:
            loop.update_weights(state, state.progress.last_update, callbacks)
        times.append(time.perf_counter() - start)
    state.optimizer.zero_grad()
    return len(images) * BARE_STEPS / sum(times[1:])


def make_clock() -> Any:
    """Make a callback that records when batches end, and keeps one for the bare step."""
    from utils.loggers.callbacks import Callbacks

    class Clock(Callbacks):
        ends: list[float] = []
        batch: tuple[Any, Any] = (None, None)

        def on_train_batch_end(self, step: int, images: Any, targets: Any, paths: Any) -> None:
            self.ends.append(time.perf_counter())
            if self.batch[0] is None or len(images) >= len(self.batch[0]):
                self.batch = images, targets

    return Clock()


def subset(opt: Any, home: Path) -> str:
    """Write a dataset yaml with the first `--images` training images."""
    from utils.data.dataset_yaml import read_data_yaml

    data = read_data_yaml(opt.data)
    folder = Path(data.train[0] if isinstance(data.train, list) else data.train)
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    (home / "train.txt").write_text("".join(f"{path.resolve()}\n" for path in files[: opt.images]))
    names = "".join(f"  {key}: {name}\n" for key, name in data.names.items())
    yaml = home / "data.yaml"
    yaml.write_text(f"train: {home / 'train.txt'}\nval: {home / 'train.txt'}\nnames:\n{names}")
    return str(yaml)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide the output of the loop."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


if __name__ == "__main__":
    sys.exit(main())
