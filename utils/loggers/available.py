"""The supported logging services, and which of them a run uses: those installed and configured."""

from __future__ import annotations

import netrc
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from utils.base.errors import ConfigError
from utils.base.inputs import expand_user
from utils.base.log import LOG

Environment = Mapping[str, str]
IMAGES_PER_RUN = 10  # times that predictions are drawn by default


@dataclass(frozen=True)
class Service:
    """A logging service that is supported.

    Attributes:
        key: value of `--loggers`, and stem of the service's files in the run folder.
        title: name of the service.
        package: Python package that has to be installed.
        logger: `module:class` of its logger, which is imported in the logger process only.
        is_configured: whether environment variables or files of an account configure it.
        how_to: how to configure it.
        flags: options of train.py that it uses.
    """

    key: str
    title: str
    package: str
    logger: str
    is_configured: Callable[[Environment], bool]
    how_to: str
    flags: tuple[str, ...]


def choose(opt: Any, environment: Environment = os.environ) -> list[Service]:
    """Return the services that a run uses; warn about requested ones that cannot be used.

    Args:
        opt: options of train.py; `loggers` contains `auto`, `none` or keys of services.
        environment: environment variables that configure services.

    Raises:
        ConfigError: `loggers` contains an unknown service.
    """
    wanted = wanted_keys(opt.loggers)
    chosen = []
    for service in SERVICES:
        if service.key not in wanted:
            continue
        problem = _problem(service, environment)
        if problem is None:
            chosen.append(service)
        elif "auto" not in wanted:
            LOG.warning(f"--loggers {service.key}: {problem}")
    _warn_of_unused_flags(opt, chosen)
    return chosen


def wanted_keys(words: str | Sequence[str]) -> set[str]:
    """Return the keys of the services that `--loggers` admits; `auto` admits all and is returned, too.

    Raises:
        ConfigError: a word is neither `auto`, `none` nor a key.
    """
    words = [words] if isinstance(words, str) else words
    keys = [service.key for service in SERVICES]
    for word in words:
        if word not in ("auto", "none", *keys):
            raise ConfigError(f"--loggers {word}: expected auto, none, or some of {' '.join(keys)}")
    if "none" in words:
        return set()
    return {*words, *keys} if "auto" in words else set(words)


def image_interval(opt: Any, chosen: Sequence[Service]) -> int:
    """Return the number of epochs between images of predictions; 0 for none.

    By default, `IMAGES_PER_RUN` are drawn if a service other than TensorBoard is used.
    """
    if opt.noplots or not chosen:
        return 0
    if opt.bbox_interval >= 0:
        return int(opt.bbox_interval)
    others = any(service.key != "tensorboard" for service in chosen)
    return max(opt.epochs // IMAGES_PER_RUN, 1) if others else 0


def _problem(service: Service, environment: Environment) -> str | None:
    """Return why a service cannot be used, None if it can."""
    # A folder with the package's name, such as the one that wandb writes, has a spec but no origin.
    spec = find_spec(service.package)
    if spec is None or spec.origin is None:
        return f"{service.title} is not installed; pip install {service.package.replace('_', '-')}"
    if service.is_configured(environment):
        return None
    return f"{service.title} is not configured; {service.how_to}"


def _warn_of_unused_flags(opt: Any, chosen: Sequence[Service]) -> None:
    for flag in ("entity", "upload_dataset", "bbox_interval", "artifact_alias"):
        users = [service for service in SERVICES if flag in service.flags]
        if flag in opt.given and not any(service in chosen for service in users):
            names = ", ".join(service.title for service in users)
            LOG.warning(f"--{flag} has no effect: none of {names} is used by this run")


def _always(environment: Environment) -> bool:
    return True


def _wandb(environment: Environment) -> bool:
    mode = environment.get("WANDB_MODE", "").lower()
    if mode == "disabled" or environment.get("WANDB_DISABLED", "").lower() in ("true", "1", "yes"):
        return False
    return mode in ("offline", "dryrun") or bool(environment.get("WANDB_API_KEY")) or _in_netrc(environment)


def _in_netrc(environment: Environment) -> bool:
    """Return whether `wandb login` has stored a key."""
    hosts = {"api.wandb.ai", "api.forge.coreweave.com"}
    if url := environment.get("WANDB_BASE_URL"):
        hosts = {urlsplit(url).hostname or url}
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
    return expand_user("~/.comet.config").is_file()


def _clearml(environment: Environment) -> bool:
    if environment.get("CLEARML_OFFLINE_MODE", "").lower() in ("1", "true", "yes"):
        return True
    keys = ("CLEARML_API_HOST", "CLEARML_API_ACCESS_KEY", "CLEARML_API_SECRET_KEY")
    if all(environment.get(key) for key in keys):
        return True
    return expand_user(environment.get("CLEARML_CONFIG_FILE") or "~/clearml.conf").is_file()


SERVICES = (
    Service(
        "tensorboard",
        "TensorBoard",
        package="tensorboard",
        logger="utils.loggers.tensorboard_logger:TensorBoardLogger",
        is_configured=_always,
        how_to="",
        flags=("bbox_interval",),
    ),
    Service(
        "wandb",
        "Weights & Biases",
        package="wandb",
        logger="utils.loggers.wandb_logger:WandbLogger",
        is_configured=_wandb,
        how_to="run `wandb login`, or set WANDB_API_KEY or WANDB_MODE=offline",
        flags=("entity", "upload_dataset", "bbox_interval", "artifact_alias"),
    ),
    Service(
        "clearml",
        "ClearML",
        package="clearml",
        logger="utils.loggers.clearml_logger:ClearMLLogger",
        is_configured=_clearml,
        how_to="run `clearml-init`, or set CLEARML_API_HOST with its keys or CLEARML_OFFLINE_MODE=1",
        flags=("upload_dataset", "bbox_interval", "artifact_alias"),
    ),
    Service(
        "comet",
        "Comet",
        package="comet_ml",
        logger="utils.loggers.comet_logger:CometLogger",
        is_configured=_comet,
        how_to="run `comet login`, or set COMET_API_KEY or COMET_OFFLINE_DIRECTORY",
        flags=("entity", "upload_dataset", "bbox_interval", "artifact_alias"),
    ),
    Service(
        "mlflow",
        "MLflow",
        package="mlflow",
        logger="utils.loggers.mlflow_logger:MLflowLogger",
        is_configured=_mlflow,
        how_to="set MLFLOW_TRACKING_URI",
        flags=("bbox_interval",),
    ),
)
