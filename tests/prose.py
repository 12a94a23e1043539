"""The texts of the project: pages, docstrings, comments, help texts and messages."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from utils.base.paths import ROOT

FOLDERS = ("models", "utils", "studies", "serve", "benchmarks", "yolov5_lska")


class Text(NamedTuple):
    """A piece of text and where it is."""

    path: Path
    line: int
    text: str

    def at(self, offset: int) -> str:
        """Return `FILE:LINE` of a position in the text."""
        return f"{self.path.relative_to(ROOT)}:{self.line + self.text.count(chr(10), 0, offset)}"


def pages() -> list[Text]:
    """Return all pages in Markdown."""
    paths = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*/*.md")]
    return [Text(path, 1, path.read_text(encoding="utf-8")) for path in sorted(paths)]


@cache
def python_files(tests: bool = False) -> list[Path]:
    """Return the Python files of the project, with those of the tests if asked for."""
    folders = (*FOLDERS, "tests") if tests else FOLDERS
    return sorted([*ROOT.glob("*.py"), *(path for name in folders for path in (ROOT / name).rglob("*.py"))])


def docstrings_and_comments(path: Path) -> Iterator[Text]:
    """Yield every docstring and comment of a Python file."""
    source = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                yield Text(path, first.lineno, str(first.value.value))
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield Text(path, token.start[0], token.string)


def messages(path: Path) -> Iterator[Text]:
    """Yield every help text, raised message, warning and log message of a Python file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and _shows_text(node.func):
            values = [*node.args, *(word.value for word in node.keywords)]
        elif isinstance(node, ast.Call):
            values = [word.value for word in node.keywords if word.arg in ("help", "description", "epilog")]
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            values = [*node.exc.args, *(word.value for word in node.exc.keywords)]
        else:
            continue
        for value in values:
            yield from (Text(path, part.lineno, part.value) for part in _strings(value))


def _shows_text(function: ast.expr) -> bool:
    """Return whether a call prints or logs its arguments, or declares a flag with a help text."""
    name = ast.unparse(function).rpartition(".")[2]
    shown = ("require", "print", "info", "warn", "warning", "error", "critical")
    return name in shown or name.endswith("flag")


def _strings(node: ast.AST) -> Iterator[ast.Constant]:
    """Yield the string constants of an expression, those of f-strings included."""
    for child in ast.walk(node):
        if isinstance(child, ast.Constant) and isinstance(child.value, str):
            yield child
