"""Models for `torch.hub.load`, from a folder or a file, without a network.

    model = torch.hub.load("path/to/this/folder", "custom", path="best.pt", source="local")
    model = torch.hub.load("path/to/this/folder", "yolov5s_lska", source="local")

Entry points: custom; yolov5n, s, m, l, x; yolov5n6 to x6; yolov5n_lska to x_lska.
"""

import sys as _sys
from collections.abc import Callable as _Callable
from collections.abc import Sequence as _Sequence
from pathlib import Path as _Path
from typing import Any as _Any

# Public callables of this module are entry points, so everything else starts with an underscore.
dependencies = ["torch", "torchvision", "numpy", "cv2", "yaml"]


def _check_packages() -> None:
    """Check that `models` and `utils` are those of this folder, as other programs use the same names."""
    for name in ("models", "utils"):
        paths = getattr(_sys.modules.get(name), "__path__", None if name in _sys.modules else [_HERE / name])
        if _HERE / name not in [_Path(path).resolve() for path in paths or ()]:
            raise ImportError(
                f"hubconf.py: this program has imported another module called {name}; load the model before "
                "it, or in a separate process"
            )


_HERE = _Path(__file__).resolve().parent
_check_packages()


def custom(
    path: str | _Path | _Sequence[str | _Path],
    autoshape: bool = True,
    _verbose: bool = True,
    device: _Any = None,
) -> _Any:
    """Load a model file: .pt, several of them as an ensemble, or any exported format.

    Args:
        path: model path(s).
        autoshape: return a model for images of any type and size; otherwise the network, to train or change.
        _verbose: log what is done.
        device: "cpu", 0, "cuda:0", or a torch.device; None for the best available.

    Returns:
        AutoShape; without `autoshape` the model of the file's task, such as DetectionModel, or the backend of
        an exported format.

    Raises:
        ConfigError, DataError: a file that does not exist or cannot be loaded.
    """
    torch_device = _prepare(_verbose, device)
    with _plain_errors():
        return _load_file(path, autoshape, torch_device)


def _entry(name: str, cfg: str = "") -> _Callable[..., _Any]:
    """Make the entry point of an official model, or of a config into which its weights are grafted."""

    def entry(
        pretrained: bool = True,
        channels: int = 3,
        classes: int = 80,
        autoshape: bool = True,
        _verbose: bool = True,
        device: _Any = None,
    ) -> _Any:
        torch_device = _prepare(_verbose, device)
        with _plain_errors():
            if pretrained and (channels, classes) == (3, 80) and not cfg:
                return _load_file(f"{name}.pt", autoshape, torch_device)
            weights = f"{name}.pt" if pretrained else ""
            return _build(cfg or f"{name}.yaml", weights, channels, classes, autoshape, torch_device)

    entry.__name__ = entry.__qualname__ = name + "_lska" * bool(cfg)
    entry.__doc__ = f"""Build {_Path(cfg).stem if cfg else name}.

    Args:
        pretrained: load the weights of {name}.pt, as far as they fit; a head for other classes keeps its box
            and objectness weights. The file is searched for in the current folder, the project and the
            cache folder, else downloaded.
        channels: number of image channels.
        classes: number of classes.
        autoshape: return a model for images of any type and size; otherwise the network, to train or change.
        _verbose: log what is done.
        device: "cpu", 0, "cuda:0", or a torch.device; None for the best available.

    Returns:
        AutoShape, or a DetectionModel without `autoshape`.

    Raises:
        ConfigError, DataError: weights that cannot be loaded, or an invalid number.
    """
    return entry


yolov5n = _entry("yolov5n")
yolov5s = _entry("yolov5s")
yolov5m = _entry("yolov5m")
yolov5l = _entry("yolov5l")
yolov5x = _entry("yolov5x")
yolov5n6 = _entry("yolov5n6")
yolov5s6 = _entry("yolov5s6")
yolov5m6 = _entry("yolov5m6")
yolov5l6 = _entry("yolov5l6")
yolov5x6 = _entry("yolov5x6")
yolov5n_lska = _entry("yolov5n", "yolov5n-LSKA.yaml")
yolov5s_lska = _entry("yolov5s", "yolov5s-LSKA.yaml")
yolov5m_lska = _entry("yolov5m", "yolov5m-LSKA.yaml")
yolov5l_lska = _entry("yolov5l", "yolov5l-LSKA.yaml")
yolov5x_lska = _entry("yolov5x", "yolov5x-LSKA.yaml")


def _prepare(verbose: bool, device: _Any) -> _Any:
    """Set the log level, to warnings without `verbose`; return the torch device."""
    import logging

    import torch

    from utils.base.device import select_device
    from utils.base.log import set_up_console

    set_up_console(logging.INFO if verbose else logging.WARNING)
    if isinstance(device, torch.device):
        return device
    return select_device("" if device is None else str(device), verbose=verbose)


def _plain_errors() -> _Any:
    """Remove `--weights` from messages of errors, as there is no command line here."""
    from contextlib import contextmanager

    from utils.base.errors import YoloError

    @contextmanager
    def translated() -> _Any:
        try:
            yield
        except YoloError as error:
            message = str(error)
            if message.startswith("--weights "):
                raise type(error)(message.removeprefix("--weights ")) from None
            raise

    return translated()


def _load_file(path: str | _Path | _Sequence[str | _Path], autoshape: bool, device: _Any) -> _Any:
    from models.autoshape import AutoShape
    from models.backends import detect_format, load_backend
    from models.official_weights import locate_weights
    from models.weights import build_model, read_checkpoint

    if not autoshape and isinstance(path, str | _Path) and detect_format(str(path)).name == "pt":
        return build_model(read_checkpoint(locate_weights(path))).to(device)
    backend = load_backend(path, device)
    return AutoShape(backend) if autoshape else backend


def _build(cfg: str, weights: str, channels: int, classes: int, autoshape: bool, device: _Any) -> _Any:
    """Build a model from a yaml, with the weights that fit of a checkpoint."""
    import torch

    from models.autoshape import AutoShape
    from models.graft import graft
    from models.official_weights import locate_weights
    from models.weights import read_checkpoint
    from models.yolo import DetectionModel
    from utils.base.errors import ConfigError
    from utils.base.log import LOG

    for name, number in (("channels", channels), ("classes", classes)):
        if not isinstance(number, int) or number < 1:
            raise ConfigError(f"{name}={number!r}: expected an integer of at least 1")
    model = DetectionModel(cfg, ch=channels, nc=classes)
    if weights:
        LOG.info(str(graft(model, read_checkpoint(locate_weights(weights)), keep_anchors=True)))
    model = model.eval().to(device)
    if not autoshape:
        return model
    model = model.requires_grad_(False).fuse()
    if device.type in ("cpu", "cuda"):
        model = model.to(memory_format=torch.channels_last)
    return AutoShape(model)
