"""Which logging services a run gets: those that are installed and set up, unless `--loggers` says less."""

from __future__ import annotations

import netrc
import os
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from utils.base.errors import ConfigError
from utils.base.log import LOG

Environment = Mapping[str, str]


@dataclass(frozen=True)
class Service:
    """A service that this project knows."""

    key: str  # its word for --loggers, and the stem of its files
    title: str
    package: str  # what has to be installed
    target: str  # module:class, imported in the service's own process
    is_set_up: Callable[[Environment], bool]
    how: str  # to set it up
    flags: tuple[str, ...]  # options that it heeds


def choose(opt: Namespace, environment: Environment = os.environ) -> list[Service]:
    """The services of a run; says in a line each what was asked for in vain.

    Args:
        opt: the options; `loggers` holds `auto`, `none`, or keys of services that may be used.
        environment: variables by which services are set up.

    Raises:
        ConfigError: `loggers` names a service that is not known.
    """
    wanted = wanted_keys(opt.loggers)
    chosen = []
    for kind in SERVICES:
        if kind.key not in wanted:
            continue
        reason = _obstacle(kind, environment)
        if reason is None:
            chosen.append(kind)
        elif "auto" not in wanted:
            LOG.warning(f"--loggers {kind.key}: {reason}")
    _name_idle_flags(opt, chosen)
    return chosen


def wanted_keys(words: str | Sequence[str]) -> set[str]:
    """Keys of the services that may be used; with `auto` all of them, and that word.

    Raises:
        ConfigError: a word is neither `auto`, `none` nor a key.
    """
    words = [words] if isinstance(words, str) else words
    keys = [kind.key for kind in SERVICES]
    for word in words:
        if word not in ("auto", "none", *keys):
            raise ConfigError(f"--loggers {word}: expected auto, none, or some of {' '.join(keys)}")
    if "none" in words:
        return set()
    return {*words, *keys} if "auto" in words else set(words)


def image_interval(opt: Namespace, chosen: Sequence[Service]) -> int:
    """Epochs between images of what the model finds; 0 for none.

    By default ten images are made in all, if a service is there that the user has set up.
    """
    if opt.noplots or not chosen:
        return 0
    if opt.bbox_interval >= 0:
        return int(opt.bbox_interval)
    return max(opt.epochs // 10, 1) if any(kind.key != "tensorboard" for kind in chosen) else 0


def _obstacle(kind: Service, environment: Environment) -> str | None:
    """Why a service cannot be used."""
    # A mere folder of that name, such as the one that wandb writes, is found too, but has no origin.
    spec = find_spec(kind.package)
    if spec is None or spec.origin is None:
        return f"{kind.title} is not installed; pip install {kind.package.replace('_', '-')}"
    return None if kind.is_set_up(environment) else f"{kind.title} is not set up; {kind.how}"


def _name_idle_flags(opt: Namespace, chosen: Sequence[Service]) -> None:
    """Warn of options that no service of this run heeds."""
    for flag in ("entity", "upload_dataset", "bbox_interval", "artifact_alias"):
        users = [kind for kind in SERVICES if flag in kind.flags]
        if flag in opt.given and not any(kind in chosen for kind in users):
            names = ", ".join(kind.title for kind in users)
            LOG.warning(f"--{flag} has no effect: it is for {names}, of which none is in use")


def _always(environment: Environment) -> bool:
    return True


def _wandb(environment: Environment) -> bool:
    mode = environment.get("WANDB_MODE", "").lower()
    if mode == "disabled" or environment.get("WANDB_DISABLED", "").lower() in ("true", "1", "yes"):
        return False
    return mode in ("offline", "dryrun") or bool(environment.get("WANDB_API_KEY")) or _in_netrc(environment)


def _in_netrc(environment: Environment) -> bool:
    """Whether `wandb login` has left a key."""
    hosts = {"api.wandb.ai", "api.forge.coreweave.com"}
    if address := environment.get("WANDB_BASE_URL"):
        hosts = {urlsplit(address).hostname or address}
    try:
        found = netrc.netrc(environment.get("NETRC") or Path.home() / ".netrc").hosts
    except (OSError, RuntimeError, netrc.NetrcParseError):
        return False
    return not hosts.isdisjoint(found)


def _mlflow(environment: Environment) -> bool:
    return bool(environment.get("MLFLOW_TRACKING_URI"))


def _comet(environment: Environment) -> bool:
    names = ("COMET_API_KEY", "COMET_OFFLINE_DIRECTORY")
    if any(environment.get(name) for name in names) or environment.get("COMET_MODE") == "offline":
        return True
    return Path("~/.comet.config").expanduser().is_file()


def _clearml(environment: Environment) -> bool:
    if environment.get("CLEARML_OFFLINE_MODE", "").lower() in ("1", "true", "yes"):
        return True
    keys = ("CLEARML_API_HOST", "CLEARML_API_ACCESS_KEY", "CLEARML_API_SECRET_KEY")
    if all(environment.get(key) for key in keys):
        return True
    return Path(environment.get("CLEARML_CONFIG_FILE") or "~/clearml.conf").expanduser().is_file()


SERVICES = (
    Service(
        "tensorboard",
        "TensorBoard",
        "tensorboard",
        "utils.loggers.tensorboard_logger:TensorBoardLogger",
        _always,
        "",
        ("bbox_interval",),
    ),
    Service(
        "wandb",
        "Weights & Biases",
        "wandb",
        "utils.loggers.wandb_logger:WandbLogger",
        _wandb,
        "run `wandb login`, or set WANDB_API_KEY or WANDB_MODE=offline",
        ("entity", "upload_dataset", "bbox_interval", "artifact_alias"),
    ),
    Service(
        "clearml",
        "ClearML",
        "clearml",
        "utils.loggers.clearml_logger:ClearMLLogger",
        _clearml,
        "run `clearml-init`, or set CLEARML_API_HOST with its keys or CLEARML_OFFLINE_MODE=1",
        ("upload_dataset", "bbox_interval", "artifact_alias"),
    ),
    Service(
        "comet",
        "Comet",
        "comet_ml",
        "utils.loggers.comet_logger:CometLogger",
        _comet,
        "run `comet login`, or set COMET_API_KEY or COMET_OFFLINE_DIRECTORY",
        ("entity", "upload_dataset", "bbox_interval", "artifact_alias"),
    ),
    Service(
        "mlflow",
        "MLflow",
        "mlflow",
        "utils.loggers.mlflow_logger:MLflowLogger",
        _mlflow,
        "set MLFLOW_TRACKING_URI",
        ("bbox_interval",),
    ),
)
