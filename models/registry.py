"""Blocks that a model yaml can name: each has a class, and a rule for its arguments and channels."""

from __future__ import annotations

import difflib
import inspect
import math
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from models.arguments import LARGEST, check_arguments, is_integer
from utils.base.errors import ConfigError, first_line


@dataclass(frozen=True)
class LayerContext:
    """Input of a rule besides the yaml arguments of the layer."""

    in_channels: tuple[int, ...]  # one per source layer
    repeats: int = 1  # after depth_multiple
    listed: bool = False  # the yaml has a list of sources, so that the block gets a list of maps
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

    name: str  # in the yaml
    written: Sequence[Any]  # arguments in the yaml
    block: type[nn.Module]
    args: tuple[Any, ...]
    keywords: dict[str, Any]
    out_channels: int
    copies: int

    @property
    def most_parameters(self) -> float:
        """A rough bound of the number of parameters: input times output channels times the largest kernel."""
        if self.args and isinstance(self.args[-1], tuple):  # a head, which reads several layers
            numbers = [sum(self.args[-1]), *(min(n, LARGEST) for n in self.args if isinstance(n, int))]
            return 100.0 * max(numbers) * sum(numbers)
        values = [*self.args, *self.keywords.values()]
        values += [inner for value in values if isinstance(value, list) for inner in value]
        others = [abs(n) for n in values if isinstance(n, int | float)]
        channels = [n for n in (self.args[0] if self.args else 0, self.out_channels) if isinstance(n, int)]
        for known in channels:
            if known in others:
                others.remove(known)
        kernel, factor = sorted([*others, 3.0, 1.0], reverse=True)[:2]
        return 8.0 * float(math.prod(channels)) * kernel**2 * factor**2 * self.copies

    def build(self) -> nn.Module:
        """Construct the block, or a Sequential of several copies.

        Raises:
            ConfigError: the block does not accept its arguments.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of tensors without elements, before they are an error
                return self._build()
        except ConfigError:
            raise
        except MISFITS as error:
            raise _misfit(self.name, self.written, error) from error

    def _build(self) -> nn.Module:
        first = self.block(*self.args, **self.keywords)
        if self.copies == 1:
            return first
        # Copies behind the first read what the first returns.
        takes_width = len(self.args) > 1 and self.args[1] == self.out_channels
        args = (self.out_channels, *self.args[1:]) if takes_width else self.args
        return nn.Sequential(first, *(self.block(*args, **self.keywords) for _ in range(self.copies - 1)))


# What blocks raise on arguments that they cannot use, and layers on maps that do not fit.
MISFITS = (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError)
# Blocks of other projects that are easily taken for ours, and what they are.
_OTHERS = {
    "LSKblock": "the attention of LSKNet, which is not LSKA",
    "LSKBlock": "the attention of LSKNet, which is not LSKA",
    "LSK": "the attention of LSKNet, which is not LSKA",
}
LATER_BLOCKS = ("A2C2f", "C2PSA", "C2f", "C2fAttn", "C2fCIB", "C3k", "C3k2", "PSA", "RepC3", "SCDown")
LATER = "YOLOv8 or a later version, whose blocks and head are not those of YOLOv5"
_MOST_CHANNELS = 2**17  # also of a classifier, whose classes they are
_MOST_KERNEL = 65  # larger numbers in the position of a kernel size are channels
_MOST_R = 32  # and of a reduction


Rule = Callable[[LayerContext, tuple[Any, ...]], BlockPlan]
_BLOCKS: dict[str, tuple[type[nn.Module], Rule]] = {}


def own_order(name: str, args: Sequence[Any], channels: Collection[int] = ()) -> tuple[list[Any], int | None]:
    """Return the arguments of a row in our order, where published code for LSKA has another.

    Published code gives an attention layer its channels first, `LSKA, [1024, 11]`, and a C3 with LSKA its
    kernel size behind the channels, `C3_LSKA, [1024, 11]`. Channels are even and kernel sizes odd, and
    `shortcut` is no number, so that the meaning is certain.

    Args:
        name: of the block.
        args: of the row.
        channels: numbers that are the channels of its input, if they are known.

    Returns:
        The arguments, and the channels that were left out, if any: those before width_multiple is applied.
    """
    args, names = list(args), argument_names(name)
    first = args[0] if args else None
    if names[:1] == ["k"] and is_integer(first) and first % 2 == 0:
        pair = len(args) > 1 and is_integer(args[1]) and args[1] % 2 == 1 and args[1] > 1
        if first > _MOST_KERNEL or pair or first in channels:
            return args[1:], first
    pair = len(args) > 1 and is_integer(args[1])
    if names == ["r", "init"] and is_integer(first) and (pair or (first > _MOST_R and first in channels)):
        return args[1:], first  # `SE, [1024, 16]`
    if names[1:2] == ["shortcut"] and "k" in names and len(args) > 1 and is_integer(args[1]) and args[1] > 1:
        rest = args[2:]
        if not rest or (len(rest) == 1 and isinstance(rest[0], dict)):
            return [first, {"k": args[1], **(rest[0] if rest else {})}], None
    return args, None


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
    return BlockPlan((gain,), c1 * gain ** (2 * layer.repeats), copies=layer.repeats)


def depth_to_space(layer: LayerContext, args: tuple[Any, ...]) -> BlockPlan:
    """Plan Expand: gain squared times fewer channels."""
    c1, gain = _one_source(layer), int(args[0]) if args else 2
    times = gain ** (2 * layer.repeats)
    if c1 % times:
        raise ValueError(f"{c1} channels cannot be divided by {times}")
    return BlockPlan((gain,), c1 // times, copies=layer.repeats)


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


_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
# Rules of blocks whose constructor does not start with the input channels.
_WITHOUT_CHANNELS = (
    *(sum_of_channels, space_to_depth, depth_to_space, any_channels),
    *(detection_head, segmentation_head, whole_classifier),
)


def register(rule: Rule, *blocks: type[nn.Module], **aliases: type[nn.Module]) -> None:
    """Register these classes (and alias=class) as blocks that a yaml can name, with `rule` to plan them."""
    for block in blocks:
        _BLOCKS[block.__name__] = block, rule
    for name, block in aliases.items():
        _BLOCKS[name] = block, rule


def snapshot() -> dict[str, tuple[type[nn.Module], Rule]]:
    """Return all blocks with their rules, for `restore`."""
    return dict(_BLOCKS)


def restore(blocks: Mapping[str, tuple[type[nn.Module], Rule]]) -> None:
    """Register exactly the blocks of a `snapshot`."""
    _BLOCKS.clear()
    _BLOCKS.update(blocks)


def keeps_channels(name: str) -> bool:
    """Return whether a block has as many output as input channels, as attention has."""
    return _BLOCKS[name][1] is same_channels


def registered() -> dict[str, type[nn.Module]]:
    """Return every name that a yaml may use, with its class."""
    return {name: block for name, (block, _) in _BLOCKS.items()}


def argument_names(name: str) -> list[str]:
    """Return the names of the arguments that a yaml row may give a block, in their order.

    Channels and repeats that the rule adds are not among them.
    """
    block, rule = _BLOCKS[name]
    names = [key for key, one in inspect.signature(block).parameters.items() if one.kind not in _VARIABLE]
    if rule in _WITHOUT_CHANNELS:
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
        raise ConfigError(_describe_unknown(name))
    block, rule = _BLOCKS[name]
    own, channels = own_order(name, args, _channels_of_input(layer, args))
    keywords = dict(own.pop()) if own and isinstance(own[-1], dict) else {}
    accepted = inspect.signature(block).parameters
    keywords = {key: value for key, value in layer.keywords.items() if key in accepted} | keywords
    try:
        if channels is not None and _one_source(layer) not in (channels, layer.scale_width(channels)):
            raise ValueError(f"it keeps the channels of its input, {_one_source(layer)}, not {channels}")
        check_arguments(argument_names(name), accepted, own, keywords)
        made = rule(layer, tuple(own))
        if not 1 <= made.out_channels <= _MOST_CHANNELS:
            raise ValueError(f"{made.out_channels} output channels, expected 1 to {_MOST_CHANNELS}")
    except MISFITS as error:
        raise _misfit(name, args, error) from error
    return LayerPlan(name, tuple(args), block, made.args, keywords, made.out_channels, made.copies)


def _channels_of_input(layer: LayerContext, args: Sequence[Any]) -> tuple[int, ...]:
    """Return the first argument if it is the channels of the input, before or after width_multiple."""
    first = args[0] if args else None
    if not is_integer(first) or first % 8 or abs(first) > LARGEST:
        return ()
    return (first,) if {first, layer.scale_width(first)} & {*layer.in_channels} else ()


def _describe_unknown(name: str) -> str:
    if name in _OTHERS:
        return f"{name} is {_OTHERS[name]}; it is not part of this program"
    if name in LATER_BLOCKS:
        return f"{name} is a block of {LATER}"
    folded = {known.lower().replace("_", ""): known for known in _BLOCKS}
    near = difflib.get_close_matches(name.lower().replace("_", ""), folded, n=3, cutoff=0.5)
    hint = f" Did you mean {', '.join(folded[n] for n in near)}?" if near else ""
    return f"no block is called {name!r}.{hint} models/common.py registers blocks."


def _misfit(name: str, args: Sequence[Any], error: Exception) -> ConfigError:
    names = ", ".join(argument_names(name)) if name in _BLOCKS else "not known"
    reason = "too few" if isinstance(error, IndexError) and not args else first_line(error)
    return ConfigError(f"{name}: arguments {list(args)} do not fit ({reason}); they are [{names}]")


def _one_source(layer: LayerContext) -> int:
    if len(layer.in_channels) != 1 or layer.listed:
        count = len(layer.in_channels)
        raise ValueError(f"it reads one layer, not {count if count != 1 else 'a list of one'}")
    return layer.in_channels[0]
