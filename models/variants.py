"""Variants of a model yaml without a yaml for each: other arguments for its large kernel blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from models import registry
from models.attention.lska import DESIGNS
from utils.base.errors import ConfigError

SETTINGS = {"k": int, "dilation": int, "init": str, "design": str}


def parse_settings(words: Sequence[str], flag: str = "--attention") -> dict[str, Any]:
    """Read `["k=23", "design=LKA"]`; a word may also hold several, separated by commas.

    Raises:
        ConfigError: an unknown key, or a value of the wrong kind.
    """
    settings: dict[str, Any] = {}
    for word in (part for text in words for part in text.split(",") if part):
        key, _, value = word.partition("=")
        if key not in SETTINGS or not value:
            raise ConfigError(f"{flag} {word}: expected k=, dilation=, init= or design= and a value")
        try:
            settings[key] = SETTINGS[key](value)
        except ValueError as error:
            raise ConfigError(f"{flag} {word}: {key} is a whole number such as 23") from error
    if "design" in settings and settings["design"] not in DESIGNS:
        raise ConfigError(f"{flag} design={settings['design']}: expected one of {', '.join(DESIGNS)}")
    return settings


def with_attention(config: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Give every large kernel block of a model yaml's content these arguments; the rest stays.

    Args:
        config: content of the yaml.
        settings: k, dilation, init, design, as far as they are to change.

    Raises:
        ConfigError: the model has no large kernel block.
    """
    changed = deepcopy(dict(config))
    found = 0
    for row in (*changed.get("backbone", ()), *changed.get("head", ())):
        if isinstance(row, list) and len(row) == 4 and _has_kernel(row[2]):
            row[2], row[3] = _rewrite(row[2], row[3], settings)
            found += 1
    if settings and not found:
        name = config.get("yaml_file") or "the model"
        raise ConfigError(f"--attention: {name} has no large kernel block to change")
    return changed


def _has_kernel(name: Any) -> bool:
    block = registry.registered().get(name) if isinstance(name, str) else None
    return block is not None and (name in DESIGNS or "design" in registry.argument_names(name))


def _rewrite(name: str, args: Any, settings: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """A row's module and arguments; a setting replaces a positional argument, else joins the keywords."""
    args = list(args) if isinstance(args, list) else [args]
    keywords = dict(args.pop()) if args and isinstance(args[-1], dict) else {}
    names = registry.argument_names(name)
    for key, value in settings.items():
        if key == "design" and name in DESIGNS:
            name = value
            continue
        # SPPFLSKA has a pooling kernel of its own, which is called k in YOLOv5.
        key = "kernel" if key == "k" and "kernel" in names else key
        if key not in names:
            raise ConfigError(f"--attention {key}={value}: {name} has no argument {key}")
        if names.index(key) < len(args):
            args[names.index(key)] = value
        else:
            keywords[key] = value
    return name, [*args, keywords] if keywords else args
