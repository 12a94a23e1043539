import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from tests.known import pattern_image
from tests.utils.data.image_files import make_set
from tests.utils.data.shards.sets import make_both
from utils.base.errors import ConfigError, DataError
from utils.base.log import LOG
from utils.base.yaml_io import read_yaml, write_yaml
from utils.data import __main__ as commands
from utils.data.dataset_yaml import read_data_yaml
from utils.data.scan import load_labels
from utils.data.shards import index
from utils.data.shards.index import index_path
from utils.data.shards.pack import pack_dataset
from utils.data.shards.urls import ShardList


def png(number: int) -> bytes:
    import cv2

    return bytes(cv2.imencode(".png", pattern_image(20, 30, number))[1].tobytes())


def write_shard(path: Path, files: dict[str, bytes]) -> ShardList:
    with tarfile.open(path, "w") as shard:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))
    return ShardList(path.name, (str(path),))


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(LOG, "propagate", True)
    caplog.set_level("INFO", logger=LOG.name)
    return caplog


def test_shards_contain_the_images_and_labels_of_the_folder(tmp_path: Path) -> None:
    folder, shards = (load_labels(data.train) for data in make_both(tmp_path))
    assert [path.stem for path in shards.images] == [path.stem for path in folder.images]
    assert np.array_equal(shards.sizes, folder.sizes)
    assert np.array_equal(shards.labels.joined(), folder.labels.joined())
    for number in range(len(folder.images)):
        assert np.array_equal(shards.images.read_image(number), folder.images.read_image(number))
    assert len({shards.images.fingerprint(number) for number in range(10)}) == 10


def test_packing_writes_a_yaml_and_indices(tmp_path: Path) -> None:
    make_both(tmp_path)
    content = read_yaml(tmp_path / "shards/data.yaml")
    assert content["train"] == "train-{0000..0003}.tar" and content["val"] == "val-{0000..0001}.tar"
    assert content["names"] == {0: "a", 1: "b", 2: "c"}
    assert len(list((tmp_path / "shards").glob("*.index.npz"))) == 6


def test_the_command_pack_writes_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_both(tmp_path)
    words = ["pack", str(tmp_path / "data.yaml"), "--output", str(tmp_path / "out"), "--per-shard", "5"]
    monkeypatch.setattr("sys.argv", ["-m", *words])
    commands.main()
    assert read_yaml(tmp_path / "out/data.yaml")["train"] == "train-{0000..0001}.tar"
    with pytest.raises(ConfigError, match="exists already"):
        commands.main()


def test_images_of_one_name_get_numbers_in_shards(tmp_path: Path) -> None:
    make_set(tmp_path, 2)
    (tmp_path / "images/train/000.png").rename(tmp_path / "images/train/a b.png")
    (tmp_path / "images/train/001.png").rename(tmp_path / "images/train/a_b.png")
    write_yaml(tmp_path / "d.yaml", {"train": "images/train", "val": "images/train", "names": ["a"]})
    packed = read_data_yaml(pack_dataset(read_data_yaml(tmp_path / "d.yaml"), tmp_path / "out"))
    assert sorted(path.name for path in load_labels(packed.val).images) == ["a_b.png", "a_b2.png"]


def test_shards_of_other_programs_are_read(tmp_path: Path, logged: pytest.LogCaptureFixture) -> None:
    shard = write_shard(
        tmp_path / "a.tar",
        {
            "b/1.txt": b"0 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.2 0.1 0.2 0.3\n",
            "b/1.png": png(1),
            "b/1.json": b"{}",
            "b/1.mask.png": png(3),
            "2.cls": b"7",
            "3.png": b"junk",
            "4.png": png(4),
            "4.txt": b"0 0.5 0.5\n",
            "5.png": png(5),
            "5.txt": b"0 5 5 5 5\n1 0.5 0.5 0.5 0.5\n",
        },
    )
    for _ in range(2):  # checked, then from the index
        files = load_labels([shard], {0: "x", 1: "y"})
        assert [path.name for path in files.images] == ["1.png", "5.png"]
        assert files.labels[0].shape == (2, 5) and files.polygons[0][1].shape == (3, 2)
        assert files.labels[1][:, 0].tolist() == [1] and files.sizes.tolist() == [[30, 20]] * 2
        assert any(f"{tmp_path}/a.tar/3.png: skipped, not an image" in line for line in logged.messages)
        assert any(f"{tmp_path}/a.tar/5.txt: line 1" in line for line in logged.messages)
        logged.clear()


def test_label_files_are_found_in_all_common_layouts(tmp_path: Path) -> None:
    box = b"0 0.5 0.5 0.2 0.2\n"
    files = {"images/a.png": png(1), "labels/a.txt": box, "x.rf.0ab.png": png(2), "x.rf.0ab.txt": box}
    files |= {"frame.0.png": png(3), "c.jpg": png(4), "c.png": png(5), "c.txt": box}
    found = load_labels([write_shard(tmp_path / "a.tar", files)])
    names = [path.name for path in found.images]
    assert names == ["a.png", "x.rf.0ab.png", "frame.0.png", "c.jpg", "c.png"]
    assert found.labels.counts.tolist() == [1, 1, 0, 1, 1]


def test_the_last_of_several_members_with_one_name_counts(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", {"1.png": png(1), "1.txt": b"0 0.5 0.5 0.2 0.2\n"})
    with tarfile.open(tmp_path / "a.tar", "a") as file:
        member = tarfile.TarInfo("1.txt")
        member.size = 18
        file.addfile(member, io.BytesIO(b"1 0.5 0.5 0.2 0.2\n"))
    assert load_labels([shard]).labels[0][0, 0] == 1


def test_an_index_is_used_while_the_shard_is_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = write_shard(tmp_path / "a.tar", {"1.png": png(1), "1.txt": b"0 0.5 0.5 0.2 0.2\n"})
    made = []
    make = index.make_index
    monkeypatch.setattr(index, "make_index", lambda info: made.append(info.url) or make(info))
    for labels, wanted in ((b"0 0.5 0.5 0.2 0.2\n", 1), (b"1 0.5 0.5 0.2 0.2\n", 2)):
        write_shard(tmp_path / "a.tar", {"1.png": png(1), "1.txt": labels})
        os.utime(tmp_path / "a.tar", ns=(0, wanted * 10**18))
        for _ in range(2):
            assert load_labels([shard]).labels[0][0, 0] == wanted - 1
            assert len(made) == wanted, "same size, another time: indexed once more"
    path = Path(index_path(shard.urls[0]))
    path.write_bytes(path.read_bytes()[:200])
    assert len(load_labels([shard]).images) == 1 and len(made) == 3


def test_an_index_with_wrong_values_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = write_shard(tmp_path / "a.tar", {"1.png": png(1)})
    load_labels([shard])
    path = Path(index_path(shard.urls[0]))
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    assert index.load_index(index.shard_info(shard.urls[0])) is not None
    wrong: list[tuple[str, object]] = [("offset", [-1]), ("offset", [2**63 - 1]), ("length", [2**62])]
    wrong += [("counts", [3]), ("offset", [[0]]), ("status", [7]), ("sizes", [[0, 0]]), ("names", b"")]
    for text in ('[[99, false, "x"]]', '[[0, 7, "x"]]', '[["a", false, "x"]]', "[[0, false, 3]]", "[7]", "7"):
        wrong.append(("notes", text.encode()))
    wrong += [("about", b"x"), ("about", arrays["about"].tobytes().replace(b"\n", b"\nx", 1))]
    for name, value in wrong:
        array = np.frombuffer(value, np.uint8) if isinstance(value, bytes) else np.array(value)
        np.savez(path, **(arrays | {name: array.astype(arrays[name].dtype)}))
        assert index.load_index(index.shard_info(shard.urls[0])) is None, (name, value)


@pytest.mark.parametrize(
    ("train", "words"),
    [
        ("nothing-{0..3}.tar", "nothing-0.tar: No such file"),
        ("a.tar.gz", "data.yaml: train: a.tar.gz: single images cannot be read from compressed"),
        ("http://127.0.0.1/images", "data.yaml: train: http://127.0.0.1/images: only shards"),
        ("t-{3..1}.tar", "data.yaml: train: .*expected a range"),
        (["train-0000.tar", "../set/images/train"], "of shards or of folders, not of both"),
        ("broken.tar", "broken.tar: not a readable tar file"),
        ("quux://b/a.tar", "train: quux://b/a.tar: expected a URL that starts with http"),
        ("reference://x.tar::file:///tmp/spec.tar", "expected a URL that starts with http"),
        ("http://127.0.0.1/*.tar", "a URL cannot contain"),
        ("nix-*.tar", "nix-.*tar: No such file"),
        ("cut.tar", "cut.tar: the tar file is cut off"),
        ("garbage.tar", "garbage.tar: the tar file is damaged, or several in one"),
        ("two.tar", "two.tar: the tar file is damaged, or several in one"),
    ],
)
def test_errors_are_one_line(tmp_path: Path, train: str | list[str], words: str) -> None:
    make_both(tmp_path)
    shards = tmp_path / "shards"
    (shards / "broken.tar").write_bytes(b"no tar" * 200)
    whole = (shards / "train-0000.tar").read_bytes()
    end = len(whole.rstrip(b"\0"))
    end += -end % 512
    (shards / "cut.tar").write_bytes(whole[:end])
    (shards / "garbage.tar").write_bytes(whole[:end] + b"x" * 512 + bytes(1024))
    (shards / "two.tar").write_bytes(whole * 2)
    yaml = tmp_path / "shards/data.yaml"
    write_yaml(yaml, read_yaml(yaml) | {"train": train})
    with pytest.raises((ConfigError, DataError), match=words) as caught:
        load_labels(read_data_yaml(yaml).train)
    assert "\n" not in str(caught.value)
