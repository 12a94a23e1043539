"""Check the arguments of a row of a model yaml by type and range, before its block is built."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeGuard

from utils.base.limits import LAYERS

LARGEST = 10**7  # of any number; what is built has limits of its own
_MOST_IN_LIST = 100


def is_integer(value: Any) -> TypeGuard[int]:
    """Return whether a value is an integer, and not True or False."""
    return isinstance(value, int) and not isinstance(value, bool)


# Types of arguments, as the blocks of models/ annotate them. YOLOv5 accepts 0 and 1 for False and True.
_TYPES: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    "bool": ("True or False", lambda value: is_plain(value) and value in (True, False)),
    "int": ("an integer", is_integer),
    "int | None": ("an integer or None", lambda value: value is None or is_integer(value)),
    "float": ("a number", lambda value: isinstance(value, int | float) and not isinstance(value, bool)),
    "str": ("a word", lambda value: isinstance(value, str)),
}
# What the blocks of torch and of models/ mean by these names, with the least value.
_SIZES = {
    **dict.fromkeys(("c2", "out_channels", "k", "kernel", "kernel_size", "s", "stride", "d", "dilation"), 1),
    **dict.fromkeys(("g", "groups", "n", "heads", "layers", "patch", "r", "gain", "size"), 1),
    **dict.fromkeys(("p", "padding", "output_padding"), 0),
}
_COUNTS = ("n", "layers", "heads")
_FLAGS = (
    *("bias", "inplace", "affine", "track_running_stats", "align_corners", "recompute_scale_factor"),
    *("ceil_mode", "count_include_pad"),
)
_POSITIVE = ("e", "eps", "ratio", "scale_factor")
_FRACTIONS = ("momentum", "drop_path", "dropout_p")  # and p of a dropout
_WITHOUT = ("device", "dtype", "return_indices", "padding_mode", "divisor_override")  # never in a yaml


def is_plain(value: Any) -> bool:
    """Return whether a value can be compared with numbers."""
    return isinstance(value, bool | int | float)


def check_arguments(
    names: Sequence[str],
    parameters: Mapping[str, inspect.Parameter],
    positional: Sequence[Any],
    keywords: Mapping[str, Any],
) -> None:
    """Check the number, names, types and ranges of the arguments of a row.

    Args:
        names: of the arguments that a row may give.
        parameters: of the constructor.
        positional: arguments of the row.
        keywords: arguments that the row gives by name.

    Raises:
        TypeError: the message names the argument.
        DataError: more layers than the limit.
    """
    kinds = {one.kind for one in parameters.values()}
    if len(positional) > len(names) and inspect.Parameter.VAR_POSITIONAL not in kinds:
        raise TypeError(f"{len(positional)} arguments, expected at most {len(names)}")
    unknown = [key for key in keywords if key not in names]
    if unknown and inspect.Parameter.VAR_KEYWORD not in kinds:
        raise TypeError(f"there is no argument {unknown[0]}")
    further = [f"argument {number}" for number in range(len(names), len(positional))]
    for key, value in [*zip([*names, *further], positional, strict=False), *keywords.items()]:
        parameter = parameters.get(key)
        _check_type(key, value, parameter)
        for number in _numbers(value, key) if key != "anchors" else ():  # the head checks those
            if not math.isfinite(number) or abs(number) > LARGEST:
                raise TypeError(f"{key} is {str(value):.40}, expected numbers up to {LARGEST}")
        if key == "p" and parameter is not None and parameter.annotation is float:
            _check(key, value, "a number from 0 to 1", is_plain(value) and 0 <= value <= 1)
        elif not (parameter is not None and _is_default(value, parameter)):
            _check_range(key, value)


def _is_default(value: Any, parameter: inspect.Parameter) -> bool:
    return value is None and parameter.default is None


def _check_type(key: str, value: Any, parameter: inspect.Parameter | None) -> None:
    kind = parameter.annotation if parameter is not None else None
    if isinstance(kind, str) and kind in _TYPES:
        expected, accepts = _TYPES[kind]
        _check(key, value, expected, accepts(value))


def _check_range(key: str, value: Any) -> None:
    if key in _WITHOUT:
        raise TypeError(f"{key} cannot be set in a yaml")
    if key in _SIZES:
        least = _SIZES[key]
        fits = all(is_integer(size) and size >= least for size in _flat(value))
        _check(key, value, f"an integer of at least {least}", fits and value != [])
        if key in _COUNTS:
            LAYERS.check(max(_flat(value)), key)
    elif key in _FLAGS:
        _check(key, value, "True or False", is_plain(value) and value in (True, False))
    elif key in _POSITIVE:
        _check(key, value, "a number above 0", all(is_plain(one) and one > 0 for one in _flat(value)))
    elif key in _FRACTIONS:
        fits = all(is_plain(one) and 0 <= one <= 1 for one in _flat(value))
        _check(key, value, "a probability, a number from 0 to 1", fits)


def _check(key: str, value: Any, expected: str, fits: bool) -> None:
    if not fits:
        raise TypeError(f"{key} is {value!r:.60}, expected {expected}")


def _flat(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _numbers(value: Any, key: str) -> Iterator[float]:
    """Yield the numbers of an argument, which may be a list."""
    if isinstance(value, list | tuple):
        if len(value) > _MOST_IN_LIST:
            raise TypeError(f"{key} has {len(value)} values, expected at most {_MOST_IN_LIST}")
        for one in value:
            yield from _numbers(one, key)
    elif isinstance(value, int) and abs(value) > LARGEST:
        yield math.inf  # isfinite fails on integers that no float can hold
    elif isinstance(value, int | float):
        yield value
