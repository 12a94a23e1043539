"""Model yamls: find and read them, check their rows, change their attention blocks (--attention)."""

from __future__ import annotations

import ast
import difflib
import math
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from models import registry
from models.attention.gates import GATES
from models.attention.lska import default_dilation, kernel_of
from utils.base.errors import ConfigError
from utils.base.inputs import expand_user
from utils.base.limits import LAYERS
from utils.base.log import LOG
from utils.base.paths import ROOT, find_file
from utils.base.yaml_io import read_yaml

SUFFIXES = (".yaml", ".yml")
_MOST = 10**7  # classes or channels; what is built has limits of its own
MULTIPLES = ("depth_multiple", "width_multiple")
SCALES = {"n": (0.33, 0.25), "s": (0.33, 0.5), "m": (0.67, 0.75), "l": (1.0, 1.0), "x": (1.33, 1.25)}
_SCALED = ("lska", "segment", "classify")  # folders below models/ whose files serve all scales
_SCALED_NAME = re.compile(r"yolov5([nsmlx])(-.+\.ya?ml)")
_ACTIVATIONS: dict[str, type[nn.Module]] = {
    block.__name__: block
    for block in (
        *(nn.SiLU, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Hardswish, nn.Mish, nn.GELU, nn.ELU, nn.CELU),
        *(nn.SELU, nn.PReLU, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Identity),
    )
}
_KEYS = {"nc", "ch", "anchors", "backbone", "head", "depth_multiple", "width_multiple", "channel_multiple"}
_KEYS |= {"activation", "csp_activation", "inplace", "init", "yaml_file", "blocks"}
_WORD = re.compile(r"[A-Za-z_][\w.\-]*")
_CALL = re.compile(r"(?:torch\.)?nn\.(\w+)(?:\((.*)\))?")


@dataclass(frozen=True)
class LayerRow:
    """One row of a model yaml, checked."""

    index: int
    sources: tuple[int, ...]  # absolute layer indices; -1 is the image
    yaml_from: int | list[int]  # `from`, as the yaml has it
    repeats: int  # after depth_multiple
    name: str
    args: list[Any]


def read_config(cfg: str | Path | dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Read a model yaml from its path or, by bare name, from below models/.

    The files of models/lska, models/segment and models/classify serve all scales: `yolov5s-SPPFLSKA.yaml`,
    where no file has that name, is `yolov5n-SPPFLSKA.yaml` with the multiples of scale s. Files of attention
    for other tasks are of scale s: scripts take all yolov5n-*LSKA files for detectors.

    Args:
        cfg: path or bare name; content that is read already is copied.

    Returns:
        The content, and the file name as given.

    Raises:
        ConfigError: there is no such file, or it is not valid yaml.
    """
    if isinstance(cfg, dict):
        return deepcopy(cfg), str(cfg.get("yaml_file", ""))
    path = expand_user(cfg)
    scaled = _SCALED_NAME.fullmatch(path.name)
    if scaled and not _files(path):
        others = (path.with_name(f"yolov5{scale}{scaled[2]}") for scale in SCALES)
        for file in (file for other in others for file in _files(other)):
            if _serves_all_scales(file):
                return read_yaml(file) | dict(zip(MULTIPLES, SCALES[scaled[1]], strict=True)), path.name
    found = find_file(cfg, ("models",), SUFFIXES, "--cfg", also=_scaled_names)
    return read_yaml(found), found.name


def config_names() -> list[str]:
    """Return every bare name that `read_config` finds below models/, at all scales."""
    return sorted({*(file.name for file in _all_files() if file.stem != "anchors"), *_scaled_names()})


def _scaled_names() -> list[str]:
    """Return names such as yolov5s-SPPFLSKA.yaml, which stand for yolov5n-SPPFLSKA.yaml at another scale."""
    names = [file.name[len("yolov5n") :] for file in _all_files() if _serves_all_scales(file)]
    return [f"yolov5{scale}{name}" for name in dict.fromkeys(names) for scale in SCALES]


def _all_files() -> list[Path]:
    return [file for suffix in SUFFIXES for file in (ROOT / "models").rglob(f"*{suffix}")]


def _files(path: Path) -> list[Path]:
    """Return the files that a path or bare name may mean."""
    below = [file for file in _all_files() if file.name == path.name] if path.parent == Path() else []
    return [file for file in (path, ROOT / path, *below) if file.is_file()]


def _serves_all_scales(file: Path) -> bool:
    folder = file.resolve().parent
    scaled = _SCALED_NAME.fullmatch(file.name) is not None
    return scaled and folder.parent == ROOT / "models" and folder.name in _SCALED


def make_divisible(value: float, divisor: int = 8) -> int:
    """Round up to a multiple of `divisor`."""
    return math.ceil(value / divisor) * divisor


def read_rows(d: dict[str, Any], origin: str = "model yaml") -> list[LayerRow]:
    """Check the rows of `backbone` and `head`, and resolve their sources, repeats and words.

    Raises:
        ConfigError: a key is missing, or a row is not [from, number, module, args]; names the layer.
    """
    _check_version(d, origin)
    for key in ("nc", "anchors", "backbone", "head"):
        if key == "anchors" and "anchors" not in str(d.get("head")):  # only heads that detect need them
            continue
        if key not in d:
            raise ConfigError(f"{origin}: key '{key}' is missing")
        if key in ("backbone", "head") and not isinstance(d[key], list):
            raise ConfigError(
                f"{origin}: {key}: expected rows [from, number, module, args], found {d[key]!r:.60}"
            )
    _check_numbers(d, origin)
    depth = float(d.get("depth_multiple", 1.0))
    words = {"nc": d["nc"], "anchors": d.get("anchors")}
    rows = []
    for index, row in enumerate([*d["backbone"], *d["head"]]):
        where = f"{origin}: layer {index}"
        if not isinstance(row, list | tuple) or len(row) != 4:
            raise ConfigError(f"{where}: expected [from, number, module, args], found {row}")
        written, number, name, args = row
        if not isinstance(number, int) or number < 1 or not isinstance(name, str):
            raise ConfigError(f"{where}: number {number!r} must be at least 1 and module {name!r} a name")
        LAYERS.check(number, where)
        try:
            args = [read_word(value, words) for value in (args if isinstance(args, list) else [args])]
        except ConfigError as error:
            raise ConfigError(f"{where} ({name}): {error}") from error
        repeats = max(round(number * depth), 1) if number > 1 else number
        name = name.removeprefix("torch.").removeprefix("nn.")
        rows.append(LayerRow(index, _sources(written, index, where), written, repeats, name, args))
    return rows


def _check_version(d: dict[str, Any], origin: str) -> None:
    """Raise ConfigError for a yaml of a later YOLO, which has other keys and blocks."""
    listed = (d.get(part) for part in ("backbone", "head"))
    rows = [row for part in listed if isinstance(part, list) for row in part]
    names = {row[2] for row in rows if isinstance(row, list) and len(row) == 4 and isinstance(row[2], str)}
    found = ["scales"] if "scales" in d else sorted(names & {*registry.LATER_BLOCKS})
    if found and "anchors" not in d:
        raise ConfigError(
            f"{origin}: a model of {registry.LATER} (it has {found[0]}); take a yaml of YOLOv5, such as "
            "yolov5n.yaml"
        )


def words_of(rows: Sequence[LayerRow]) -> set[str]:
    """Return the names of the blocks of rows, and all words among their arguments, such as designs."""
    values = [value for row in rows for value in row.args]
    nested = [inner for value in values if isinstance(value, dict) for inner in value.values()]
    return {*(row.name for row in rows), *(word for word in (*values, *nested) if isinstance(word, str))}


def warn_about_unread(rows: Sequence[LayerRow], origin: str) -> None:
    """Warn about layers whose output no layer reads: an inserted row shifts the numbers of those after it."""
    read = {source for row in rows for source in row.sources}
    for row in rows[:-1]:
        if row.index not in read:
            LOG.warning(
                f"{origin}: no layer reads the output of layer {row.index} ({row.name}); if a row has been "
                "inserted, add 1 to the numbers in `from` of the layers behind it, also of Detect"
            )


def _check_numbers(d: dict[str, Any], origin: str) -> None:
    """Reject sizes that no model can have; warn about unknown keys, which may be misspelled."""
    for key in d.keys() - _KEYS:
        near = difflib.get_close_matches(str(key), _KEYS, n=1)
        LOG.warning(f"{origin}: key '{key}' is ignored{f'; did you mean {near[0]}?' if near else ''}")
    for key in ("nc", "channel_multiple", "ch"):
        value = d.get(key, 1)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MOST:
            raise ConfigError(f"{origin}: {key} is {value!r:.40}; expected an integer from 1 to {_MOST}")
    for key in ("depth_multiple", "width_multiple"):
        value = d.get(key, 1.0)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 100:
            raise ConfigError(f"{origin}: {key} is {value!r}; expected a number above 0, such as 0.33")


def _sources(written: int | list[int], index: int, where: str) -> tuple[int, ...]:
    listed = written if isinstance(written, list) else [written]
    sources = []
    for source in listed:
        if not isinstance(source, int):
            raise ConfigError(f"{where}: 'from' must be a layer number or a list of them, found {written!r}")
        absolute = index + source if source < 0 else source
        if absolute >= index or (absolute < 0 and index > 0) or absolute < -1:
            raise ConfigError(f"{where} reads from layer {source}, but only 0 to {index - 1} come before it")
        sources.append(absolute)
    return tuple(sources)


def read_word(value: Any, words: dict[str, Any]) -> Any:
    """Convert an argument of a yaml row into a value, without evaluating code.

    Numbers stay as they are; text may be a known word (nc, anchors), True, False, None, a quoted
    literal, an activation such as nn.SiLU(), or a plain name such as nearest. Lists and mappings are
    converted element by element.

    Raises:
        ConfigError: text that is none of these.
    """
    if isinstance(value, list):
        return [read_word(item, words) for item in value]
    if isinstance(value, dict):
        return {key: read_word(item, words) for key, item in value.items()}
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text in words:
        return words[text]
    if _CALL.fullmatch(text):
        return read_activation(text)
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        pass
    if _WORD.fullmatch(text):
        return text
    raise ConfigError(
        f"argument {value!r} is neither a number, True, False, None, nc, anchors, an activation nor a name"
    )


def read_activation(text: str) -> nn.Module:
    """Make a known activation from text such as `nn.LeakyReLU(0.1)`.

    Raises:
        ConfigError: the activation is unknown, or its arguments are not literals that it accepts.
    """
    match = _CALL.fullmatch(text.strip())
    name, inside = match.groups() if match else (text, None)
    if not match or name not in _ACTIVATIONS:
        raise ConfigError(f"activation {text!r} is not one of nn.{', nn.'.join(_ACTIVATIONS)}")
    positional: list[Any] = []
    keywords: dict[str, Any] = {}
    try:
        for part in filter(None, (p.strip() for p in (inside or "").split(","))):
            key, equals, literal = part.rpartition("=")
            if equals:
                keywords[key.strip()] = ast.literal_eval(literal.strip())
            else:
                positional.append(ast.literal_eval(part))
        return _ACTIVATIONS[name](*positional, **keywords)
    except (ValueError, SyntaxError, TypeError) as error:
        raise ConfigError(f"activation {text!r}: its arguments do not fit ({error})") from error


# Settings of --attention, with their types.
SETTINGS = {"k": int, "dilation": int, "init": str, "design": str, "r": int}


def parse_settings(words: Sequence[str], flag: str = "--attention") -> dict[str, Any]:
    """Parse `["k=23", "design=LKA"]` or `["k=23,design=LKA"]` into a dict.

    Raises:
        ConfigError: an unknown key, or a value of the wrong type.
    """
    settings: dict[str, Any] = {}
    for word in (part for text in words for part in text.split(",") if part):
        key, _, value = word.partition("=")
        if key not in SETTINGS or not value:
            raise ConfigError(f"{flag} {word}: expected k=, dilation=, init=, design= or r= and a value")
        try:
            settings[key] = SETTINGS[key](value)
        except ValueError as error:
            raise ConfigError(f"{flag} {word}: expected an integer such as {key}=23") from error
    if "design" in settings and settings["design"] not in GATES:
        raise ConfigError(f"{flag} design={settings['design']}: expected one of {', '.join(GATES)}")
    return settings


def with_attention(config: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a model yaml's content with other arguments for all attention blocks.

    Args:
        config: content of the yaml.
        settings: new values of k, dilation, init, design or r; others stay.

    Raises:
        ConfigError: the model has no attention block.
    """
    changed = deepcopy(dict(config))
    changed_rows = 0
    for row in (*(changed.get("backbone") or ()), *(changed.get("head") or ())):
        if isinstance(row, list) and len(row) == 4 and _is_attention(row[2]):
            row[2], row[3] = _rewrite(row[2], row[3], settings)
            changed_rows += 1
    if settings and not changed_rows:
        name = config.get("yaml_file") or "the model"
        raise ConfigError(f"--attention: {name} has no attention block to change")
    return changed


def with_kernels(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return a copy of a model yaml's content with the kernel sizes of the weights.

    Published code for LSKA has other defaults than ours, or its kernel size stands in the code.

    Args:
        config: content of the yaml of a checkpoint that others wrote.
        state: its tensors by key.
    """
    changed = deepcopy(dict(config))
    rows = [row for part in ("backbone", "head") for row in changed.get(part) or ()]
    for index, row in enumerate(rows):
        if isinstance(row, list) and len(row) == 4 and _has_kernel(row[2]):
            found = kernel_of(state, f"model.{index}.")
            if found is not None:
                k, dilation = found
                settings = (
                    {"k": k} if dilation in (None, default_dilation(k)) else {"k": k, "dilation": dilation}
                )
                row[2], row[3] = _rewrite(row[2], row[3], settings)
    return changed


def _is_attention(name: Any) -> bool:
    block = registry.registered().get(name) if isinstance(name, str) else None
    return block is not None and (name in GATES or "design" in registry.argument_names(name))


def _has_kernel(name: Any) -> bool:
    return _is_attention(name) and not {"k", "kernel"}.isdisjoint(registry.argument_names(name))


def _rewrite(name: str, args: Any, settings: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """Return the new module and arguments of a row.

    A setting replaces a positional argument where the row has one, else it becomes a keyword. Another design
    keeps the arguments that it has as well.
    """
    args = list(args) if isinstance(args, list) else [args]
    keywords = dict(args.pop()) if args and isinstance(args[-1], dict) else {}
    args, channels = registry.own_order(name, args)
    keywords |= args.pop() if args and isinstance(args[-1], dict) else {}
    settings = dict(settings)
    if name in GATES and (design := settings.pop("design", name)) != name:
        old, accepted = registry.argument_names(name), registry.argument_names(design)
        if accepted != old:
            named = dict(zip(old, args, strict=False)) | keywords
            args, keywords = [], {key: value for key, value in named.items() if key in accepted}
        name = design
    names = registry.argument_names(name)
    for key, value in settings.items():
        # SPPFLSKA calls its gate's kernel `kernel`, because `k` is the pooling kernel, as in SPPF.
        key = "kernel" if key == "k" and "kernel" in names else key
        if key not in names:
            raise ConfigError(f"--attention {key}={value}: {name} has no argument {key}")
        if names.index(key) < len(args):
            args[names.index(key)] = value
        else:
            keywords[key] = value
    if channels is not None and names[:1] in (["k"], ["r"]):
        args = [channels, *args]  # they are checked when the layer is built
    return name, [*args, keywords] if keywords else args
