import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.serving import Answer, serve
from tests.utils.data.image_files import make_set
from utils.base import paths
from utils.base.errors import ConfigError, DataError
from utils.base.log import LOG
from utils.data import dataset_yaml
from utils.data.dataset_yaml import read_data_yaml

ROOT = Path(__file__).parents[3]
SPLITS = {"train": "images/train", "val": "images/val"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use an empty project root."""
    root = tmp_path / "project"
    root.mkdir()
    monkeypatch.setattr(paths, "ROOT", root)
    monkeypatch.delenv("YOLOv5_DATASETS_DIR", raising=False)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return root


def write(file: Path, **content: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump({"names": ["a", "b"], **SPLITS, **content}, allow_unicode=True))
    return file


def make_splits(root: Path) -> Path:
    for split in ("train", "val"):
        make_set(root, 1, split)
    return root


@pytest.mark.parametrize("base", ["yamls", "project", "elsewhere"])
def test_a_relative_path_is_tried_against_yaml_project_and_current_folder(
    tmp_path: Path,
    project: Path,
    base: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(LOG, "propagate", True)
    caplog.set_level("INFO", logger=LOG.name)
    root = make_splits(tmp_path / base / "sets/my set [1]")
    data = read_data_yaml(write(tmp_path / "yamls/data.yaml", path="sets/my set [1]"))
    assert data.root == root
    assert (data.train, data.val, data.test) == ([root / "images/train"], [root / "images/val"], [])
    assert str(root) in caplog.messages[-1]


def test_the_yamls_folder_comes_first(tmp_path: Path, project: Path) -> None:
    make_splits(project / "set")
    nearest = make_splits(tmp_path / "yamls/set")
    assert read_data_yaml(write(tmp_path / "yamls/data.yaml", path="set")).root == nearest


def test_splits_without_path_and_with_a_folder_too_many(tmp_path: Path, project: Path) -> None:
    """As Roboflow writes them."""
    root = tmp_path / "set"
    make_set(root, 1, "train")
    make_set(root, 1, "valid")
    data = read_data_yaml(write(root / "data.yaml", train="../images/train", val="../images/valid"))
    assert data.val == [root / "images/valid"]
    assert data.train == [root / "images/train"]


def test_lists_and_several_sources(tmp_path: Path, project: Path) -> None:
    root = make_splits(tmp_path / "coco")
    (root / "val2017.txt").write_text("./images/val/000.png\n")
    data = read_data_yaml(
        write(tmp_path / "c.yaml", path=str(root), train=["images/train", "images/val"], val="val2017.txt")
    )
    assert data.train == [root / "images/train", root / "images/val"]
    assert data.is_coco


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["x", "y"], {0: "x", 1: "y"}),
        ({1: "y", 0: "x"}, {0: "x", 1: "y"}),
        ({"0": "x", "1": "y"}, {0: "x", 1: "y"}),
        ([1, "größe"], {0: "1", 1: "größe"}),
    ],
)
def test_names_are_a_list_or_a_mapping(tmp_path: Path, project: Path, names: Any, expected: Any) -> None:
    make_splits(tmp_path / "set")
    data = read_data_yaml(write(tmp_path / "set/data.yaml", names=names))
    assert data.names == expected
    assert list(data.names) == [0, 1]
    assert data.nc == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"names": None}, "'names:' is missing"),
        ({"names": {0: "a", 2: "b"}}, "numbered 0 to 1, found 0, 2"),
        ({"names": "a"}, "expected a list"),
        ({"nc": 3}, "nc: 3, but names: lists 2"),
        ({"nc": "3"}, "nc: 3, but names: lists 2"),
        ({"nc": "two"}, "nc: 'two' is not a number; expected nc: 2"),
        ({"nc": True, "names": ["a"]}, "nc: True is not a number; expected nc: 1"),
        ({"names": ["a", ""]}, "names: class 1 has no name"),
        ({"names": ["a", ["b"]]}, "names: class 1 is \\['b'\\]; expected text"),
        ({"train": None}, "'train:' is missing"),
        ({"val": ""}, "'val:' is missing"),
        ({"val": 5}, "val: expected a folder"),
        ({"path": 5}, "path: expected a folder"),
        ({"generate": "context", "distance": 300}, "distance: 300, expected 0 to 184 pixels"),
        ({"generate": "context", "distance": "far"}, "distance: 'far', expected 0 to 184 pixels"),
        ({"generate": "circles"}, "expected shapes, shapes-seg or context, found 'circles'"),
    ],
)
def test_errors_name_the_key(tmp_path: Path, project: Path, content: dict[str, Any], message: str) -> None:
    make_splits(tmp_path / "set")
    with pytest.raises(ConfigError, match=f"data.yaml: .*{message}"):
        read_data_yaml(write(tmp_path / "set/data.yaml", **content))


def test_nc_may_be_quoted(tmp_path: Path, project: Path) -> None:
    make_splits(tmp_path / "set")
    assert read_data_yaml(write(tmp_path / "set/data.yaml", nc="2")).nc == 2


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("form", ["names: [{}]", "names:\n  - {}", "names:\n  0: {}"])
def test_names_are_text_as_it_is_written(tmp_path: Path, project: Path, form: str, encoding: str) -> None:
    make_splits(tmp_path / "set")
    file = tmp_path / "set/data.yaml"
    for name in ("no", "yes", "on", "null", "~", "1.0", "010", "1e3", "2024-01-01", "größe"):
        file.write_text("train: images/train\nval: images/val\n" + form.format(name), encoding=encoding)
        assert read_data_yaml(file).names == {0: name}


@pytest.mark.parametrize("encoding", ["gb18030", "latin-1", "utf-16-le"])
def test_a_yaml_in_another_encoding_is_refused(tmp_path: Path, project: Path, encoding: str) -> None:
    file = tmp_path / "data.yaml"
    file.write_text("# größe\nnames: [a]\n", encoding=encoding)
    with pytest.raises(ConfigError, match=r"data.yaml: .*save the file as UTF-8"):
        read_data_yaml(file)


def test_a_folder_of_another_case_is_named(tmp_path: Path, project: Path) -> None:
    make_splits(tmp_path / "set")
    (tmp_path / "set/images").rename(tmp_path / "set/Images")
    if not (tmp_path / "set/images").exists():
        with pytest.raises(
            DataError, match=r"does not exist; .*found .*/Images/val: names are case-sensitive"
        ):
            read_data_yaml(write(tmp_path / "set/data.yaml"))


def test_an_unknown_yaml_is_an_error(project: Path) -> None:
    with pytest.raises(ConfigError, match=r"--data nowhere\.yaml"):
        read_data_yaml("nowhere.yaml")


def test_missing_images_are_an_error_that_lists_the_searched_paths(tmp_path: Path, project: Path) -> None:
    with pytest.raises(DataError, match=r"images/val does not exist; looked for .*project/set/images/val"):
        read_data_yaml(write(tmp_path / "data.yaml", path="set"))


@pytest.mark.skipif(os.sep == "\\", reason="Windows reads backslashes")
def test_folders_of_windows_are_named(tmp_path: Path, project: Path) -> None:
    with pytest.raises(DataError, match=r"images\\val does not exist.*it has backslashes"):
        read_data_yaml(write(tmp_path / "data.yaml", path="set", val="images\\val"))


def test_missing_training_images_do_not_stop_validation(tmp_path: Path, project: Path) -> None:
    make_set(tmp_path / "set", 1, "val")
    assert read_data_yaml(write(tmp_path / "set/data.yaml")).val[0].is_dir()


@pytest.mark.parametrize(
    "script", ["import os\nos.system('touch {marker}')\n", "bash touch {marker}", "{marker}.sh"]
)
def test_scripts_are_refused_and_never_run(tmp_path: Path, project: Path, script: str) -> None:
    marker = tmp_path / "owned"
    path = write(tmp_path / "data.yaml", path="set", download=script.format(marker=marker))
    with pytest.raises(ConfigError, match="scripts in a yaml are not run") as caught:
        read_data_yaml(path, allow_download=True)
    assert "\n" not in str(caught.value)
    assert not marker.exists()


def test_a_script_is_ignored_if_the_images_exist(tmp_path: Path, project: Path) -> None:
    """As in the yamls of the original."""
    make_splits(tmp_path / "set")
    data = read_data_yaml(write(tmp_path / "set/data.yaml", download="import os\n"))
    assert data.download == []


def test_downloads_go_to_the_root_that_is_searched(
    tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[list[str], Path, bool]] = []

    def downloaded(downloads: list[Any], root: Path, *, allowed: bool, name: str) -> None:
        calls.append(([item.url for item in downloads], root, allowed))
        make_splits(root)

    monkeypatch.setattr(dataset_yaml, "download_data", downloaded)
    url = "https://example.org/a.zip"
    path = write(tmp_path / "d.yaml", path="../datasets/set", download=url)
    data = read_data_yaml(path, allow_download=True)
    assert calls == [([url], tmp_path / "datasets/set", True)]
    assert data.root == tmp_path / "datasets/set"
    monkeypatch.setenv("YOLOv5_DATASETS_DIR", str(tmp_path / "big disk"))
    other = read_data_yaml(write(tmp_path / "e.yaml", path="../datasets/other", download=url))
    assert other.root == tmp_path / "big disk/other"


def test_shapes_are_drawn_on_first_use(
    tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = {}

    def draw(root: Path, *, polygons: bool) -> Path:
        drawn[root.name] = polygons
        return make_splits(root)

    monkeypatch.setattr("utils.data.shapes.make_shapes", draw)
    for name in ("shapes", "shapes-seg"):
        data = read_data_yaml(write(project / f"data/{name}.yaml", path=f"datasets/{name}", generate=name))
        assert data.root == project / "datasets" / name
    assert drawn == {"shapes": False, "shapes-seg": True}


@pytest.mark.parametrize("inner", ["", "deep/er/"])
def test_an_archive_contains_its_own_yaml(
    tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch, inner: str
) -> None:
    monkeypatch.setenv("YOLOv5_DATASETS_DIR", str(tmp_path / "sets"))
    make_splits(tmp_path / "made")
    write(tmp_path / "made/data.yaml", path="/nowhere", download="bash evil")
    with zipfile.ZipFile(tmp_path / "my.zip", "w") as archive:
        for path in sorted((tmp_path / "made").rglob("*.*")):
            archive.write(path, inner + str(path.relative_to(tmp_path / "made")))
    for _ in range(2):
        data = read_data_yaml(tmp_path / "my.zip")
        assert data.root == tmp_path / "sets/my" / inner
        assert len(list(data.val[0].iterdir())) == 1
    with pytest.raises(ConfigError, match=r"nowhere\.zip: no such file"):
        read_data_yaml(tmp_path / "nowhere.zip")


@pytest.mark.parametrize("path", sorted((ROOT / "data").glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_yamls_are_found_by_name_and_well_formed(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_yaml, "_missing", lambda root, entries: [])
    monkeypatch.setattr(dataset_yaml, "_generate", lambda *_: None)
    data = read_data_yaml(path.name)
    assert data.nc == len(data.names) > 0
    assert "download" not in data.raw or data.download


def test_a_url_is_downloaded_even_where_a_file_has_its_name(
    tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("YOLOV5_CONFIG_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    root = make_splits(tmp_path / "far")
    local = write(tmp_path / "data.yaml", path=str(root), names=["local"])
    content = local.read_bytes()
    with serve({"/data.yaml?raw=1": Answer(content.replace(b"local", b"remote"))}) as site:
        url = f"{site.url}/data.yaml?raw=1"
        assert read_data_yaml(url).names == {0: "remote"}
        site.answers["/data.yaml?raw=1"] = Answer(content.replace(b"local", b"newer"))
        assert read_data_yaml(url).names == {0: "newer"}
    assert local.read_bytes() == content
    assert read_data_yaml(url).names == {0: "newer"}
    assert any("using what was downloaded before" in line for line in logged)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://[bad/a.yaml", "not a valid URL"),
        ("http://127.0.0.1:9/a", "expected the URL of a yaml or an archive"),
    ],
)
def test_other_urls_are_errors(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_data_yaml(url)
