"""Where the scripts, `models` and `utils` are, and how Python finds them."""

from __future__ import annotations

import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent
# pip copies all of it into this package (see pyproject.toml); in a checkout it stands beside the package.
HOME = _HERE if (_HERE / "utils").is_dir() else _HERE.parent
SCRIPTS = HOME / "scripts" if HOME == _HERE else HOME


def add_to_path() -> None:
    """Extend `sys.path` so that `import utils`, `import models` and `import train` find this project.

    Raises:
        ImportError: this process has other modules of these names already.
    """
    for name in ("models", "serve", "studies", "utils"):
        module = sys.modules.get(name)
        paths = map(Path, getattr(module, "__path__", ()))
        if module is not None and HOME / name not in paths:
            raise ImportError(f"yolov5_lska needs the name {name}, which {module} has; use another process")
    for folder in (str(SCRIPTS), str(HOME)):
        if folder in sys.path:
            sys.path.remove(folder)
        sys.path.insert(0, folder)
