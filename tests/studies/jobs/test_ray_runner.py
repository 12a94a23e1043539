"""Runs of a comparison on a local Ray cluster."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from studies.compare.compare_options import CompareOptions, read_comparison
from studies.compare.run_plan import Run, plan_runs, train_all
from studies.jobs.ray_runner import RayRunner
from tests.utils.train.small import small_models, small_set
from utils.base.errors import ConfigError, YoloError
from utils.base.options import parse_known_options


@pytest.fixture
def plan(tmp_path: Path) -> Iterator[list[Run]]:
    """Two short runs; the cluster ends with the test."""
    data, (model, _) = small_set(tmp_path), small_models(tmp_path)
    how = ["--imgsz", "64", "--epochs", "1", "--batch-size", "4", "--workers", "0", "--noautoanchor"]
    argv = ["--cfg", f"'{model}'", "--weights", "", "--data", str(data), *how, "--seeds", "0", "1"]
    yield plan_runs(read_comparison(*parse_known_options(CompareOptions, [*argv, "--device", "cpu"])))
    try:
        import ray
    except ImportError:
        return
    ray.shutdown()


def test_results_are_copied_back_from_the_cluster(
    plan: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason="pip install ray")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # "local" does not join another cluster
    project = tmp_path / "project"
    train_all(plan, project, lambda: RayRunner(project, "local", 2, "cpu"))
    for run in plan:
        assert run.completed(project) is not None and run.weights(project).is_file()

    broken = Run("bad", 0, "0" * 64, (*plan[0].train, "--optimizer", "SGDX"), ("val",), {})
    import ray

    ray.shutdown()
    with pytest.raises(YoloError, match=r"bad, seed 0: failed .*invalid choice: 'SGDX'"):
        train_all([broken], project, lambda: RayRunner(project, "local", 1, "cpu"))


def test_without_ray_the_error_names_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = builtins.__import__

    def missing(name: str, *more: Any) -> Any:
        if name == "ray":
            raise ImportError
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ConfigError, match="pip install ray"):
        RayRunner(tmp_path, "local", 1, "cpu")
