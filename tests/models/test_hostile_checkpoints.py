"""Files made to take all memory or time, or to crash: each is refused, at a cost near its size."""

from __future__ import annotations

import io
import pickle
import struct
import subprocess
import sys
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from models.pickles import read_torch_file
from models.weights import read_checkpoint
from tests.utils.train.small import make_state
from utils.base.errors import ConfigError, DataError
from utils.base.limits import DEPTH
from utils.base.paths import ROOT

LIMIT = 3 * 2**30  # bytes of address space, of which torch takes a part
SECONDS = 60


def zipped(description: bytes, *others: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A file of torch with this pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        file.writestr("archive/data.pkl", description)
        for name, content in others:
            file.writestr(f"archive/data/{name}", content)
    return buffer.getvalue()


def doubled(levels: int, start: bytes, step: bytes) -> bytes:
    """A pickle that puts `start` on the stack and memoizes it, and then doubles it."""
    code = b"\x80\x02" + start + b"q\x00"
    for level in range(levels):
        code += step.replace(b"<", b"h" + bytes([level % 250])).replace(
            b">", b"q" + bytes([(level + 1) % 250])
        )
    return code + b"."


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def called(name: str, *args: bytes) -> bytes:
    module, _, function = name.rpartition(".")
    return f"c{module}\n{function}\n".encode() + b"(" + b"".join(args) + b"tR"


def tensor(storage: bytes, size: str, stride: str, offset: int = 0) -> bytes:
    """A pickle of one tensor on storage `0` of 4 floats."""
    pid = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\x04tQ"
    view = (f"I{offset}\n".encode(), *(b"(" + b"".join(f"L{n}L\n".encode() for n in eval_list(one)) + b"t"
            for one in (size, stride)))  # fmt: skip
    return b"\x80\x02" + called("torch._utils._rebuild_tensor_v2", pid, *view, b"\x89", b"N") + b"."


def eval_list(values: str) -> list[int]:
    return [int(value) for value in values.split()]


STORAGE = ("0", struct.pack("<4f", 1, 2, 3, 4))
CASES: dict[str, bytes] = {
    "a huge memo index": zipped(b"\x80\x02]r\xff\xff\xff\x7f."),
    "a huge memo index in a stream": b"\x80\x02]r\xff\xff\xff\x7f.",
    "a long text that is not there": zipped(b"\x80\x02X\xff\xff\xff\x7fabc."),
    "a long text in a stream": b"\x80\x02X\xff\xff\xff\x7fabc.",
    "a long byte array": zipped(b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"."),
    "a frame beyond the end": zipped(b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"."),
    "lists that double": zipped(doubled(200, b"]K\x01a", b"]<a<a>")),
    "tuples that double": zipped(doubled(200, b"K\x01\x85", b"<<\x86>")),
    "a doubled tuple as a key": zipped(
        doubled(60, b"K\x01\x85", b"<<\x86>").removesuffix(b".") + b"}h\x3bK\x01s."
    ),
    "a doubled tuple in a set": zipped(
        doubled(60, b"K\x01\x85", b"<<\x86>").removesuffix(b".") + b"\x8f(h\x3b\x90."
    ),
    "a doubled tuple in a set that is called": zipped(
        doubled(60, b"K\x01\x85", b"<<\x86>").removesuffix(b".") + called("builtins.set", b"](h\x3be") + b"."
    ),
    "text of a doubled list": zipped(
        doubled(60, b"]K\x01a", b"]<a<a>").removesuffix(b".") + called("builtins.str", b"h\x3b") + b"."
    ),
    "paths that double": zipped(
        b"\x80\x02"
        + text("ab")
        + b"q\x00"
        + b"".join(
            called("pathlib.PosixPath", b"h" + bytes([n]), b"h" + bytes([n])) + b"q" + bytes([n + 1])
            for n in range(60)
        )
        + b"."
    ),
    "copies of a list": zipped(
        b"\x80\x02](" + b"K\x01" * 50_000 + b"eq\x00" + called("builtins.tuple", b"h\x00") * 20_000 + b"."
    ),
    "deep lists": zipped(b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."),
    "deep tuples": zipped(b"\x80\x02)" + b"\x85" * 1_000_000 + b"."),
    "deep tuples as a key": zipped(b"\x80\x02})" + b"\x85" * 1_000_000 + b"K\x01s."),
    "shared lists that are deep together": zipped(
        b"\x80\x02]q\x00"
        + b"".join(
            b"]" * 60 + b"h" + bytes([n]) + b"a" * 60 + b"q" + bytes([n + 1]) + b"0" for n in range(30)
        )
        + b"]("
        + b"".join(b"h" + bytes([n]) for n in reversed(range(31)))
        + b"e."
    ),
    "a list in itself": zipped(b"\x80\x02]q\x00h\x00a."),
    "a mapping in itself": zipped(b"\x80\x02}q\x00" + text("model") + b"h\x00s."),
    "compressed entries": zipped(b"\x80\x02]." + b" " * 10**6, compression=zipfile.ZIP_DEFLATED),
    "attributes of a function": zipped(
        b"\x80\x02ctorch._utils\n_rebuild_tensor\n}" + text("x") + b"K\x01sb."
    ),
    "an extension": zipped(b"\x80\x02\x82\x01."),
    "a view beyond its storage": zipped(tensor(b"", "9", "1"), STORAGE),
    "a view of an offset beyond its storage": zipped(tensor(b"", "2", "1", 99), STORAGE),
    "a view with strides beyond its storage": zipped(tensor(b"", "2 2", "4 1"), STORAGE),
    "a negative stride": zipped(tensor(b"", "2", "-1", 3), STORAGE),
    "a negative size": zipped(tensor(b"", "-2", "1"), STORAGE),
    "an expanded view": zipped(tensor(b"", "1000000 1000000", "0 0"), STORAGE),
    "a storage that is not there": zipped(tensor(b"", "2", "1")),
    "a storage of another size": zipped(tensor(b"", "2", "1"), ("0", b"abc")),
    "a tensor without storage": zipped(
        b"\x80\x02" + called("torch._utils._rebuild_tensor_v2", b"K\x01", b"K\x00", b")", b")") + b"."
    ),
    "an int of a million digits": zipped(b"\x80\x02I" + b"9" * 10**6 + b"\n."),
}


@pytest.mark.parametrize("name", CASES)
def test_a_file_is_refused_quickly(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(CASES[name])
    started = time.monotonic()
    with pytest.raises(DataError, match=r"x\.pt: ") as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400 + len(str(path))
    assert time.monotonic() - started < SECONDS


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Each file as --weights of a program whose memory is limited: name -> exit status and last line."""
    home = tmp_path_factory.mktemp("files")
    names = {f"{index}.pt": name for index, name in enumerate(CASES)}
    for file, name in names.items():
        (home / file).write_bytes(CASES[name])
    code = (
        "import resource, sys; from pathlib import Path; from models.weights import read_checkpoint\n"
        "from utils.base.errors import YoloError\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({LIMIT}, {LIMIT}))\n"
        "for file in sorted(Path(sys.argv[1]).iterdir()):\n"
        "    try:\n        read_checkpoint(file)\n        print(file.name, 'read', flush=True)\n"
        "    except YoloError as error:\n        print(file.name, 'refused', flush=True)\n"
    )
    command = [sys.executable, "-c", code, str(home)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS * 3)
    assert done.returncode == 0, f"{done.stdout[-200:]}{done.stderr[-2000:]}"
    return {names[line.split()[0]]: line.split()[1] for line in done.stdout.splitlines()}


def test_no_file_takes_all_memory_or_ends_the_process(outcomes: dict[str, str]) -> None:
    assert outcomes == dict.fromkeys(CASES, "refused")


def test_entries_that_overlap_are_refused(tmp_path: Path) -> None:
    """Two entries of one megabyte whose content is the same bytes of the file."""
    content = io.BytesIO(zipped(b"\x80\x02].", ("0", b"x" * 10**6), ("1", b"")))
    with zipfile.ZipFile(content) as file:
        first, second = file.infolist()[1:]
    raw = bytearray(content.getvalue())
    at = raw.rindex(b"archive/data/1") - 46  # its entry in the directory
    raw[at + 42 : at + 46] = struct.pack("<I", first.header_offset)
    raw[at + 20 : at + 28] = struct.pack("<II", 10**6, 10**6)
    assert second.file_size == 0
    (tmp_path / "x.pt").write_bytes(raw)
    with pytest.raises(DataError, match="its entries are larger than the file"):
        read_torch_file(tmp_path / "x.pt")


@pytest.mark.parametrize("zipped_file", [True, False])
@pytest.mark.parametrize(
    "content",
    [
        {"a": [1, 2.5, None, True, "text", (1, 2), {3}, frozenset({5}), {}]},
        {1: OrderedDict([("x", torch.arange(6.0).view(2, 3).T)]), "half": torch.ones(3).half()},
        {"shared": [[1, 2]] * 50, "nested": [[[[[[[[[["deep"]]]]]]]]]], "dtype": torch.float16},
        {"path": Path("a") / "b c", "empty": torch.zeros(0), "scalar": torch.tensor(3)},
    ],
)
def test_what_torch_saves_is_read(content: Any, zipped_file: bool, tmp_path: Path) -> None:
    file = tmp_path / "x.pt"
    torch.save(content, file, _use_new_zipfile_serialization=zipped_file)
    found = read_torch_file(file)
    if "path" in content:
        content = content | {"path": "a/b c"}
    assert str(found) == str(content)


def test_a_checkpoint_of_a_training_is_read_with_all_its_state(tmp_path: Path) -> None:
    state = make_state().content()
    torch.save(state, tmp_path / "x.pt")
    assert str(read_torch_file(tmp_path / "x.pt")) == str(state)


def _nested(levels: int) -> Any:
    content: Any = 1
    for _ in range(levels):
        content = [content]
    return content


def test_a_limit_is_named_and_can_be_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(_nested(DEPTH.default + 1), tmp_path / "x.pt")
    with pytest.raises(DataError, match=r"x\.pt: more than 100 levels .* with YOLOV5_MAX_DEPTH"):
        read_torch_file(tmp_path / "x.pt")
    monkeypatch.setenv("YOLOV5_MAX_DEPTH", "200")
    assert read_torch_file(tmp_path / "x.pt") == _nested(DEPTH.default + 1)
    for text_ in ("no", "0", "-3", "9" * 30):
        monkeypatch.setenv("YOLOV5_MAX_DEPTH", text_)
        with pytest.raises(ConfigError, match="YOLOV5_MAX_DEPTH: expected a positive integer"):
            read_torch_file(tmp_path / "x.pt")


@pytest.mark.parametrize("seed", range(4))
def test_changed_bytes_end_in_one_line(seed: int, tmp_path: Path) -> None:
    """A checkpoint with random bytes of its description changed is read, or refused by an error of ours."""
    buffer = io.BytesIO()
    torch.save(make_state().content(), buffer)
    whole = buffer.getvalue()
    start = whole.index(b"\x80\x02")
    length = len(zipfile.ZipFile(buffer).read("archive/data.pkl"))
    draw = torch.Generator().manual_seed(seed)

    def number(limit: int) -> int:
        return int(torch.randint(limit, (1,), generator=draw))

    refused = 0
    for _ in range(60):
        raw = bytearray(whole)
        for _ in range(1 + number(4)):
            raw[start + number(length)] = number(256)
        (tmp_path / "x.pt").write_bytes(raw)
        try:
            read_torch_file(tmp_path / "x.pt")
        except DataError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused


def test_pickles_of_all_protocols_are_read(tmp_path: Path) -> None:
    content = {"names": ["a", "b"], "numbers": [1, 2**70, -3, 0.5], "tuple": (1, (2, ()))}
    save: Callable[..., bytes] = pickle.dumps
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "x.pt").write_bytes(zipped(save(content, protocol)))
        assert read_torch_file(tmp_path / "x.pt") == content
