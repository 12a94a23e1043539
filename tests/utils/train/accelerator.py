"""A simulated accelerator on the CPU, which records the operations that wait for the queue of a CUDA device.

A tensor of it says that its device is `meta`, which every build of torch has, and holds a real tensor on the
CPU, on which its operations run: results are those of the CPU. Thus a copy between the CPU and the device is
an operation that can be seen, as on CUDA, and a tensor that was left on the wrong device is an error.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map

from utils.base.paths import ROOT

DEVICE = torch.device("meta")
# Operators whose kernels on CUDA copy a value or a size to the CPU, so that the CPU waits for the device.
WAITING = {
    "_local_scalar_dense", "_unique", "_unique2", "argwhere", "bincount", "equal", "histc", "is_nonzero",
    "item", "masked_select", "multinomial", "nms", "nonzero", "one_hot", "repeat_interleave",
    "unique_consecutive", "unique_dim",
}  # fmt: skip
_OWN = (f"{ROOT / 'models'}{os.sep}", f"{ROOT / 'utils'}{os.sep}")
_FACTORIES = (torch.tensor, torch.as_tensor, Tensor.new_tensor)
_FOREACH = "torch.utils._foreach_utils._get_foreach_kernels_supported_devices"
_REAL_AUTOCAST = torch.autocast


class Wait(NamedTuple):
    """An operation that waits for the device, and the function of this project that calls it."""

    file: str  # relative to the root; empty if no function of `models` or `utils` is on the stack
    function: str
    operation: str


class OnDevice(Tensor):
    """A tensor of the simulated device; `on_cpu` holds its values on the CPU."""

    on_cpu: Tensor

    @staticmethod
    def __new__(cls, real: Tensor) -> OnDevice:
        made: OnDevice = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]  # has no stub
            cls,
            real.shape,
            strides=real.stride(),
            storage_offset=real.storage_offset(),
            dtype=real.dtype,
            device=DEVICE,
            requires_grad=False,
        )
        made.on_cpu = real
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OnDevice({self.on_cpu!r})"

    def tolist(self) -> Any:
        """Return the values; torch has this function for its own class only."""
        _note("tolist")
        return self.on_cpu.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


_waits: list[Wait] = []


def _note(operation: str) -> None:
    """Record an operation with the innermost function of this project on the stack."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not frame.f_code.co_filename.startswith(_OWN):
        frame = frame.f_back
    if frame is None:
        _waits.append(Wait("", "", operation))
    else:
        file = Path(frame.f_code.co_filename).relative_to(ROOT).as_posix()
        _waits.append(Wait(file, frame.f_code.co_name, operation))


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operator on the real tensors; its result is on the device if an argument is, or it says so."""
    name = func.overloadpacket.__name__
    flat = tree_flatten((args, kwargs))[0]
    inputs = [value for value in flat if isinstance(value, OnDevice)]
    target = kwargs.get("device")
    on_device = bool(inputs) if target is None else torch.device(target) == DEVICE
    if name in ("_to_copy", "copy_"):
        on_device = _note_copy(name, args, kwargs, on_device)
    elif inputs:
        _check_devices(name, flat)
        _note_waiting(name, args)
    real_kwargs = {key: torch.device("cpu") if key == "device" else value for key, value in kwargs.items()}
    result = func(*_real(args), **_real(real_kwargs))
    if not on_device:
        return result
    wrapped = tree_map(lambda value: OnDevice(value) if isinstance(value, Tensor) else value, result)
    return return_and_correct_aliasing(func, args, kwargs, wrapped) if inputs else wrapped


def _real(values: Any) -> Any:
    return tree_map(lambda value: value.on_cpu if isinstance(value, OnDevice) else value, values)


def _note_copy(name: str, args: Any, kwargs: dict[str, Any], to_device: bool) -> bool:
    """Record a copy between the devices that waits; return whether its result is on the device."""
    source = args[0]
    if name == "copy_":
        to_device, source = isinstance(args[0], OnDevice), args[1]
        asynchronous = (args[2] if len(args) > 2 else False) or kwargs.get("non_blocking", False)
    else:
        asynchronous = kwargs.get("non_blocking", False)
    from_device = isinstance(source, OnDevice)
    if from_device and not to_device:
        _note("copy to the CPU")
    elif to_device and not from_device and not asynchronous:
        _note("copy to the device")
    return to_device


def _check_devices(name: str, flat: Iterable[Any]) -> None:
    """Raise what CUDA raises for tensors on several devices; scalars on the CPU are allowed."""
    tensors = [value for value in flat if isinstance(value, Tensor)]
    strangers = [one for one in tensors if not isinstance(one, OnDevice) and one.ndim]
    if strangers and name in ("index", "index_put_", "index_put", "_index_put_impl_"):
        _note("copy of an index to the device")
    elif strangers:
        raise RuntimeError(f"{name}: tensors are on two devices")


def _note_waiting(name: str, args: Any) -> None:
    if name in WAITING:
        _note(name)
    if name.startswith(("index", "_index_put")) and len(args) > 1 and isinstance(args[1], (list, tuple)):
        kinds = (index.dtype for index in args[1] if isinstance(index, Tensor))
        if any(kind in (torch.bool, torch.uint8) for kind in kinds):
            _note("index with a mask")


class _Dispatch(TorchDispatchMode):
    """Makes tensors on the device: copies to it, and `torch.zeros(..., device=...)`."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _FromNumbers(TorchFunctionMode):
    """Makes tensors on the device from Python numbers: a copy that waits, and that no operator shows."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        like = args[0] if func is Tensor.new_tensor else None
        device = kwargs.get("device", like.device if like is not None else "cpu")
        if func not in _FACTORIES or device is None or torch.device(device) != DEVICE:
            return func(*args, **kwargs)
        _note("copy of numbers to the device")
        data = args[1] if like is not None else args[0]
        kwargs.setdefault("dtype", like.dtype if like is not None else None)
        return torch.tensor(data, **{**kwargs, "device": "cpu"}).to(DEVICE, non_blocking=True)


def _autocast(device_type: str, **settings: Any) -> Any:
    """Autocast of the CPU: that of torch has no device of this name."""
    return _REAL_AUTOCAST("cpu" if device_type == DEVICE.type else device_type, **settings)


@contextmanager
def simulated() -> Iterator[list[Wait]]:
    """Make the device exist within this block; yield the list of waiting operations, in order."""
    _waits.clear()
    patches = mock.patch("torch.autocast", _autocast), mock.patch(_FOREACH, lambda: [DEVICE.type])
    with patches[0], patches[1], _FromNumbers(), _Dispatch():
        yield _waits


def move(model: nn.Module) -> None:
    """Move a model to the device, in place; parameters become others, so make the optimizer afterwards."""
    for module in model.modules():
        for key, parameter in module._parameters.items():
            if parameter is not None:
                moved = OnDevice(parameter.detach())
                module._parameters[key] = nn.Parameter(moved, requires_grad=parameter.requires_grad)
        for key, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[key] = OnDevice(buffer)
