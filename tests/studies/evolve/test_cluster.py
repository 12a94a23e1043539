"""An evolution on a local Ray cluster that loses a worker."""

from __future__ import annotations

import csv
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import train
from studies.evolve.trials import Journal
from tests.studies.evolve.small import small_flags, trainings
from utils.train.train_options import parse_options

CANDIDATES, EPOCHS = 3, 20
# By default Ray waits half a minute for a machine that does not respond.
QUICK_HEALTH_CHECKS = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 6,
}


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head without CPUs, and two workers with one CPU each."""
    pytest.importorskip("ray", reason="pip install ray")
    import ray
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": QUICK_HEALTH_CHECKS}
    made = Cluster(initialize_head=True, head_node_args=head)
    made.workers = [made.add_node(num_cpus=1) for _ in range(2)]
    made.wait_for_nodes()
    yield made
    ray.shutdown()
    made.shutdown()


def test_candidates_of_a_lost_worker_are_resumed(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    home = tmp_path / "runs" / "exp"
    worker, lost = cluster.workers[0], []

    def lose_the_worker() -> None:
        (raylet,) = worker.all_processes["raylet"]
        while not lost:
            time.sleep(0.02)
            found = trainings(home, raylet.process.pid)
            lost.extend(pid for pid, folder in found.items() if (folder / "run/weights/last.pt").is_file())
        cluster.remove_node(worker, allow_graceful=False)
        for pid in lost:  # as if the machine were gone; the orphan would continue
            os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=lose_the_worker, daemon=True)
    thread.start()
    flags = [
        *small_flags(tmp_path, EPOCHS),
        "--project",
        str(home.parent),
        "--ray",
        cluster.address,
        "--noplots",
    ]
    with caplog.at_level("INFO"):
        result = train.train(parse_options([*flags, "--evolve", str(CANDIDATES)]))
    thread.join(timeout=10)

    assert len(lost) == 1, "a training was lost with its worker"
    assert f"{CANDIDATES} candidates to train" in caplog.text and "2 at a time" in caplog.text
    found = Journal(home).results
    assert sorted(found) == list(range(CANDIDATES)) and not any(r.failure for r in found.values())
    with (home / "evolve.csv").open(newline="") as file:
        assert len(list(csv.reader(file))) == 1 + CANDIDATES
    resumed = ["Resuming training" in log.read_text() for log in home.glob("candidates/*/log.txt")]
    assert sum(resumed) == 1, "only the lost one was resumed"
    assert result.save_dir == home
