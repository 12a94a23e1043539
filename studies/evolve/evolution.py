"""`train.py --evolve`: train candidates one after the other or several at a time, and keep what they gave."""

from __future__ import annotations

import contextlib
import os
import re
import time
from argparse import Namespace
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from studies.evolve.cluster import ClusterTrainer
from studies.evolve.eta import Forecast, in_words, minutes_of_training
from studies.evolve.population import Population
from studies.evolve.records import Journal, Result, Trial, write_best, write_population, write_table
from studies.evolve.search_plan import SearchPlan, how_to_go_on, make_plan, with_saved_options
from studies.evolve.trainer import KilledError, Trainer, Worker
from studies.evolve.upload import Bucket
from utils.base.errors import DataError, YoloError
from utils.base.log import LOG, color
from utils.base.paths import atomic_write, relative_to_cwd, typed
from utils.base.processes import lock_folder, share_out
from utils.loggers.callbacks import Callbacks
from utils.train.run_dir import TrainResult

_FAILURES = 3  # of the same kind, one after the other, that end an evolution
_REDRAW = 60.0  # seconds between two drawings of evolve.png, at least


def evolve(opt: Namespace, callbacks: Sequence[Callbacks] = ()) -> TrainResult:
    """Search for hyperparameters, from the start or from where an earlier call was stopped.

    Returns:
        The folder, and what the best candidate gave.

    Raises:
        ConfigError: flags, files or images that cannot be used.
        YoloError: candidates fail, one like the other.
    """
    opt = with_saved_options(opt)
    plan = make_plan(opt)
    if callbacks:
        LOG.warning("--evolve: candidates are trained in processes of their own, so callbacks are not called")
    with lock_folder(plan.home):
        evolution = Evolution(plan, opt)
        evolution.run()
    return evolution.result()


class Evolution:
    """The candidates that are still to be trained, and what is made of the results."""

    def __init__(self, plan: SearchPlan, opt: Namespace) -> None:
        self.plan = plan
        self.opt = opt
        self.method = plan.method
        self.journal = Journal(plan.home)
        self.total = self.method.count(opt.evolve)
        self.jobs = max(opt.jobs, 1)
        self._waiting = deque(i for i in range(self.total) if i not in self.journal.results)
        self._under_way: dict[Future[Result], Trial] = {}
        self._failed: list[Result] = []  # the latest ones, if they are all of a kind
        self._bucket = Bucket(opt.bucket, plan.home) if opt.bucket else None
        self._clock = _Clock(plan.home / "minutes.txt")
        self._drawn = time.monotonic()
        self._told = False
        self._forecast = Forecast(self.jobs, opt.epochs, ())

    def run(self) -> None:
        """Train until all candidates are there or the budget is used up."""
        if not self._waiting:
            LOG.info(f"all {self.total} candidates are there already; a larger --evolve goes on")
        else:
            worker = self._hire()
            self._say_what_comes()
            with ThreadPoolExecutor(self.jobs) as pool, self._ending(worker):
                while self._begin(pool, worker):
                    done, _ = wait(self._under_way, timeout=1.0, return_when=FIRST_COMPLETED)
                    for future in done:
                        self._keep(_outcome(future, self._under_way.pop(future)))
                    self._watch()
        self._write()
        self._draw()

    def result(self) -> TrainResult:
        """What the best candidate gave.

        Raises:
            YoloError: none was trained to its end.
        """
        best = self._best()
        home = relative_to_cwd(self.plan.home)
        if best is None:
            raise YoloError(f"no candidate was trained to its end; see the logs in {home}")
        fitness = self.method.fitness(best)
        LOG.info(
            f"best of {len(self.journal.results)} candidates: number {best.index}, fitness {fitness:.4g}"
        )
        LOG.info(f"Results saved to {color(home, 'bold')}")
        LOG.info(f"To use them: {typed('train.py')} --hyp {home}/hyp_evolve.yaml")
        return TrainResult(self.plan.home, fitness, dict(best.metrics))

    def _hire(self) -> Worker:
        """Who trains: processes here, or on a cluster."""
        home, opt = self.plan.home, self.opt
        if opt.ray:
            cluster = ClusterTrainer(home, opt.ray, opt.jobs, opt.device)
            self.jobs = cluster.jobs
            return cluster
        threads = os.environ.get("OMP_NUM_THREADS", "")  # as a single training does, heed what the user says
        return Trainer(home, share_out(self.jobs, opt.device, int(threads) if threads.isdigit() else 0))

    def _say_what_comes(self) -> None:
        known = self.journal.in_order()
        self._forecast = Forecast(self.jobs, self.opt.epochs, known)
        unit = f" of {self.method.size}" if isinstance(self.method, Population) else ""
        budget = self.opt.evolve_budget
        LOG.info(
            f"evolving {self.opt.evolve} generations{unit} ({self.method.name}): "
            f"{len(self._waiting)} of {self.total} candidates to train, {self.opt.epochs} epochs each, "
            f"{self.jobs} at a time, in {relative_to_cwd(self.plan.home)}"
            + (f"; {budget:g} h at most, {in_words(self._clock.minutes)} used" if budget else "")
        )
        left = self._forecast.left(len(self._waiting))
        if not left and (minutes := minutes_of_training(self.opt)) is not None:
            whole = in_words(minutes * len(self._waiting) / self.jobs)
            left = f"about {whole} for all, judging by one step here; told better after the first epochs"
        LOG.info(f"time: {left or 'told after the first epochs'}")

    def _begin(self, pool: ThreadPoolExecutor, worker: Worker) -> bool:
        """Begin what can be begun; whether anything is under way."""
        while self._waiting and len(self._under_way) < self.jobs:
            index = self._waiting[0]
            before = self.journal.first(self.method.needed(index, self.jobs))
            if before is None:
                break
            if self._used_up():
                break
            self._waiting.popleft()
            hyp = self.journal.proposed(index) or self.method.propose(index, before)
            twin = next((r for r in before if r.hyp == hyp and not r.failure), None)
            trial = Trial(index, hyp, self.plan.flags)
            if twin is not None:  # an elite: training it once more would give the same
                trial.save(self.plan.home)
                self._keep(Result(index, hyp, twin.metrics, 0.0, "", twin.index))
                continue
            self._under_way[pool.submit(worker, trial)] = trial
        return bool(self._under_way)

    def _watch(self) -> None:
        """Look at the oldest training for a first estimate."""
        if self._under_way:
            oldest = min(self._under_way.values(), key=lambda trial: trial.index)
            self._forecast.watch(oldest.folder(self.plan.home), len(self._waiting) + len(self._under_way))

    def _used_up(self) -> bool:
        budget = self.opt.evolve_budget
        if not budget or self._clock.minutes < budget * 60:
            return False
        if not self._told:
            self._told = True
            LOG.info(f"the budget of {budget:g} h is used up; with a larger --evolve-budget it goes on:")
            LOG.info(how_to_go_on(self.plan.home, self.opt.evolve))
        return True

    def _keep(self, result: Result) -> None:
        """Record a result, tell it, and end the evolution if candidates fail one like the other."""
        self.journal.record(result)
        self._clock.save()
        self._forecast.note(result)
        self._tell(result)
        if result.failure and (not self._failed or _kind(result) == _kind(self._failed[-1])):
            self._failed.append(result)
        else:
            self._failed = [result] if result.failure else []
        if len(self._failed) == _FAILURES:
            for failed in self._failed:
                self.journal.forget(failed.index)
            self._write()
            raise YoloError(f"{_FAILURES} candidates in a row failed: {result.failure}")
        self._write()
        if time.monotonic() - self._drawn > _REDRAW:
            self._draw()

    def _tell(self, result: Result) -> None:
        if result.failure:
            LOG.warning(f"candidate {result.index} failed and counts as 0: {result.failure}")
            return
        left = self._forecast.left(len(self._waiting) + len(self._under_way))
        how = f"as {result.same_as}" if result.same_as >= 0 else f"in {in_words(result.minutes)}"
        best = self._best()
        LOG.info(
            f"candidate {result.index} ({len(self.journal.results)}/{self.total}): "
            f"fitness {self.method.fitness(result):.4g}, mAP50 {result.map50:.4g}, "
            f"mAP50-95 {result.map50_95:.4g} {how}; best {best.index if best else '-'}"
            + (f"; {left}" if left else "")
        )

    def _best(self) -> Result | None:
        """The best that did not fail; the earliest of equals."""
        fine = [result for result in self.journal.in_order() if not result.failure]
        return max(fine, key=lambda r: (self.method.fitness(r), -r.index), default=None)

    def _write(self) -> None:
        """Make the tables and yamls again."""
        results, home = self.journal.in_order(), self.plan.home
        if results:
            write_table(results, home / "evolve.csv")
        best = self._best()
        if best is not None:
            write_best(best, self.method.fitness(best), len(results), home / "hyp_evolve.yaml")
        if isinstance(self.method, Population):
            whole = len(self.journal.prefix()) // self.method.size * self.method.size
            if whole and whole == len(results):
                write_population(results, self.method.size, home / "evolve_population.yaml")
        if self._bucket is not None:
            self._bucket.copy()

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        fine = [result for result in self.journal.in_order() if not result.failure]
        if self.opt.noplots or not fine:
            return
        from utils.plots.results import plot_evolution

        fitness = [self.method.fitness(result) for result in fine]
        genes = {key: [result.hyp[key] for result in fine] for key in fine[0].hyp}
        plot_evolution(genes, fitness, self.plan.home / "evolve.png")

    @contextlib.contextmanager
    def _ending(self, worker: Worker) -> Iterator[None]:
        """Whatever ends the evolution early: end what is under way, and say how to go on."""
        try:
            yield
        except BaseException:
            for future in self._under_way:
                future.cancel()
            LOG.warning(f"stopping; to go on: {how_to_go_on(self.plan.home, self.opt.evolve)}")
            worker.stop()
            self._clock.save()
            self._draw()
            raise


class _Clock:
    """Minutes of all calls of an evolution, kept in a file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        try:
            self._before = float(file.read_text()) if file.is_file() else 0.0
        except ValueError as error:
            raise DataError(f"{file}: damaged, expected minutes; correct or remove it") from error
        self._started = time.monotonic()

    @property
    def minutes(self) -> float:
        """Up to now."""
        return self._before + (time.monotonic() - self._started) / 60

    def save(self) -> None:
        """Keep them for the next call."""
        with atomic_write(self._file, "w") as file:
            file.write(f"{self.minutes:.3f}")


def _outcome(future: Future[Result], trial: Trial) -> Result:
    """What a training gave; one that was killed here has failed."""
    try:
        return future.result()
    except KilledError as error:
        return Result(trial.index, trial.hyp, failure=str(error))


def _kind(result: Result) -> str:
    """A failure without its numbers: epochs, losses and paths differ."""
    return re.sub(r"\d+", "#", result.failure)
