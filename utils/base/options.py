"""Options of an entry point: a frozen dataclass whose fields are the only source of its flags.

Each field is made by `flag`, which holds its default, its help text and the values that it accepts. The
command line (`build_parser`, `parse_options`), the keywords of `run(**kwargs)` (`options_from`) and the
checks (`Options.__post_init__`) are derived from the fields, so that a flag is written down once.

    @dataclass(frozen=True)
    class DetectOptions(Options):
        prog, description = "detect.py", "Detect objects in images, videos and streams."
        conf_thres: float = flag(0.25, "confidence threshold", between=(0, 1))

    options = parse_options(DetectOptions)
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from types import NoneType, UnionType
from typing import Any, ClassVar, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from utils.base.errors import ConfigError
from utils.base.script import parser

BLOCKS_HELP = "Python file with blocks of your own; it is run, so give only a file that you trust"


@dataclass(frozen=True)
class Options:
    """Base class of all options. Values are converted to the types of their fields and checked.

    Raises:
        ConfigError: a value of another type, outside its range, or not among its choices.
    """

    prog: ClassVar[str] = ""  # the script, as `--help` and errors name it
    description: ClassVar[str] = ""  # what the script does, for `--help`

    hidden: ClassVar[tuple[str, ...]] = ()  # inherited fields that are no flags of this script

    # Names of the options that were given, on the command line or as keywords, rather than left at defaults.
    given: tuple[str, ...] = field(default=(), kw_only=True, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Convert and check every value."""
        for name, spec in _specs(type(self)).items():
            value = _converted(getattr(self, name), spec)
            object.__setattr__(self, name, value)
            if spec.choices:
                words = value if isinstance(value, list) else [] if value is None else [value]
                fine = all(word in spec.choices for word in words)
                self.require(name, fine, f"one of {', '.join(map(str, spec.choices))}")
            if spec.between is not None:
                self.require(name, _is_between(value, *spec.between), _range_text(spec))
        self.check()

    def check(self) -> None:
        """Check what concerns several options at once; subclasses override it."""

    def require(self, name: str, holds: bool, expected: str) -> None:
        """Raise ConfigError for option `name` unless `holds`; `expected` says which values are accepted."""
        if not holds:
            value = getattr(self, name)
            text = " ".join(map(str, value)) if isinstance(value, list | tuple) else value
            raise ConfigError(f"{flag_of(type(self), name)} {text}: expected {expected}")

    def as_dict(self) -> dict[str, Any]:
        """Return the values by name, for the log and opt.yaml."""
        return {name: getattr(self, name) for name in _specs(type(self))}


AnyOptions = TypeVar("AnyOptions", bound=Options)


def flag(
    default: Any = MISSING,
    help: str = "",  # noqa: A002 - the name that argparse has
    *,
    factory: Callable[[], Any] | None = None,
    group: str = "options",
    aliases: Sequence[str] = (),
    spelled: str = "",
    const: Any = None,
    choices: Sequence[Any] = (),
    between: tuple[float | None, float | None] | None = None,
    expected: str = "",
    metavar: str | None = None,
) -> Any:
    """Declare a field of `Options` that is a flag of the command line.

    Args:
        default: value where the flag is not given; lists are copied. Without one the flag is required.
        help: text for `--help`.
        factory: makes a default that depends on the current folder or environment.
        group: heading under which `--help` lists the flag.
        aliases: further spellings such as `--img`.
        spelled: the flag where it is not `--` and the name with dashes, such as `--local_rank`; the name
            itself makes a positional argument.
        const: value of a flag that is given without a value.
        choices: accepted values.
        between: least and greatest accepted value, both inclusive; None leaves an end open. Lists are
            checked by element.
        expected: the range in words, for error messages.
        metavar: name of the value in `--help`.
    """
    if isinstance(default, list):
        items = list(default)
        factory = factory or (lambda: list(items))
    metadata = {
        "help": help, "group": group, "aliases": tuple(aliases), "spelled": spelled, "const": const,
        "choices": tuple(choices), "between": between, "expected": expected, "metavar": metavar,
    }  # fmt: skip
    if factory is not None:
        return field(default_factory=factory, metadata=metadata)
    return field(default=default, metadata=metadata)


def build_parser(cls: type[Options], *, allow_abbrev: bool = True) -> argparse.ArgumentParser:
    """Make the parser of a dataclass of options; unique prefixes such as `--batch 8` are accepted."""
    result = parser(cls.description, prog=cls.prog)
    result.allow_abbrev = allow_abbrev
    groups: dict[str, Any] = {"options": result}  # the group that argparse has itself
    for name, spec in _specs(cls).items():
        if spec.group not in groups:
            groups[spec.group] = result.add_argument_group(spec.group)
        groups[spec.group].add_argument(*spec.flags, **_argparse_keywords(name, spec))
    return result


def parse_options(cls: type[AnyOptions], argv: Sequence[str] | None = None) -> AnyOptions:
    """Parse a command line. Argparse ends the process with status 2 where it is not valid.

    Raises:
        ConfigError: values that are valid each, but not accepted.
    """
    return _with_given(cls, build_parser(cls).parse_args, argv)


def parse_known_options(
    cls: type[AnyOptions], argv: Sequence[str] | None = None
) -> tuple[AnyOptions, list[str]]:
    """Parse the flags of `cls` and return the arguments that are not among them as they are."""
    result = build_parser(cls, allow_abbrev=False)
    _, rest = result.parse_known_args(argv)
    return _with_given(cls, lambda args, space=None: result.parse_known_args(args, space)[0], argv), rest


def options_from(cls: type[AnyOptions], keywords: dict[str, Any]) -> AnyOptions:
    """Make options from keywords: names of fields, or aliases such as `img`; others keep their defaults.

    Raises:
        ConfigError: no option has that name, or a value is not accepted.
    """
    known = _keywords(cls)
    values = {}
    for key, value in keywords.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=3)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise ConfigError(
                f"{cls.prog.removeprefix('-m ').removesuffix('.py')}.run() has no option {key!r}{hint}"
            )
        values[known[key]] = value
    return cls(**values, given=tuple(values))


def known_keywords(cls: type[Options], keywords: dict[str, Any]) -> dict[str, Any]:
    """Return those of `keywords` that name an option; its own name is preferred to another flag."""
    known = _keywords(cls)
    return {
        key: value
        for key, value in keywords.items()
        if key in known and (key == known[key] or known[key] not in keywords)
    }


def _keywords(cls: type[Options]) -> dict[str, str]:
    """Return the field that each keyword sets: its name, and its other flags with underscores."""
    flags = {
        alias.lstrip("-").replace("-", "_"): name for name, s in _specs(cls).items() for alias in s.flags
    }
    return {name: name for name in _specs(cls)} | flags


def changed(options: AnyOptions, **values: Any) -> AnyOptions:
    """Return a copy of `options` with other values, converted and checked again."""
    return replace(options, **values)


def flag_of(cls: type[Options], name: str) -> str:
    """Return the flag of a field, as the command line spells it: `batch_size` -> `--batch-size`."""
    return _specs(cls)[name].flags[0]


def to_flags(options: Options, names: Iterable[str]) -> list[str]:
    """Return the arguments of a command line that gives these options their present values."""
    chosen, words = set(names), []
    for name, spec in _specs(type(options)).items():
        value = getattr(options, name)
        if name not in chosen or value is None or value is False:
            continue
        if value is True or (spec.const is not None and value == spec.const):
            words.append(spec.flags[0])
        elif isinstance(value, list | tuple):
            words += [spec.flags[0], *map(str, value)] if value else []
        else:
            words.append(f"{spec.flags[0]}={value}")  # in one argument, as the value may start with a dash
    return words


class _Spec(NamedTuple):
    """One flag: what `flag` was given, and the type of the field."""

    flags: tuple[str, ...]
    kind: Any  # bool, int, float or str; of each element where there are several
    many: bool  # a list or a pair
    pair: bool  # (height, width), given as one or two numbers
    optional: bool  # None is accepted
    default: Any
    help: str
    group: str
    const: Any
    choices: tuple[Any, ...]
    between: tuple[float | None, float | None] | None
    expected: str
    metavar: str | None


_KNOWN: dict[type[Options], dict[str, _Spec]] = {}  # as functools.cache, which mypy refuses for classes


def _specs(cls: type[Options]) -> dict[str, _Spec]:
    """Return the flags of a dataclass by name, in the order of its fields."""
    if cls not in _KNOWN:
        hints = get_type_hints(cls)
        _KNOWN[cls] = {
            item.name: _spec(item, hints[item.name])
            for item in fields(cls)
            if "help" in item.metadata and item.name not in cls.hidden
        }
    return _KNOWN[cls]


def _spec(item: Field[Any], hint: Any) -> _Spec:
    about = item.metadata
    union = get_args(hint) if get_origin(hint) in (UnionType, Union) else (hint,)
    optional = NoneType in union
    kinds = [one for one in union if one is not NoneType]
    # `str | bool` is text or a switch, `str | dict` a file or its content: the flag has the text.
    single = next((one for one in kinds if one is not bool), bool)
    many = get_origin(single) in (list, tuple)
    kind = get_args(single)[0] if many else single
    spelled = about["spelled"] or "--" + item.name.replace("_", "-")
    default = item.default_factory if item.default is MISSING else item.default
    return _Spec(
        (spelled, *about["aliases"]), kind, many, get_origin(single) is tuple, optional, default,
        about["help"], about["group"], about["const"], about["choices"], about["between"],
        about["expected"], about["metavar"],
    )  # fmt: skip


def _argparse_keywords(name: str, spec: _Spec) -> dict[str, Any]:
    default = spec.default() if callable(spec.default) else spec.default
    words: dict[str, Any] = {"help": spec.help, "default": default}
    if spec.flags[0].startswith("-"):
        words["dest"] = name
    if default is MISSING:
        words |= {"default": argparse.SUPPRESS, "required": True} if "dest" in words else {"default": None}
    if spec.kind is bool:
        return {**words, "action": "store_true"}
    if spec.choices:
        words["choices"] = spec.choices
    if spec.metavar:
        words["metavar"] = spec.metavar
    if spec.many:
        words["nargs"] = "+"
    elif spec.const is not None:
        words |= {"nargs": "?", "const": spec.const}
    return {**words, "type": spec.kind}


def _with_given(cls: type[AnyOptions], parse: Callable[..., Any], argv: Sequence[str] | None) -> AnyOptions:
    """Parse twice: argparse leaves values of a namespace alone unless the command line has the flag."""
    values = vars(parse(argv))
    absent = object()
    seen = vars(parse(argv, argparse.Namespace(**dict.fromkeys(values, absent))))
    return cls(**values, given=tuple(name for name, value in seen.items() if value is not absent))


def _converted(value: Any, spec: _Spec) -> Any:
    """Convert a value to its field's type; one value becomes a list where a list is expected."""
    if value is None and spec.optional:
        return None
    if value is None and spec.many and not spec.pair:
        return []
    if spec.pair:
        return height_width(value, spec.flags[0])
    if spec.many:
        items = list(value) if isinstance(value, Iterable) and not isinstance(value, str) else [value]
        return [_one(item, spec) for item in items]
    return _one(value, spec)


def _one(value: Any, spec: _Spec) -> Any:
    if isinstance(value, bool | dict):
        return value
    try:
        if value is None or (spec.kind is bool and value not in (0, 1)):
            raise ValueError("not a value of this option")
        if spec.kind is int and isinstance(value, float) and not value.is_integer():
            raise ValueError("int() would drop its fraction")
        return spec.kind(value) if spec.kind in (bool, int, float, str) else value
    except (TypeError, ValueError) as error:
        expected = {bool: "True or False", int: "an integer", float: "a number"}.get(spec.kind, "text")
        raise ConfigError(f"{spec.flags[0]} {value}: expected {expected}") from error


def height_width(imgsz: Any, flag: str = "--imgsz") -> tuple[int, int]:
    """Return the (height, width) of an image, given as one or two numbers.

    Raises:
        ConfigError: neither.
    """
    try:
        several = isinstance(imgsz, Iterable) and not isinstance(imgsz, str)
        sides = [int(side) for side in (imgsz if several else [imgsz])]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{flag} {imgsz}: expected one or two sizes in pixels (h w)") from error
    if len(sides) not in (1, 2) or min(sides) < 1:
        raise ConfigError(f"{flag} {' '.join(map(str, sides))}: expected one or two sizes in pixels (h w)")
    return sides[0], sides[-1]


def _is_between(value: Any, low: float | None, high: float | None) -> bool:
    values = value if isinstance(value, list | tuple) else [] if value is None else [value]
    return all((low is None or low <= one) and (high is None or one <= high) for one in values)


def _range_text(spec: _Spec) -> str:
    assert spec.between is not None
    low, high = spec.between
    if spec.expected:
        return spec.expected
    kind = "an integer" if spec.kind is int else "a number"
    return f"{kind} of at least {low}" if high is None else f"{kind} from {low} to {high}"
