"""How yaml rows become blocks: each name has a class and a rule for its arguments and channels."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from utils.base.errors import ConfigError


@dataclass(frozen=True)
class Site:
    """Where a block is to stand: what arrives there, and how the model is scaled."""

    in_channels: tuple[int, ...]  # one per source layer
    repeats: int = 1  # after depth_multiple
    scale: Callable[[int], int] = int  # a channel count after width_multiple
    options: dict[str, Any] = field(default_factory=dict)  # model-wide keywords, e.g. init: paper


@dataclass(frozen=True)
class BlockPlan:
    """What to build: constructor arguments, channels that leave, copies in a row."""

    args: tuple[Any, ...]
    out_channels: int
    copies: int = 1


Rule = Callable[[Site, tuple[Any, ...]], BlockPlan]
_BLOCKS: dict[str, tuple[type[nn.Module], Rule]] = {}


def keeps(site: Site, args: tuple[Any, ...]) -> BlockPlan:
    """Attention, norms: as many channels leave as arrive; the block is told how many."""
    c1 = _one_source(site)
    return BlockPlan((c1, *args), c1, copies=site.repeats)


def widens(site: Site, args: tuple[Any, ...]) -> BlockPlan:
    """Conv, SPPF: the first yaml argument is the width that leaves."""
    c1, c2 = _one_source(site), site.scale(args[0])
    return BlockPlan((c1, c2, *args[1:]), c2, copies=site.repeats)


def stacks(site: Site, args: tuple[Any, ...]) -> BlockPlan:
    """C3 and its kin: like `widens`, and the block repeats its own inside."""
    c1, c2 = _one_source(site), site.scale(args[0])
    return BlockPlan((c1, c2, site.repeats, *args[1:]), c2)


def joins(site: Site, args: tuple[Any, ...]) -> BlockPlan:
    """Concat: the channels of all sources add up."""
    return BlockPlan(args, sum(site.in_channels))


def packs(site: Site, args: tuple[Any, ...]) -> BlockPlan:
    """Contract: side for channels, gain squared times as many leave."""
    c1, gain = _one_source(site), int(args[0]) if args else 2
    return BlockPlan((gain,), c1 * gain**2, copies=site.repeats)


def unpacks(site: Site, args: tuple[Any, ...]) -> BlockPlan:
    """Expand: channels for side, gain squared times as few leave."""
    c1, gain = _one_source(site), int(args[0]) if args else 2
    return BlockPlan((gain,), c1 // gain**2, copies=site.repeats)


def passes(site: Site, args: tuple[Any, ...]) -> BlockPlan:
    """Upsample, pooling, padding: channels don't matter to the block and stay."""
    return BlockPlan(args, _one_source(site), copies=site.repeats)


def detects(site: Site, args: tuple[Any, ...]) -> BlockPlan:
    """Heads: take every source; nothing reads their output as a map."""
    return BlockPlan((*args, site.in_channels), sum(site.in_channels))


def register(rule: Rule, *blocks: type[nn.Module], **aliases: type[nn.Module]) -> None:
    """Let yaml rows say these class names (and alias=class) and build them by `rule`."""
    for block in blocks:
        _BLOCKS[block.__name__] = block, rule
    for name, block in aliases.items():
        _BLOCKS[name] = block, rule


def registered() -> dict[str, type[nn.Module]]:
    """Every name that a yaml may use, with its class."""
    return {name: block for name, (block, _) in _BLOCKS.items()}


def argument_names(name: str) -> list[str]:
    """Names of the arguments that a yaml row may give a block, in their order; channels that the rule adds
    and the repeats are not among them.
    """
    block, rule = _BLOCKS[name]
    names = list(inspect.signature(block).parameters)
    if rule is passes or rule is detects:
        return names
    return [name for index, name in enumerate(names[1:], 1) if not (rule is stacks and index == 2)]


def plan(name: str, site: Site, args: Sequence[Any]) -> tuple[type[nn.Module], BlockPlan, dict[str, Any]]:
    """Look a block up and ask its rule what to build at this site.

    A mapping as the last yaml argument holds keywords: `[-1, 1, LSKA, [{k: 23, init: paper}]]`.

    Returns:
        The class, the plan, and keyword arguments.

    Raises:
        ConfigError: no such block, or arguments that its rule cannot use.
    """
    if name not in _BLOCKS:
        folded = {known.lower().replace("_", ""): known for known in _BLOCKS}
        near = difflib.get_close_matches(name.lower().replace("_", ""), folded, n=3, cutoff=0.5)
        hint = f" Did you mean {', '.join(folded[n] for n in near)}?" if near else ""
        raise ConfigError(f"no block is called {name!r}.{hint} models/common.py registers blocks.")
    block, rule = _BLOCKS[name]
    keywords = dict(args[-1]) if args and isinstance(args[-1], dict) else {}
    positional = tuple(args[:-1] if args and isinstance(args[-1], dict) else args)
    accepted = inspect.signature(block).parameters
    keywords = {key: value for key, value in site.options.items() if key in accepted} | keywords
    try:
        return block, rule(site, positional), keywords
    except (IndexError, TypeError, ValueError) as error:
        raise ConfigError(f"{name}: arguments {list(args)} do not fit ({error})") from error


def build(block: type[nn.Module], made: BlockPlan, keywords: dict[str, Any]) -> nn.Module:
    """Construct a planned block, in a Sequential when it stands several times in a row."""
    try:
        first = block(*made.args, **keywords)
        if made.copies == 1:
            return first
        again = (made.out_channels, *made.args[1:]) if _takes_channels(made) else made.args
        return nn.Sequential(first, *(block(*again, **keywords) for _ in range(made.copies - 1)))
    except (TypeError, ValueError, ZeroDivisionError, AssertionError, RuntimeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{block.__name__}: arguments {list(made.args)} do not fit ({error})") from error


def _takes_channels(made: BlockPlan) -> bool:
    return len(made.args) > 1 and made.args[1] == made.out_channels


def _one_source(site: Site) -> int:
    if len(site.in_channels) != 1:
        raise ValueError(f"it reads one layer, not {len(site.in_channels)}")
    return site.in_channels[0]
