"""Paths, modules and links that pages, docstrings and comments name exist."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.prose import FOLDERS, Text, docstrings_and_comments, pages, python_files
from utils.base.paths import ROOT

TOPS = (*FOLDERS, "tests", "docs", "data", "examples")
SUFFIXES = ("py", "md", "yaml", "csv", "png", "jpg", "json", "c", "h", "js", "mjs")
PATH = re.compile(rf"(?<![\w/.}}*>-])(?:{'|'.join(TOPS)})/[\w./{{}},*-]*\.(?:{'|'.join(SUFFIXES)})\b")
FOLDER = re.compile(rf"`((?:{'|'.join(FOLDERS)}|tests|docs)/[\w/]*)`")
SCRIPT = re.compile(r"(?<![\w/.}*<>-])(\w+\.py)\b")
MODULE = re.compile(rf"(?<![\w/.-])(?:{'|'.join(FOLDERS)})(?:\.[A-Za-z_]\w*)+")
TEST = re.compile(r"(tests/[\w/]+\.py)::(\w+)")
LINK = re.compile(r"\]\(([^)\s]+)\)")
# Models of every scale are built from one yaml per position of the attention.
SCALED = re.compile(r"yolov5[nsmlx]6?-[\w-]+\.yaml$")
# Modules of the original, files of users, and names in examples.
ELSEWHERE = {
    "my_block.py",
    "models.experimental",
    "utils.general",
    "utils.torch_utils",
    "utils.dataloaders",
    "setup.py",
}


def expand(path: str) -> list[str]:
    """Return the paths that braces stand for: `a{b,c}` -> `ab`, `ac`."""
    parts = [part.split(",") for part in re.split(r"\{([^}]*)\}", path)[1::2]]
    plain = re.split(r"\{[^}]*\}", path)
    return [
        "".join(itertools.chain.from_iterable(itertools.zip_longest(plain, chosen, fillvalue="")))
        for chosen in itertools.product(*parts)
    ]


def exists(path: str) -> bool:
    """Return whether a path of the project exists; `*` and NAME stand for any text."""
    patterns = (re.sub(r"\bNAME\b", "*", one) for one in expand(path))
    return all(any(ROOT.glob(one)) or SCALED.search(one) for one in patterns)


@cache
def file_names() -> set[str]:
    """Return the names of all Python files."""
    return {path.name for path in (*python_files(tests=True), *(ROOT / "docs").rglob("*.py"))}


@cache
def names_in(path: Path) -> set[str]:
    """Return the names that a module defines or imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return names


def is_module(dotted: str) -> bool:
    """Return whether a dotted name is a module, or a name in one."""
    parts = dotted.split(".")
    if parts[1] in SUFFIXES or dotted in ELSEWHERE:  # a file, not a module
        return True
    for count in range(len(parts), 0, -1):
        base = ROOT.joinpath(*parts[:count])
        file = base.with_suffix(".py") if base.with_suffix(".py").is_file() else base / "__init__.py"
        if base.is_dir() and count == len(parts):
            return True
        if file.is_file():
            return count == len(parts) or parts[count] in names_in(file) or _is_script(parts)
    return False


def _is_script(parts: list[str]) -> bool:
    """Return whether the name is a script that `yolov5_lska` loads when it is asked for."""
    return parts[0] == "yolov5_lska" and (ROOT / f"{parts[1]}.py").is_file()


def _missing_tests(text: Text) -> Iterator[str]:
    for match in TEST.finditer(text.text):
        if (ROOT / match[1]).is_file() and match[2] not in names_in(ROOT / match[1]):
            yield f"{text.at(match.start())}: {match[0]}"


def missing(text: Text) -> Iterator[str]:
    """Yield what a text names and does not exist."""
    for match in PATH.finditer(text.text):
        if not exists(match[0]):
            yield f"{text.at(match.start())}: {match[0]}"
    yield from _missing_tests(text)
    for match in FOLDER.finditer(text.text):
        if not (ROOT / match[1]).exists() and not (ROOT / f"{match[1]}.py").exists():
            yield f"{text.at(match.start())}: {match[1]}"
    for match in SCRIPT.finditer(text.text):
        if match[1] not in file_names() | ELSEWHERE:
            yield f"{text.at(match.start())}: {match[1]}"
    for match in MODULE.finditer(text.text):
        if not is_module(match[0]):
            yield f"{text.at(match.start())}: {match[0]}"


def headings(page: Path) -> set[str]:
    """Return the anchors of a page's headings."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.path.name)
def test_pages_name_what_exists(page: Text) -> None:
    assert not list(missing(page))


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.path.name)
def test_links_lead_somewhere(page: Text) -> None:
    broken = []
    for match in LINK.finditer(page.text):
        target, _, anchor = match[1].partition("#")
        file = page.path.parent / target if target else page.path
        if not target.startswith("http") and not (file.exists() and (not anchor or anchor in headings(file))):
            broken.append(f"{page.at(match.start())}: {match[1]}")

    assert not broken


def test_docstrings_and_comments_name_what_exists() -> None:
    texts = (text for path in python_files(tests=True) for text in docstrings_and_comments(path))
    found = [line for text in texts for line in missing(text)]

    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("see utils/ops/nms.py and `docs/tour.md`", []),
        ("see `utils/train/run.py`", ["utils/train/run.py"]),
        ("see `tests/test_docs.py::missing`", []),
        ("see `tests/test_docs.py::nowhere`", ["tests/test_docs.py::nowhere"]),
        ("yolov5{n,s}.yaml are in models/yolov5{n,s,q}.yaml", ["models/yolov5{n,s,q}.yaml"]),
        ("models/lska/yolov5s-SPPFLSKA.yaml, models/hub/*.yaml", []),
        ("`utils.ops.nms.no_such_name`, `utils.base.seeds.generator`", ["utils.ops.nms.no_such_name"]),
        ("python train.py, then python trian.py", ["trian.py"]),
        ("`utils/nowhere/`", ["utils/nowhere/"]),
        ("at /home/me/data/cells.yaml", []),
    ],
)
def test_missing_names_are_found(text: str, named: list[str]) -> None:
    found = missing(Text(ROOT / "README.md", 1, text))

    assert [line.partition(": ")[2] for line in found] == named
