"""Shards at URLs: downloaded once, checked, kept within limits."""

import os
import re
from pathlib import Path

import numpy as np
import pytest

from tests.serving import Answer, Site, serve
from tests.utils.data.shards.sets import make_both
from utils.data.dataset import DetectionDataset
from utils.data.loader import make_loader
from utils.data.scan import load_labels
from utils.data.shards import store
from utils.data.shards.store import DownloadError, local_copy, shard_info
from utils.data.shards.urls import ShardList

pytest.importorskip("aiohttp", reason="fsspec needs it for http://")
COUNT = 4
HYP = {
    **dict.fromkeys(("hsv_h", "hsv_s", "hsv_v", "degrees", "translate", "scale", "shear"), 0.1),
    **dict.fromkeys(("perspective", "flipud", "fliplr", "mixup", "copy_paste"), 0.0),
    "mosaic": 1.0,
}


@pytest.fixture(autouse=True)
def no_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_PAUSE", 0.0)


def answers(folder: Path, *patterns: str) -> dict[str, Answer]:
    files = [file for pattern in patterns for file in folder.glob(pattern)]
    return {f"/{file.name}": Answer(file.read_bytes(), headers={"ETag": f'"{file.name}"'}) for file in files}


def remote(site: Site) -> ShardList:
    pattern = f"{site.url}/train-{{0000..0003}}.tar"
    return ShardList(pattern, tuple(f"{site.url}/train-{number:04d}.tar" for number in range(COUNT)))


@pytest.mark.parametrize("patterns", [("*",), ("*.tar",)], ids=["with indices", "without"])
def test_remote_shards_give_the_same_batches_as_local_ones(tmp_path: Path, patterns: tuple[str, ...]) -> None:
    _, shards = make_both(tmp_path)
    local = DetectionDataset(shards.train, 64, augment=True, hyp=HYP)
    with serve(answers(tmp_path / "shards", *patterns)) as site:
        far = DetectionDataset([remote(site)], 64, augment=True, hyp=HYP)
        downloaded = [path for path in site.asked if path.endswith(".tar")]
        assert len(downloaded) == (0 if "*" in patterns else COUNT), "only to make an index"
        for workers in (0, 2):
            loaders = [make_loader(data, 4, workers=workers, shuffle=True, buffer=4) for data in (local, far)]
            for one, other in zip(*loaders, strict=True):
                assert np.array_equal(one.images, other.images) and np.array_equal(one.targets, other.targets)
            for loader in loaders:
                loader.close()
        downloaded = [path for path in site.asked if path.endswith(".tar")]
        assert len(downloaded) == COUNT, "each once, by any process"
        assert len(load_labels([remote(site)]).images) == 10


def test_a_url_with_another_signature_is_the_same_shard(tmp_path: Path) -> None:
    make_both(tmp_path)
    kept = answers(tmp_path / "shards", "train-0000.tar")
    with serve({f"/train-0000.tar?s={n}": one for n in (1, 2) for one in kept.values()}) as site:
        for number in (1, 2):
            url = f"{site.url}/train-0000.tar?s={number}"
            assert len(load_labels([ShardList(url, (url,))]).images) == 3
        assert [path for path in site.asked if ".tar" in path] == ["/train-0000.tar?s=1"]


def test_a_broken_download_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_both(tmp_path)
    with serve(answers(tmp_path / "shards", "*")) as site:
        whole = site.answers["/train-0001.tar"]
        info = shard_info(f"{site.url}/train-0001.tar")
        half = Answer(whole.body[:700], promised=len(whole.body), headers=whole.headers)
        site.answers["/train-0001.tar"] = half
        with pytest.raises(DownloadError, match=r"/train-0001.tar: "):
            local_copy(info)
        assert not list(store.shards_folder().glob("*.tar")), "no partial shard is left"

        def fix(seconds: float) -> None:
            site.answers["/train-0001.tar"] = whole

        monkeypatch.setattr(store.time, "sleep", fix)
        assert local_copy(info).read_bytes() == whole.body


def _failure(data: DetectionDataset, workers: int) -> str:
    """Return the error of an epoch; end the workers, which inherit the server's socket by the fork."""
    loader = make_loader(data, 4, workers=workers)
    try:
        list(loader)
    except DownloadError as error:
        return str(error)
    finally:
        loader.close()
    return ""


def test_a_missing_shard_is_an_error_that_names_its_url(tmp_path: Path) -> None:
    make_both(tmp_path)
    with serve(answers(tmp_path / "shards", "*")) as site:
        data = DetectionDataset([remote(site)], 64)
        for number in range(COUNT):
            del site.answers[f"/train-000{number}.tar"]
        for workers in (0, 2):
            assert re.match(rf"{site.url}/train-000\d.tar: cannot be read", _failure(data, workers))


def test_an_index_of_another_shard_is_detected(tmp_path: Path) -> None:
    make_both(tmp_path)
    with serve(answers(tmp_path / "shards", "*")) as site:
        data = DetectionDataset([remote(site)], 64)
        whole = site.answers["/train-0000.tar"]
        site.answers["/train-0000.tar"] = Answer(whole.body[:-1] + b"x", headers=whole.headers)
        with pytest.raises(DownloadError, match="is not the shard that its index describes"):
            data[0]


def test_a_replaced_shard_is_detected_without_times(tmp_path: Path) -> None:
    """The server reports sizes only."""
    make_both(tmp_path)
    kept = {name: Answer(one.body) for name, one in answers(tmp_path / "shards", "*.tar").items()}
    with serve(kept) as site:
        before = DetectionDataset([remote(site)], 64)
        assert before[0].labels[0, 1] == 0
        site.answers["/train-0000.tar"] = Answer(
            kept["/train-0000.tar"].body.replace(b"0 0.5 0.5", b"2 0.5 0.5")
        )
        assert DetectionDataset([remote(site)], 64)[0].labels[0, 1] == 2


def test_a_resumed_epoch_downloads_only_the_shards_that_it_needs(tmp_path: Path) -> None:
    make_both(tmp_path)
    with serve(answers(tmp_path / "shards", "*")) as site:
        data = DetectionDataset([remote(site)], 64)
        loader = make_loader(data, 2, workers=0)
        loader.set_epoch(0, first_batch=4)
        assert len(list(loader)) == 1
        assert {path for path in site.asked if path.endswith(".tar")} == {
            "/train-0002.tar",
            "/train-0003.tar",
        }
        with pytest.raises(store.ConfigError, match="--image-weights"):
            loader.set_weights(np.ones(10))


def test_least_recently_used_copies_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = store.shards_folder()
    folder.mkdir(parents=True)
    for age, name in enumerate("abc"):
        (folder / f"{name}.tar").write_bytes(bytes(1000))
        os.utime(folder / f"{name}.tar", (10**9 - age, 10**9 - age))
    monkeypatch.setenv(store.LIMIT_VARIABLE, str(3.5e-6))
    store.free_space(1000, keep=folder / "new.tar")
    assert sorted(path.name for path in folder.glob("*.tar")) == ["a.tar", "b.tar"]
    monkeypatch.setenv(store.LIMIT_VARIABLE, "many")
    with pytest.raises(store.ConfigError, match="expected a number of gigabytes"):
        store.free_space(1000, keep=folder / "new.tar")
