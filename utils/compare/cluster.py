"""Spread the runs of a comparison over the machines of a Ray cluster (optional: pip install ray)."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

from utils.base.errors import ConfigError, YoloError
from utils.base.log import LOG
from utils.base.paths import ROOT, atomic_write
from utils.compare.measure import MEASURED
from utils.compare.plan import Run
from utils.compare.runner import LOG_FILE, Runner, is_measured, share_out

# What comes back from a machine that does not share the project's folder; the last one makes a run complete.
_RESULTS = ("results.csv", LOG_FILE, "weights/best.pt", "weights/last.pt", MEASURED)
_LEFT_HERE = (".git", ".venv", "runs", "datasets", "docs", "tests", "*.pt")  # not sent with the code
_RETRIES = 3  # of a run whose machine was lost


class ClusterRunner:
    """Bring runs to their measured.json on the machines of a cluster.

    This code is sent along. Data sets and weights have to be at the same paths on all machines. If the
    project's folder is shared too, a run whose machine is lost goes on; else it starts anew elsewhere.

    Args:
        project: folder of all comparisons.
        address: of the cluster; "auto" for the one that this machine belongs to, "local" to start one here.
        jobs: trainings at the same time; the CPUs are divided among them.
        device: as `--device`; each training has one GPU where the cluster has some.
        threads: CPUs of a training; 0: see `jobs`.

    Raises:
        ConfigError: Ray is not installed, or there is no cluster at the address.
    """

    def __init__(self, project: Path, address: str, jobs: int, device: str, threads: int = 0) -> None:
        ray = self._ray = _import_ray()
        environment = {
            "working_dir": str(ROOT),
            "excludes": list(_LEFT_HERE),
            "env_vars": {"PYTHONPATH": str(ROOT)},
        }
        try:
            ray.init(
                address=None if address == "local" else address,
                runtime_env=environment,
                log_to_driver=False,
                logging_level="error",
                include_dashboard=False if address == "local" else None,
            )
        except ConnectionError as error:
            raise ConfigError(
                f"--ray {address}: no cluster there ({error}); start one with `ray start`"
            ) from error
        self.project = project.absolute()
        cpus = [node["Resources"].get("CPU", 1.0) for node in ray.nodes() if node["Alive"]]
        self.gpus = 0 if device == "cpu" else min(ray.cluster_resources().get("GPU", 0), 1)
        self.device = device if device == "cpu" else ""  # Ray shows each training its own GPU alone
        self.threads = threads or max(int(min(max(cpus), sum(cpus) // jobs)), 1)
        LOG.info(f"Ray: {len(cpus)} machines, {sum(cpus):.0f} CPUs, {self.threads} for each training")
        self._tasks: set[Any] = set()
        self._lock = threading.Lock()

    def __call__(self, run: Run) -> None:
        """Train and measure one run somewhere.

        Raises:
            YoloError: it failed there, or its machine was lost too often.
        """
        ray = self._ray
        remote = ray.remote(num_cpus=self.threads, num_gpus=self.gpus, max_retries=_RETRIES)(_work_there)
        task = remote.remote(run, self.project, self.device, self.threads)
        with self._lock:
            self._tasks.add(task)
        try:
            failure, files = ray.get(task)
        except ray.exceptions.RayError as error:
            raise YoloError(
                f"{run.label}, seed {run.seed}: lost by Ray ({str(error).splitlines()[0]})"
            ) from error
        finally:
            with self._lock:
                self._tasks.discard(task)
        if failure:
            raise YoloError(failure)
        self._keep(run, files)

    def stop(self) -> None:
        """End the trainings; train.py saves what it has."""
        with self._lock:
            tasks = list(self._tasks)
        for task in tasks:
            self._ray.cancel(task)

    def _keep(self, run: Run, files: dict[str, bytes]) -> None:
        folder = run.save(self.project)
        if is_measured(folder):  # the folder is shared
            return
        for name, content in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            with atomic_write(folder / name, "wb") as file:
                file.write(content)


def _work_there(run: Run, project: Path, device: str, threads: int) -> tuple[str, dict[str, bytes]]:
    """On the worker: do a run; what went wrong if anything did, and the files."""
    runner = Runner(project, share_out(1, device, threads))
    try:
        if not is_measured(run.folder(project)):
            runner(run)
    except YoloError as error:
        return str(error), {}
    except BaseException:
        runner.stop()
        raise
    folder = run.folder(project)
    return "", {name: (folder / name).read_bytes() for name in _RESULTS if (folder / name).is_file()}


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ConfigError(f"--ray: needs Ray: {Path(sys.executable).name} -m pip install ray") from error
    return ray
