"""Read and write yaml as plain data; errors name the file and the line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from utils.base.errors import ConfigError, DataError, one_line
from utils.base.limits import DEPTH, YAML
from utils.base.log import LOG
from utils.base.paths import atomic_write, decode_text

_REPEATED, _FEW = 20, 10_000  # nodes with those of aliases, as a multiple of those that are written
_LONGEST = 300  # characters of a message


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a yaml mapping with the safe loader; class names (`names:`) are text as it is written.

    A key that is given twice is named in a warning; the last one counts, as yaml parsers do it.

    Raises:
        ConfigError: unreadable, not yaml, beyond a limit, or not a mapping at the top.
    """
    try:
        YAML.check(path.stat().st_size)
        content = _load(decode_text(path.read_bytes()), path)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = str(getattr(error, "problem", error))[:_LONGEST]
        raise ConfigError(f"{path}{where}: not valid yaml ({problem})") from error
    except (ArithmeticError, DataError, LookupError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: {one_line(error)[:_LONGEST]}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected 'key: value' lines, found {type(content).__name__}")
    return content


def _load(text: str, path: Path) -> Any:
    _check_events(text)
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        _warn_about_repeated_keys(root, path)
        if isinstance(root, yaml.MappingNode):
            for key, value in root.value:
                if key.value == "names":
                    _keep_as_text(value)
        return loader.construct_document(root) if root is not None else None
    finally:
        loader.dispose()


def _check_events(text: str) -> None:
    """Raise DataError if nodes are nested too deeply, contain themselves, or are repeated without limit.

    An alias stands for a whole node: ten levels of ten aliases each are 10**10 nodes.
    """
    counts: dict[str, int] = {}  # by anchor: nodes below it, with those of aliases
    open_nodes: list[tuple[str | None, int]] = []  # anchor, and `total` before it
    events = total = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, total))
            DEPTH.check(len(open_nodes))
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor is not None:
                counts[anchor] = total - before
            continue
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor in {anchor for anchor, _ in open_nodes}:
                raise DataError(f"*{event.anchor} contains itself")
            total += counts.get(str(event.anchor), 0)
        elif not isinstance(event, yaml.ScalarEvent):
            continue
        elif event.anchor is not None:
            counts[event.anchor] = 1
        events, total = events + 1, total + 1
        if total > _REPEATED * events + _FEW:
            raise DataError("its aliases repeat nodes without limit")


def _warn_about_repeated_keys(root: yaml.Node | None, path: Path) -> None:
    """Warn about keys that a mapping has more than once."""
    nodes, seen = [root], set()
    while nodes:
        node = nodes.pop()
        if id(node) in seen or not isinstance(node, yaml.CollectionNode):
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            nodes += node.value
            continue
        lines: dict[str, int] = {}
        for key, value in node.value:
            nodes += (key, value)
            if not isinstance(key, yaml.ScalarNode) or key.value == "<<":
                continue
            line, name = key.start_mark.line + 1, key.value[:_LONGEST]
            if name in lines:
                both = f"is given in line {lines[name]} and again in line {line}"
                LOG.warning(f"{path}: {name} {both}, which counts")
            lines[name] = line


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
