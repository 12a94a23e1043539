"""The upload of tables to a bucket."""

from pathlib import Path

import fsspec
import pytest

from studies.evolve.evolution import Bucket
from utils.base.errors import ConfigError


def test_existing_tables_are_copied_each_time(tmp_path: Path) -> None:
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


def test_an_unreachable_bucket_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "evolve.csv").write_text("1")
    (tmp_path / "file").touch()
    Bucket(f"file://{tmp_path}/file", tmp_path).copy()
    assert "nothing was copied to file://" in caplog.text


def test_an_unknown_protocol_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--bucket quux://b: cannot be opened"):
        Bucket("quux://b", tmp_path)
