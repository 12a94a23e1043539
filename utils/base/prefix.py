"""Share modules under a second name: `yolov5.utils.general` is `utils.general`, loaded once.

Projects put a checkout beside their scripts as the folder `yolov5`, and import from it with that prefix. The
original is loaded twice then, and its classes exist twice.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class _SharedLoader(Loader):
    """Loader of a module that is known under another name already."""

    def __init__(self, own: str) -> None:
        self.own = own

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self.own)
        self.spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec  # the import system has just set that of the second name


class _SharedFinder(MetaPathFinder):
    """Finder of `yolov5.utils.*`, for each prefix that `share` has seen."""

    def __init__(self) -> None:
        self.prefixes: dict[str, str] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        for prefix, own in self.prefixes.items():
            if fullname.startswith(f"{prefix}."):
                name = own + fullname.removeprefix(prefix)
                found = importlib.util.find_spec(name)
                return found and importlib.util.spec_from_loader(fullname, _SharedLoader(name))
        return None


_FINDER = _SharedFinder()


def share(prefixed: str, own: str) -> None:
    """Make `import prefixed` and its submodules return the modules of `own`."""
    _FINDER.prefixes[prefixed] = own
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
    sys.modules[prefixed] = module = importlib.import_module(own)
    parent, _, name = prefixed.rpartition(".")
    if parent in sys.modules:
        setattr(sys.modules[parent], name, module)
