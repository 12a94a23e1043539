"""The house stands: a module imports its own floor or a lower one, and no import goes round in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from utils.base.paths import ROOT

# A room is a package or module with all below it. Everything of ours has to be in one.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("utils.base",),
    ("utils.native", "utils.ops", "utils.plots", "models.registry", "models.blocks", "models.attention"),
    (
        "models.common",
        "models.config",
        "models.pickles",
        "models.release",
        "utils.data",
        "utils.sources",
        "utils.loggers",
    ),
    (
        "models.head",
        "models.recompute",
        "models.tta",
        "models.profile",
        "models.yolo",
        "models.weights",
        "models.van_weights",
        "models.graft",
        "models.config",
    ),
    ("utils.train", "utils.val", "utils.predict", "utils.export", "models.backends", "models.autoshape"),
    ("serve", "studies"),
    (
        "train",
        "val",
        "compare",
        "detect",
        "export",
        "graft",
        "hubconf",
        "benchmarks",
        "visualize",
        "yolov5_lska",
    ),
)
# On floor 4 the rooms are strangers, but for these.
NEIGHBOURS = {
    ("utils.train", "utils.val"),
    ("utils.val", "models.backends"),
    ("utils.predict", "models.backends"),
    ("utils.export", "models.backends"),
    ("models.autoshape", "models.backends"),
}


def module_name(path: Path) -> str:
    """`utils/ops/nms.py` -> `utils.ops.nms`; a package has the name of its folder."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, Path]:
    """All modules of the project but the tests, by name."""
    folders = ("utils", "models", "studies", "serve", "benchmarks", "yolov5_lska")
    paths = [*ROOT.glob("*.py"), *(path for name in folders for path in (ROOT / name).rglob("*.py"))]
    return {module_name(path): path for path in sorted(paths)}


def room(module: str) -> str | None:
    """The entry of FLOORS that `module` belongs to."""
    rooms = (name for floor in FLOORS for name in floor)
    return next((name for name in rooms if module == name or module.startswith(f"{name}.")), None)


def floor(module: str) -> int:
    home = room(module)
    return next(number for number, rooms in enumerate(FLOORS) if home in rooms)


def imported_names(tree: ast.AST, module: str, is_package: bool) -> Iterator[str]:
    """Every dotted name that may be a module: `from a import b` gives `a` and `a.b`."""
    for node in _on_import(tree):
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


def _on_import(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes, inside functions too, except what only type checkers read or only a script runs."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith(("TYPE_CHECKING", "== '__main__'")):
            for child in node.orelse:
                yield child
                yield from _on_import(child)
            continue
        yield node
        yield from _on_import(node)


@cache
def imports(module: str) -> frozenset[str]:
    """Modules of ours that `module` imports, packages on the way to them left out."""
    path = modules()[module]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = {name for name in imported_names(tree, module, path.name == "__init__.py") if name in modules()}
    passed = {name for name in found if any(other.startswith(f"{name}.") for other in found)}
    empty = {name for name in passed if not ast.parse(modules()[name].read_text()).body}
    return frozenset(found - empty - {module})


def test_every_module_has_a_room() -> None:
    packages = {"utils", "models"}
    homeless = [name for name in modules() if name not in packages and room(name) is None]

    assert not homeless, f"put {homeless} on a floor of FLOORS"


@pytest.mark.parametrize("module", [name for name in modules() if room(name)])
def test_nobody_imports_upwards(module: str) -> None:
    climbs = [name for name in imports(module) if room(name) and floor(name) > floor(module)]

    assert not climbs, f"{module} (floor {floor(module)}) imports {climbs} from above"


@pytest.mark.parametrize("module", [name for name in modules() if room(name) in FLOORS[4]])
def test_acts_do_not_know_each_other(module: str) -> None:
    home = room(module)
    others = {room(name) for name in imports(module)} & set(FLOORS[4]) - {home}
    strangers = [other for other in others if (home, other) not in NEIGHBOURS]

    assert not strangers, f"{module} imports from {strangers}"


def test_doors_do_not_know_each_other() -> None:
    scripts = {path.stem for path in ROOT.glob("*.py")}
    known = {(script, name) for script in scripts for name in imports(script) if name in scripts}

    assert not known, f"scripts import scripts: {known}"


def test_no_import_goes_round_in_a_circle() -> None:
    graph = {module: imports(module) for module in modules()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail("imported in a circle: " + " -> ".join(reversed(error.args[1])))


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import utils.ops.nms as n", {"utils.ops.nms"}),
        ("from models import yolo", {"models", "models.yolo"}),
        ("def f():\n    from models.yolo import Detect", {"models.yolo", "models.yolo.Detect"}),
        ("from . import nms", {"utils.ops", "utils.ops.nms"}),
        ("from ..base import log", {"utils.base", "utils.base.log"}),
        ("if TYPE_CHECKING:\n    import torch", set()),
        ("if typing.TYPE_CHECKING:\n    import torch\nelse:\n    import yaml", {"yaml"}),
        ("if __name__ == '__main__':\n    from train import main", set()),
        ("try:\n    import a\nexcept ImportError:\n    import b", {"a", "b"}),
    ],
)
def test_the_walker_sees_every_kind_of_import(source: str, names: set[str]) -> None:
    assert set(imported_names(ast.parse(source), "utils.ops.boxes", is_package=False)) == names
