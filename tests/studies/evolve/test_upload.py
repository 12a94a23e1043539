from pathlib import Path

import fsspec
import pytest

from studies.evolve.upload import Bucket
from utils.base.errors import ConfigError


def test_tables_are_copied_as_they_become(tmp_path: Path) -> None:
    home = tmp_path / "exp3"
    home.mkdir()
    bucket = Bucket("memory://somewhere/evolutions/", home)
    bucket.copy()
    (home / "evolve.csv").write_text("1")
    bucket.copy()
    (home / "evolve.csv").write_text("1\n2")
    (home / "hyp_evolve.yaml").write_text("lr0: 0.01")
    bucket.copy()
    files = fsspec.filesystem("memory")
    assert files.cat("/somewhere/evolutions/exp3/evolve.csv") == b"1\n2"
    assert files.cat("/somewhere/evolutions/exp3/hyp_evolve.yaml") == b"lr0: 0.01"


def test_one_that_cannot_be_reached_costs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "evolve.csv").write_text("1")
    (tmp_path / "file").touch()
    Bucket(f"file://{tmp_path}/file", tmp_path).copy()
    assert "nothing was copied to file://" in caplog.text


def test_kinds_that_nobody_knows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--bucket quux://b: cannot be opened"):
        Bucket("quux://b", tmp_path)
