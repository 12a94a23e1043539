"""Run jobs on the machines of a Ray cluster (optional: pip install ray)."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any, TypeVar

from studies.jobs.job import FailedError, Job, LostError
from studies.jobs.local_runner import LocalRunner
from utils.base.errors import ConfigError, YoloError, first_line
from utils.base.log import LOG
from utils.base.paths import ROOT, atomic_write

T = TypeVar("T")
Outcome = tuple[T, dict[str, bytes]]  # result, files to copy back
_EXCLUDED = (".git", ".venv", "runs", "datasets", "docs", "tests", "*.pt")  # not sent with the code
_RETRIES = 3  # of a job whose machine was lost


class RayRunner:
    """Runner of jobs on a Ray cluster; a job whose machine is lost runs on another one.

    The code is sent along; datasets and weights have to be at the same paths on all machines. If `home` is
    shared by all machines, a job whose machine is lost is resumed, else it starts again.

    Args:
        home: folder that holds the folders of all jobs.
        address: of the cluster; "auto" for the one this machine belongs to, "local" to start one here.
        jobs: jobs at the same time, which share the CPUs; 0: one for each GPU, else for each machine.
        device: as `--device`; each job has one GPU where the cluster has GPUs.
        threads: CPUs of each job; 0: an equal share.

    Raises:
        ConfigError: Ray is not installed, or the cluster cannot be reached.
    """

    def __init__(self, home: Path, address: str, jobs: int = 0, device: str = "", threads: int = 0) -> None:
        ray = self._ray = _import_ray()
        self.home = home.absolute()
        _connect(ray, address)
        cpus = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
        gpus = 0 if device == "cpu" else int(ray.cluster_resources().get("GPU", 0))
        self.jobs = jobs or gpus or sum(count >= 1 for count in cpus) or 1
        self._gpus = min(gpus, 1)
        self._device = device if device == "cpu" else ""  # Ray shows each job its own GPU only
        self._threads = threads or max(int(min(max(cpus), sum(cpus) // self.jobs)), 1)
        LOG.info(f"Ray: {len(cpus)} machines, {sum(cpus):.0f} CPUs, {self._threads} for each training")
        self._tasks: set[Any] = set()
        self._lock = threading.Lock()

    def __call__(self, job: Job[T]) -> T:
        """Run one job on the cluster and wait for it; called from several threads.

        Raises:
            ConfigError, YoloError: as `LocalRunner`; or its machines were lost too often.
        """
        try:
            outcome = self._call(job)
        except self._ray.exceptions.RayError as lost:
            reason = f"lost by Ray ({first_line(lost)})"
            return job.fail(self.home, FailedError(job.title, reason))
        if isinstance(outcome, YoloError):
            raise outcome
        result, files = outcome
        folder = job.save(self.home)
        if job.completed(self.home) is None:  # else the folder is shared
            _write_files(folder, files)
        return result

    def stop(self) -> None:
        """End all jobs; train.py saves a checkpoint first."""
        with self._lock:
            tasks = list(self._tasks)
        for task in tasks:
            self._ray.cancel(task)

    def _call(self, job: Job[T]) -> Outcome[T] | YoloError:
        share = {"num_cpus": self._threads, "num_gpus": self._gpus}
        remote = self._ray.remote(**share, max_retries=_RETRIES, retry_exceptions=[LostError])(_run_on_worker)
        task = remote.remote(job, self.home, self._device, self._threads)
        with self._lock:
            self._tasks.add(task)
        try:
            outcome: Outcome[T] | YoloError = self._ray.get(task)
        finally:
            with self._lock:
                self._tasks.discard(task)
        return outcome


def _run_on_worker(job: Job[T], home: Path, device: str, threads: int) -> Outcome[T] | YoloError:
    """Run a job, on another machine; errors that no other machine would avoid are returned."""
    runner = LocalRunner(home, 1, device, threads)
    try:
        result = runner(job)
    except LostError:  # raised, so that Ray tries again on another machine
        raise
    except YoloError as error:
        return ConfigError(str(error)) if isinstance(error, ConfigError) else YoloError(str(error))
    except BaseException:
        runner.stop()
        raise
    folder = job.folder(home)
    existing = [name for name in job.returned_files if (folder / name).is_file()]
    return result, {name: (folder / name).read_bytes() for name in existing}


def _write_files(folder: Path, files: dict[str, bytes]) -> None:
    """Write files in their order, each one atomically."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / name, "wb") as file:
            file.write(content)


def _connect(ray: Any, address: str) -> None:
    environment = {
        "working_dir": str(ROOT),
        "excludes": list(_EXCLUDED),
        "env_vars": {"PYTHONPATH": str(ROOT)},
    }
    try:
        ray.init(
            address=address,  # also "local": without one, Ray joins any cluster that runs
            runtime_env=environment,
            log_to_driver=False,
            logging_level="error",
            include_dashboard=False if address == "local" else None,
        )
    except ConnectionError as error:
        raise ConfigError(f"--ray {address}: no cluster ({error}); start one with `ray start`") from error


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ConfigError(f"--ray: needs Ray: {Path(sys.executable).name} -m pip install ray") from error
    return ray
