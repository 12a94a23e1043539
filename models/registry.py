"""Blocks that a model yaml can name: each has a class, and a rule for its arguments and channels."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from utils.base.errors import ConfigError


@dataclass(frozen=True)
class LayerContext:
    """Input of a rule besides the yaml arguments of the layer."""

    in_channels: tuple[int, ...]  # one per source layer
    repeats: int = 1  # after depth_multiple
    scale_width: Callable[[int], int] = int  # applies width_multiple to a number of channels
    keywords: dict[str, Any] = field(default_factory=dict)  # for all blocks that accept them: init: paper


@dataclass(frozen=True)
class BlockPlan:
    """Result of a rule: how to construct the block of a layer."""

    args: tuple[Any, ...]  # of the constructor
    out_channels: int
    copies: int = 1  # blocks in a row


@dataclass(frozen=True)
class LayerPlan:
    """A layer that can be built."""

    block: type[nn.Module]
    args: tuple[Any, ...]
    keywords: dict[str, Any]
    out_channels: int
    copies: int

    def build(self) -> nn.Module:
        """Construct the block, or a Sequential of several copies.

        Raises:
            ConfigError: the block does not accept its arguments.
        """
        try:
            first = self.block(*self.args, **self.keywords)
            if self.copies == 1:
                return first
            # Copies behind the first read what the first returns.
            takes_width = len(self.args) > 1 and self.args[1] == self.out_channels
            args = (self.out_channels, *self.args[1:]) if takes_width else self.args
            return nn.Sequential(first, *(self.block(*args, **self.keywords) for _ in range(self.copies - 1)))
        except ConfigError:
            raise
        except (TypeError, ValueError, ZeroDivisionError, AssertionError, RuntimeError) as error:
            raise _misfit(self.block.__name__, self.args, error) from error


Rule = Callable[[LayerContext, tuple[Any, ...]], BlockPlan]
_BLOCKS: dict[str, tuple[type[nn.Module], Rule]] = {}


def same_channels(layer: LayerContext, args: tuple[Any, ...]) -> BlockPlan:
    """Plan attention or a norm: as many output as input channels; the constructor gets their number."""
    c1 = _one_source(layer)
    return BlockPlan((c1, *args), c1, copies=layer.repeats)


def new_channels(layer: LayerContext, args: tuple[Any, ...]) -> BlockPlan:
    """Plan Conv, SPPF, ...: the first yaml argument is the number of output channels."""
    c1, c2 = _one_source(layer), layer.scale_width(args[0])
    return BlockPlan((c1, c2, *args[1:]), c2, copies=layer.repeats)


def channels_and_repeats(layer: LayerContext, args: tuple[Any, ...]) -> BlockPlan:
    """Plan C3 or a variant: as `new_channels`, with the repeats inside the block."""
    c1, c2 = _one_source(layer), layer.scale_width(args[0])
    return BlockPlan((c1, c2, layer.repeats, *args[1:]), c2)


def sum_of_channels(layer: LayerContext, args: tuple[Any, ...]) -> BlockPlan:
    """Plan Concat: the channels of all sources add up."""
    return BlockPlan(args, sum(layer.in_channels))


def space_to_depth(layer: LayerContext, args: tuple[Any, ...]) -> BlockPlan:
    """Plan Contract: gain squared times as many channels."""
    c1, gain = _one_source(layer), int(args[0]) if args else 2
    return BlockPlan((gain,), c1 * gain**2, copies=layer.repeats)


def depth_to_space(layer: LayerContext, args: tuple[Any, ...]) -> BlockPlan:
    """Plan Expand: gain squared times fewer channels."""
    c1, gain = _one_source(layer), int(args[0]) if args else 2
    return BlockPlan((gain,), c1 // gain**2, copies=layer.repeats)


def any_channels(layer: LayerContext, args: tuple[Any, ...]) -> BlockPlan:
    """Plan Upsample, pooling or padding: any number of channels, which the constructor does not get."""
    return BlockPlan(args, _one_source(layer), copies=layer.repeats)


def detection_head(layer: LayerContext, args: tuple[Any, ...]) -> BlockPlan:
    """Plan a head, which reads all sources; no other layer reads its output."""
    return BlockPlan((*args, layer.in_channels), sum(layer.in_channels))


def segmentation_head(layer: LayerContext, args: tuple[Any, ...]) -> BlockPlan:
    """Plan a head with mask prototypes: as `detection_head`, and the fourth argument is scaled as a width."""
    nc, anchors, *sizes = args
    if len(sizes) > 2:
        raise ValueError("expected nc, anchors, mask coefficients, prototype channels")
    nm, npr = (sizes + [32, 256][len(sizes) :])[:2]
    for name, value in (("mask coefficients", nm), ("prototype channels", npr)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}: {value}, expected an integer of at least 1")
    return detection_head(layer, (nc, anchors, nm, layer.scale_width(npr)))


def classification_head(layer: LayerContext, args: tuple[Any, ...]) -> BlockPlan:
    """Plan a classifier: it reads all sources; the first yaml argument is the number of classes."""
    return BlockPlan((sum(layer.in_channels), *args), args[0])


def whole_classifier(layer: LayerContext, args: tuple[Any, ...]) -> BlockPlan:
    """Plan a classifier that reads images: the yaml arguments are the number of classes and a name."""
    return BlockPlan(args, args[0])


def register(rule: Rule, *blocks: type[nn.Module], **aliases: type[nn.Module]) -> None:
    """Register these classes (and alias=class) as blocks that a yaml can name, with `rule` to plan them."""
    for block in blocks:
        _BLOCKS[block.__name__] = block, rule
    for name, block in aliases.items():
        _BLOCKS[name] = block, rule


def registered() -> dict[str, type[nn.Module]]:
    """Return every name that a yaml may use, with its class."""
    return {name: block for name, (block, _) in _BLOCKS.items()}


def argument_names(name: str) -> list[str]:
    """Return the names of the arguments that a yaml row may give a block, in their order.

    Channels and repeats that the rule adds are not among them.
    """
    block, rule = _BLOCKS[name]
    names = list(inspect.signature(block).parameters)
    if rule in (any_channels, detection_head, segmentation_head):
        return names
    if rule is channels_and_repeats:
        return [names[1], *names[3:]]
    return names[1:]


def plan(name: str, layer: LayerContext, args: Sequence[Any]) -> LayerPlan:
    """Find a block by name and apply its rule.

    A mapping as the last yaml argument holds keywords: `[-1, 1, LSKA, [{k: 23, init: paper}]]`.

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
    keywords = {key: value for key, value in layer.keywords.items() if key in accepted} | keywords
    try:
        block_plan = rule(layer, positional)
    except (IndexError, TypeError, ValueError) as error:
        raise _misfit(name, args, error) from error
    return LayerPlan(block, block_plan.args, keywords, block_plan.out_channels, block_plan.copies)


def _misfit(name: str, args: Sequence[Any], error: Exception) -> ConfigError:
    return ConfigError(f"{name}: arguments {list(args)} do not fit ({error})")


def _one_source(layer: LayerContext) -> int:
    if len(layer.in_channels) != 1:
        raise ValueError(f"it reads one layer, not {len(layer.in_channels)}")
    return layer.in_channels[0]
