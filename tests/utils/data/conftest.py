from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_cache_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use a cache folder of the test, not the user's."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("YOLOV5_CONFIG_DIR", str(folder))
    return folder
