"""`train.py --evolve`: propose, train and record candidates, several at a time; write tables and yamls."""

from __future__ import annotations

import contextlib
import math
import os
import re
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

from studies.evolve.eta import Forecast, format_minutes, minutes_of_training
from studies.evolve.genetic import Population
from studies.evolve.search_plan import SearchPlan, make_plan, resume_command, with_saved_options
from studies.evolve.trials import Journal, Result, Trial
from studies.jobs.job import MINUTES, Job, KilledError, Minutes
from studies.jobs.pool import JobPool, Runner, make_runner
from utils.base.errors import ConfigError, YoloError, one_line
from utils.base.log import LOG, color
from utils.base.paths import atomic_write, command_for, relative_to_cwd
from utils.base.processes import lock_folder
from utils.base.yaml_io import write_yaml
from utils.loggers.callbacks import Callbacks
from utils.tasks.task import get_task
from utils.train.run_dir import TrainResult
from utils.train.train_options import TrainOptions

_MAX_FAILURES = 3  # of the same kind in a row, which end an evolution
_PLOT_INTERVAL = 60.0  # seconds between two plots, at least
TABLE, BEST, POPULATION = "evolve.csv", "hyp_evolve.yaml", "evolve_population.yaml"


def evolve(options: TrainOptions, callbacks: Sequence[Callbacks] = ()) -> TrainResult:
    """Search for hyperparameters, from the start or where an earlier call was stopped.

    Args:
        options: of train.py.
        callbacks: not called; a warning says so.

    Returns:
        The folder of the evolution, and fitness and metrics of the best candidate.

    Raises:
        ConfigError: flags, files or images that cannot be used.
        YoloError: several candidates in a row fail for the same reason.
    """
    options = with_saved_options(options)
    plan = make_plan(options)
    if callbacks:
        LOG.warning("--evolve: candidates are trained in subprocesses, so callbacks are not called")
    with lock_folder(plan.home):
        evolution = Evolution(plan, options)
        evolution.run()
    return evolution.result()


class Evolution:
    """The candidates that are still to be trained, and the results so far."""

    def __init__(self, plan: SearchPlan, options: TrainOptions) -> None:
        self.plan = plan
        self.options = options
        self.method = plan.method
        self.journal = Journal(plan.home)
        assert options.evolve is not None
        self.generations = options.evolve
        self.task = get_task(options.model_task)
        self.script = self.task.scripts[0]
        self.total = self.method.count(options.evolve)
        self.jobs = max(options.jobs, 1)
        self._waiting = deque(i for i in range(self.total) if i not in self.journal.results)
        self._failed: list[Result] = []  # the latest results, as long as they failed for the same reason
        self._bucket = Bucket(options.bucket, plan.home) if options.bucket else None
        self._minutes = Minutes(plan.home / MINUTES)
        self._plotted = time.monotonic()
        self._over_budget = False
        self._forecast = Forecast(self.jobs, options.epochs, ())

    def run(self) -> None:
        """Train until all candidates have results, or the budget is used up."""
        if not self._waiting:
            LOG.info(f"all {self.total} candidates are complete already; a larger --evolve adds more")
        else:
            runner = self._make_runner()
            self._announce()
            with JobPool[Result](runner) as pool, self._stopping(pool):
                while self._submit(pool):
                    for trial, future in pool.finished():
                        self._keep(_outcome(trial, future), pool)
                    self._watch(pool)
        self._write()
        self._plot()

    def result(self) -> TrainResult:
        """Return the result of the best candidate.

        Raises:
            YoloError: no candidate was trained completely.
        """
        best = self._best()
        home = relative_to_cwd(self.plan.home)
        if best is None:
            raise YoloError(f"no candidate was trained completely; see the logs in {home}")
        fitness = self.method.fitness(best)
        LOG.info(
            f"best of {len(self.journal.results)} candidates: number {best.index}, fitness {fitness:.4g}"
        )
        LOG.info(f"Results saved to {color(home, 'bold')}")
        LOG.info(f"To use them: {command_for(self.script)} --hyp {home}/{BEST}")
        return TrainResult(self.plan.home, fitness, dict(best.metrics))

    def _make_runner(self) -> Runner:
        options = self.options
        threads = os.environ.get("OMP_NUM_THREADS", "")  # respected as in a single training
        runner = make_runner(
            self.plan.home,
            options.jobs,
            options.device,
            int(threads) if threads.isdigit() and not options.ray else 0,
            options.ray,
        )
        self.jobs = runner.jobs
        return runner

    def _announce(self) -> None:
        """Log what is to be trained, and an estimate of the time."""
        options, count = self.options, len(self._waiting)
        self._forecast = Forecast(self.jobs, options.epochs, self.journal.in_order())
        unit = f" of {self.method.size}" if isinstance(self.method, Population) else ""
        budget = options.evolve_budget
        LOG.info(
            f"evolving {options.evolve} generations{unit} ({self.method.name}): "
            f"{count} of {self.total} candidates to train, {options.epochs} epochs each, "
            f"{self.jobs} at a time, in {relative_to_cwd(self.plan.home)}"
            + (f"; {budget:g} h at most, {format_minutes(self._minutes.total)} used" if budget else "")
        )
        left = self._forecast.left(count)
        if not left and (minutes := minutes_of_training(options)) is not None:
            total = format_minutes(minutes * count / self.jobs)
            left = f"about {total} for all, estimated from one step; updated after the first epochs"
        LOG.info(f"time: {left or 'estimated after the first epochs'}")

    def _submit(self, pool: JobPool[Result]) -> bool:
        """Start candidates until all jobs are busy; return whether any is running."""
        while self._waiting and len(pool) < self.jobs:
            index = self._waiting[0]
            before = self.journal.first(self.method.needed(index, self.jobs))
            if before is None or self._is_over_budget():
                break
            self._waiting.popleft()
            hyp = self.journal.proposed(index) or self.method.propose(index, before)
            trial = Trial(index, hyp, self.plan.flags, self.options.model_task)
            twin = next((r for r in before if r.hyp == hyp and not r.failure), None)
            if twin is None:
                pool.submit(trial)
            else:  # a kept candidate: another training would give the same result
                trial.save(self.plan.home)
                self._keep(Result(index, hyp, twin.metrics, 0.0, "", twin.index), pool)
        return len(pool) > 0

    def _watch(self, pool: JobPool[Result]) -> None:
        """Update the forecast from the oldest running training."""
        if pool:
            self._forecast.watch(pool.jobs[0].folder(self.plan.home), len(self._waiting) + len(pool))

    def _is_over_budget(self) -> bool:
        budget = self.options.evolve_budget
        if not budget or self._minutes.total < budget * 60:
            return False
        if not self._over_budget:
            self._over_budget = True
            LOG.info(f"the budget of {budget:g} h is used up; to resume with a larger --evolve-budget:")
            LOG.info(resume_command(self.plan.home, self.generations, self.script))
        return True

    def _keep(self, result: Result, pool: JobPool[Result]) -> None:
        """Record and log a result; raise YoloError if several in a row failed for the same reason."""
        self.journal.record(result)
        self._minutes.save()
        self._forecast.note(result)
        self._log(result, len(self._waiting) + len(pool))
        if result.failure and (not self._failed or _reason(result) == _reason(self._failed[-1])):
            self._failed.append(result)
        else:
            self._failed = [result] if result.failure else []
        if len(self._failed) == _MAX_FAILURES:
            for failed in self._failed:
                self.journal.forget(failed.index)
            self._write()
            raise YoloError(f"{_MAX_FAILURES} candidates in a row failed: {result.failure}")
        self._write()
        if time.monotonic() - self._plotted > _PLOT_INTERVAL:
            self._plot()

    def _log(self, result: Result, remaining: int) -> None:
        if result.failure:
            LOG.warning(f"candidate {result.index} failed and counts as 0: {result.failure}")
            return
        left = self._forecast.left(remaining)
        how = f"as {result.same_as}" if result.same_as >= 0 else f"in {format_minutes(result.minutes)}"
        best = self._best()
        scores = ", ".join(f"{name} {value:.4g}" for name, value in self.task.scores(result.metrics).items())
        LOG.info(
            f"candidate {result.index} ({len(self.journal.results)}/{self.total}): "
            f"fitness {self.method.fitness(result):.4g}, {scores} {how}; best {best.index if best else '-'}"
            + (f"; {left}" if left else "")
        )

    def _best(self) -> Result | None:
        """Return the best result that did not fail; the earliest of equals."""
        valid = [result for result in self.journal.in_order() if not result.failure]
        return max(valid, key=lambda r: (self.method.fitness(r), -r.index), default=None)

    def _write(self) -> None:
        """Write the tables and yamls."""
        results, home = self.journal.in_order(), self.plan.home
        if results:
            write_table(results, home / TABLE, self.task.measured)
        best = self._best()
        if best is not None:
            write_best(best, self.method.fitness(best), len(results), home / BEST)
        if isinstance(self.method, Population):
            complete = len(self.journal.prefix()) // self.method.size * self.method.size
            if complete and complete == len(results):
                write_population(results, self.method.size, home / POPULATION)
        if self._bucket is not None:
            self._bucket.copy()

    def _plot(self) -> None:
        self._plotted = time.monotonic()
        valid = [result for result in self.journal.in_order() if not result.failure]
        if self.options.noplots or not valid:
            return
        from utils.plots.results import plot_evolution

        fitness = [self.method.fitness(result) for result in valid]
        genes = {key: [result.hyp[key] for result in valid] for key in valid[0].hyp}
        plot_evolution(genes, fitness, self.plan.home / "evolve.png")

    @contextlib.contextmanager
    def _stopping(self, pool: JobPool[Result]) -> Iterator[None]:
        """End the running trainings after an error or Ctrl-C, and log the command that resumes."""
        try:
            yield
        except BaseException:
            LOG.warning(
                f"stopping; to resume: {resume_command(self.plan.home, self.generations, self.script)}"
            )
            pool.stop()
            self._minutes.save()
            self._plot()
            raise


def _outcome(trial: Job[Result], future: Future[Result]) -> Result:
    """Return the result of a training; one that was killed on this machine has failed."""
    try:
        return future.result()
    except KilledError as error:
        assert isinstance(trial, Trial)
        return Result(trial.index, trial.hyp, failure=error.reason)


def _reason(result: Result) -> str:
    """Return a failure without its numbers, since epochs, losses and paths differ."""
    return re.sub(r"\d+", "#", result.failure)


def write_table(results: Sequence[Result], path: Path, measured: Sequence[str]) -> None:
    """Write evolve.csv: a row for each candidate, with its `measured` metrics and its hyperparameters."""
    names = [*measured, *results[0].hyp]
    lines = ["".join(f"{name:>20s}," for name in names)]
    for result in results:
        missing = 0.0 if result.failure else math.nan
        values = [result.metrics.get(name, missing) for name in measured] + list(result.hyp.values())
        lines.append("".join(f"{value:20.5g}," for value in values))
    with atomic_write(path, "w", encoding="utf-8") as file:
        file.writelines(line.rstrip(",") + "\n" for line in lines)


def write_best(best: Result, fitness: float, count: int, path: Path) -> None:
    """Write hyp_evolve.yaml: the best hyperparameters, ready for --hyp, with their metrics as comments."""
    import yaml

    head = [f"The best of {count} candidates: number {best.index}, fitness {fitness:.5g}."]
    head += [f"{name}: {best.metrics[name]:.5g}" for name in best.metrics]
    text = "".join(f"# {line}\n" for line in head) + "\n"
    with atomic_write(path, "w", encoding="utf-8") as file:
        file.write(text + yaml.safe_dump(best.hyp, sort_keys=False))


def write_population(results: Sequence[Result], size: int, path: Path) -> None:
    """Write evolve_population.yaml: each individual as gen{generation}number{number}."""
    write_yaml(path, {f"gen{r.index // size}number{r.index % size}": r.hyp for r in results})


class Bucket:
    """A folder at a URL that fsspec can open; a bare name is a bucket of Google Cloud Storage.

    Args:
        url: such as `gs://bucket/folder`, `s3://bucket`, or `bucket`.
        home: folder of the evolution; its name is appended to the URL.

    Raises:
        ConfigError: the protocol is unknown, or needs a package that is not installed.
    """

    def __init__(self, url: str, home: Path) -> None:
        import fsspec

        base = url if "://" in url else f"gs://{url}"
        self.url = f"{base.rstrip('/')}/{home.name}"
        self.home = home
        try:
            self._files, self._folder = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise ConfigError(f"--bucket {url}: cannot be opened ({one_line(error)})") from error

    def copy(self) -> None:
        """Copy the tables that exist. Errors are logged; the next call tries again."""
        try:
            self._files.makedirs(self._folder, exist_ok=True)
            for name in (TABLE, BEST):
                if (self.home / name).is_file():
                    self._files.put_file(str(self.home / name), f"{self._folder}/{name}")
        except Exception as error:  # each file system has its own errors; none should end the evolution
            LOG.warning(f"--bucket: nothing was copied to {self.url} ({one_line(error)[:200]})")
