"""Modules import from their own layer or a lower one, and imports form no cycle.

The layers are those of the table in CONTRIBUTING.md. Imports inside functions and for type checkers count.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from utils.base.paths import ROOT

FOLDERS = ("utils", "models", "studies", "serve", "segment", "classify", "benchmarks", "yolov5_lska")
ACTIONS = 4  # the layer of what is done with a model
# What one action may import from another.
RELATIONS = {
    ("utils.train", "utils.val"),
    ("utils.train", "utils.tasks"),
    ("utils.val", "utils.tasks"),
    ("utils.predict", "utils.tasks"),
    ("utils.export", "utils.tasks"),
    ("utils.tasks", "utils.train"),
    ("utils.tasks", "utils.val"),
    ("utils.tasks", "utils.predict"),
    ("utils.tasks", "models.backends"),
    ("utils.val", "models.backends"),
    ("utils.predict", "models.backends"),
    ("utils.export", "models.backends"),
    ("models.autoshape", "models.backends"),
    ("models.autoshape", "utils.tasks"),
}


def read_layers() -> list[list[str]]:
    """Return the dotted names of each layer, as the table in CONTRIBUTING.md lists them."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d) \| (.*?) \|", text, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(len(rows)))
    names = [re.findall(r"`([^`]+)`", row) for _, row in rows]
    return [[name.removesuffix(".py").strip("/").replace("/", ".") for name in row] for row in names]


LAYERS = read_layers()


def module_name(path: Path) -> str:
    """Return the dotted name of a file: `utils/ops/nms.py` -> `utils.ops.nms`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, Path]:
    """Return all modules of the project except the tests, by name."""
    paths = [*ROOT.glob("*.py"), *(path for name in FOLDERS for path in (ROOT / name).rglob("*.py"))]
    return {module_name(path): path for path in sorted(paths)}


def part(module: str) -> str | None:
    """Return the entry of the table that `module` is or belongs to."""
    parts = (name for layer in LAYERS for name in layer)
    return next((name for name in parts if module == name or module.startswith(f"{name}.")), None)


def layer(module: str) -> int:
    """Return the number of the layer that `module` belongs to."""
    return next(number for number, parts in enumerate(LAYERS) if part(module) in parts)


def imported_names(tree: ast.AST, module: str, is_package: bool) -> Iterator[str]:
    """Yield every dotted name that may be a module: `from a import b` yields `a` and `a.b`."""
    for node in walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = module.split(".")
                kept = here[: len(here) - node.level + is_package]
                base = ".".join([*kept, *filter(None, [node.module])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def walk(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield all nodes except those of `if __name__ == "__main__"`."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"):
            yield node
            yield from walk(node)


@cache
def imports(module: str) -> frozenset[str]:
    """Return the modules of this project that `module` imports, without empty parent packages."""
    path = modules()[module]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = set(imported_names(tree, module, path.name == "__init__.py"))
    if path.parent == ROOT / "benchmarks":  # run as scripts: they import each other without the folder's name
        names |= {f"benchmarks.{name}" for name in names}
    found = {name for name in names if name in modules()}
    parents = {name for name in found if any(other.startswith(f"{name}.") for other in found)}
    empty = {name for name in parents if not ast.parse(modules()[name].read_text(encoding="utf-8")).body}
    return frozenset(found - empty - {module})


def test_every_module_has_a_layer() -> None:
    missing = [name for name in modules() if name not in ("utils", "models") and part(name) is None]

    assert not missing, f"add {missing} to the table of layers in CONTRIBUTING.md"


def test_the_table_lists_modules_that_exist() -> None:
    # A folder of scripts has no __init__.py and is no module.
    known = {*modules(), *(name for name in FOLDERS if (ROOT / name).is_dir())}
    unknown = [name for names in LAYERS for name in names if name not in known]

    assert not unknown, f"CONTRIBUTING.md lists {unknown}, which do not exist"


def test_modules_import_from_their_own_layer_or_a_lower_one() -> None:
    upward = [
        f"{module} (layer {layer(module)}) imports {name} (layer {layer(name)})"
        for module in filter(part, modules())
        for name in filter(part, imports(module))
        if layer(name) > layer(module)
    ]

    assert not upward


def test_actions_import_only_the_listed_others() -> None:
    found = {
        (part(module), part(name))
        for module in modules()
        for name in imports(module)
        if {part(module), part(name)} <= set(LAYERS[ACTIONS]) and part(module) != part(name)
    }

    assert not found - RELATIONS, "an action imports another one"
    assert not RELATIONS - found, "remove what is not used any more from RELATIONS"


@pytest.mark.parametrize("folder", ["models", "utils"])
def test_models_and_utils_do_not_import_studies_or_the_server(folder: str) -> None:
    found = [
        f"{module} imports {name}"
        for module in modules()
        if module.startswith(f"{folder}.")
        for name in imports(module)
        if name.split(".")[0] in ("studies", "serve", "benchmarks", "yolov5_lska")
    ]

    assert not found


def test_scripts_do_not_import_scripts() -> None:
    scripts = {path.stem for path in ROOT.glob("*.py")}
    found = {(script, name) for script in scripts for name in imports(script) if name in scripts}

    assert found == {("test", "val")}  # test.py is the name of val.py until v5.0


def test_imports_form_no_cycle() -> None:
    graph = {module: imports(module) for module in modules()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail("import cycle: " + " -> ".join(reversed(error.args[1])))


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import utils.ops.nms as n", {"utils.ops.nms"}),
        ("from models import yolo", {"models", "models.yolo"}),
        ("def f():\n    from models.yolo import Detect", {"models.yolo", "models.yolo.Detect"}),
        ("from . import nms", {"utils.ops", "utils.ops.nms"}),
        ("from ..base import log", {"utils.base", "utils.base.log"}),
        ("if TYPE_CHECKING:\n    import torch", {"torch"}),
        ("if __name__ == '__main__':\n    from train import main", set()),
        ("try:\n    import a\nexcept ImportError:\n    import b", {"a", "b"}),
    ],
)
def test_every_kind_of_import_is_found(source: str, names: set[str]) -> None:
    assert set(imported_names(ast.parse(source), "utils.ops.boxes", is_package=False)) == names
