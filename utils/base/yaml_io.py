"""Read and write yaml as plain data; errors name the file and the line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from utils.base.errors import ConfigError
from utils.base.paths import atomic_write, decode_text


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a yaml mapping with the safe loader; class names (`names:`) are text as it is written.

    Raises:
        ConfigError: unreadable, not yaml, or not a mapping at the top.
    """
    try:
        content = _load(decode_text(path.read_bytes()))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{where}: not valid yaml ({getattr(error, 'problem', error)})") from error
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected 'key: value' lines, found {type(content).__name__}")
    return content


def _load(text: str) -> Any:
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        if isinstance(root, yaml.MappingNode):
            for key, value in root.value:
                if key.value == "names":
                    _keep_as_text(value)
        return loader.construct_document(root) if root is not None else None
    finally:
        loader.dispose()


def _keep_as_text(names: yaml.Node) -> None:
    """Make text of the items of a list, or of the values of a mapping: `no` would become False."""
    items = [value for _, value in names.value] if isinstance(names, yaml.MappingNode) else names.value
    for item in items if isinstance(names, yaml.CollectionNode) else ():
        if isinstance(item, yaml.ScalarNode):
            item.tag = "tag:yaml.org,2002:str"


def write_yaml(path: Path, content: dict[str, Any]) -> None:
    """Write plain data as yaml atomically: keys in their order, paths as text."""
    text = yaml.safe_dump(plain(content), sort_keys=False, allow_unicode=True)
    with atomic_write(path, "w", encoding="utf-8") as file:
        file.write(text)


def plain(value: Any) -> Any:
    """Convert a value to what yaml and weights-only checkpoints can hold: numbers, text, lists, dicts."""
    if isinstance(value, dict):
        return {(key if isinstance(key, int) else str(key)): plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(v) for v in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if hasattr(value, "item") and getattr(value, "size", 1) == 1:  # numpy scalar
        return value.item()
    return str(value)
