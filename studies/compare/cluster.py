"""Spread the runs of a comparison over the machines of a Ray cluster (optional: pip install ray)."""

from __future__ import annotations

from pathlib import Path

from studies.compare.measure_run import MEASURED
from studies.compare.run_plan import Run
from studies.compare.runner import Runner, is_measured
from studies.jobs.ray_cluster import Cluster, LostError, read_files, write_files
from utils.base.errors import YoloError
from utils.base.processes import LOG_FILE, share_out

# What comes back from a machine that does not share the project's folder; the last one makes a run complete.
_RESULTS = ("results.csv", LOG_FILE, "weights/best.pt", "weights/last.pt", MEASURED)


class ClusterRunner:
    """Bring runs to their measured.json on the machines of a cluster.

    This code is sent along. Datasets and weights have to be at the same paths on all machines. If the
    project's folder is shared too, a run whose machine is lost goes on; else it starts again elsewhere.

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
        self.cluster = Cluster(address, jobs, device, threads)
        self.project = project.absolute()

    def __call__(self, run: Run) -> None:
        """Train and measure one run somewhere.

        Raises:
            YoloError: it failed there, or its machine was lost too often.
        """
        cluster = self.cluster
        try:
            failure, files = cluster.call(_work_there, run, self.project, cluster.device, cluster.threads)
        except YoloError as error:
            raise YoloError(f"{run.label}, seed {run.seed}: {error}") from error
        if failure:
            raise YoloError(failure)
        folder = run.save(self.project)
        if not is_measured(folder):  # else the folder is shared
            write_files(folder, files)

    def stop(self) -> None:
        """End the trainings; train.py saves what it has."""
        self.cluster.stop()


def _work_there(run: Run, project: Path, device: str, threads: int) -> tuple[str, dict[str, bytes]]:
    """On the worker: do a run; what went wrong if anything did, and the files."""
    runner = Runner(project, share_out(1, device, threads))
    try:
        if not is_measured(run.folder(project)):
            runner(run)
    except LostError:  # with its machine, perhaps: on another one it may go well
        raise
    except YoloError as error:
        return str(error), {}
    except BaseException:
        runner.stop()
        raise
    return "", read_files(run.folder(project), _RESULTS)
