"""Train candidates on the machines of a Ray cluster (optional: pip install ray)."""

from __future__ import annotations

from pathlib import Path

from studies.evolve.records import RUN, Result, Trial
from studies.evolve.trainer import Trainer
from studies.jobs.ray_cluster import Cluster, read_files, write_files
from utils.base.errors import ConfigError, YoloError
from utils.base.processes import LOG_FILE, share_out

# What comes back from a machine that does not share the evolution's folder.
_FILES = (LOG_FILE, f"{RUN}/results.csv", f"{RUN}/opt.yaml")


class ClusterTrainer:
    """Train candidates somewhere; one whose machine is lost is trained on another.

    This code is sent along. Datasets and weights have to be at the same paths on all machines. If the
    evolution's folder is shared too, a candidate whose machine is lost goes on; else it starts again.

    Args:
        home: folder of the evolution.
        address: of the cluster; "auto" for the one that this machine belongs to, "local" to start one here.
        jobs: trainings at the same time; 0: one a GPU, else one a machine.
        device: as `--device`; each training has one GPU where the cluster has some.

    Raises:
        ConfigError: Ray is not installed, or there is no cluster at the address.
    """

    def __init__(self, home: Path, address: str, jobs: int, device: str) -> None:
        self.cluster = Cluster(address, jobs, device)
        self.home = home.absolute()

    @property
    def jobs(self) -> int:
        """Trainings at the same time."""
        return self.cluster.jobs

    def __call__(self, trial: Trial) -> Result:
        """Train a candidate somewhere; one whose machines were all lost has failed.

        Raises:
            ConfigError: a flag, file or dataset cannot be used there.
        """
        cluster = self.cluster
        try:
            result, files, mistake = cluster.call(
                _train_there, trial, self.home, cluster.device, cluster.threads
            )
        except YoloError as error:
            return Result(trial.index, trial.hyp, failure=str(error))
        if mistake or result is None:
            raise ConfigError(mistake)
        write_files(trial.save(self.home), files)
        return result

    def stop(self) -> None:
        """End the trainings; train.py saves what it has."""
        self.cluster.stop()


def _train_there(
    trial: Trial, home: Path, device: str, threads: int
) -> tuple[Result | None, dict[str, bytes], str]:
    """On the worker: the result of a candidate and its files, or the mistake that the user has to fix."""
    trainer = Trainer(home, share_out(1, device, threads))
    try:
        result = trainer(trial)
    except ConfigError as error:
        return None, {}, str(error)
    except BaseException:
        trainer.stop()
        raise
    return result, read_files(trial.folder(home), _FILES), ""
