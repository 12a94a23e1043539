"""Work on the machines of a Ray cluster (optional: pip install ray)."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from utils.base.errors import ConfigError, YoloError, first_line
from utils.base.log import LOG
from utils.base.paths import ROOT, atomic_write

T = TypeVar("T")
_LEFT_HERE = (".git", ".venv", "runs", "datasets", "docs", "tests", "*.pt")  # not sent with the code
_RETRIES = 3  # of a task whose machine was lost


class LostError(YoloError):
    """Work that was ended from outside, perhaps along with its machine; `Cluster.call` tries it elsewhere."""


class Cluster:
    """A Ray cluster that trains. This code is sent along; datasets and weights have to be on all machines.

    Args:
        address: of the cluster; "auto" for the one that this machine belongs to, "local" to start one here.
        jobs: trainings at the same time, among which the CPUs are divided; 0: one a GPU, else one a machine.
        device: as `--device`; each training has one GPU where the cluster has some.
        threads: CPUs of a training; 0: see `jobs`.

    Raises:
        ConfigError: Ray is not installed, or there is no cluster at the address.
    """

    def __init__(self, address: str, jobs: int = 0, device: str = "", threads: int = 0) -> None:
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
        cpus = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
        gpus = 0 if device == "cpu" else int(ray.cluster_resources().get("GPU", 0))
        self.gpus = min(gpus, 1)
        self.jobs = jobs or gpus or sum(count >= 1 for count in cpus) or 1
        self.device = device if device == "cpu" else ""  # Ray shows each training its own GPU alone
        self.threads = threads or max(int(min(max(cpus), sum(cpus) // self.jobs)), 1)
        LOG.info(f"Ray: {len(cpus)} machines, {sum(cpus):.0f} CPUs, {self.threads} for each training")
        self._tasks: set[Any] = set()
        self._lock = threading.Lock()

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run a function somewhere, and wait; where its machine is lost, it is run once more.

        Raises:
            YoloError: its machine was lost too often, or it failed with an error that it did not foresee.
        """
        ray = self._ray
        share = {"num_cpus": self.threads, "num_gpus": self.gpus}
        remote = ray.remote(**share, max_retries=_RETRIES, retry_exceptions=[LostError])(function)
        task = remote.remote(*arguments)
        with self._lock:
            self._tasks.add(task)
        try:
            result: T = ray.get(task)
        except ray.exceptions.RayError as error:
            raise YoloError(f"lost by Ray ({first_line(error)})") from error
        finally:
            with self._lock:
                self._tasks.discard(task)
        return result

    def stop(self) -> None:
        """End all tasks; those that train save what they have."""
        with self._lock:
            tasks = list(self._tasks)
        for task in tasks:
            self._ray.cancel(task)


def read_files(folder: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    """On the machine that did the work: the files that are to come back."""
    return {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    """Write what came back, in its order; each file is whole or not there."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / name, "wb") as file:
            file.write(content)


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ConfigError(f"--ray: needs Ray: {Path(sys.executable).name} -m pip install ray") from error
    return ray
