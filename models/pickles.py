"""Read and write PyTorch files as inert data: tensors, plain containers, and a passive record for any object.

A pickle is a program that can call anything it names. This reader resolves only a short list of containers
and tensor builders; any other name becomes an empty record that takes any arguments. No code of the file
is run. The writer does the reverse: a record becomes an object of the class that it names, which does not
have to exist here.
"""

from __future__ import annotations

import collections
import copyreg
import io
import pickle
import struct
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import torch
from torch import Tensor

from models.unpickler import BoundedFile, BoundedUnpickler, check_structure, path_text, plain_text
from utils.base.errors import ConfigError, DataError
from utils.base.limits import DESCRIPTION

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of files before torch 1.6

_DTYPES = {
    f"{name}Storage": dtype
    for name, dtype in {
        "Double": torch.float64,
        "Float": torch.float32,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
        "Untyped": torch.uint8,
    }.items()
}


class Record:
    """Stand-in for an object of a class that we do not build: its class name and its fields."""

    __slots__ = ("args", "contents", "fields")
    origin = ""
    args: tuple[Any, ...]
    fields: dict[str, Any]
    contents: list[Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Record:
        record = super().__new__(cls)
        record.args, record.fields, record.contents = args, {}, []
        return record

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                self.fields.update({str(key): value for key, value in part.items()})

    def __setitem__(self, key: Any, value: Any) -> None:
        self.contents.append((key, value))

    def append(self, value: Any) -> None:
        """Store a list item."""
        self.contents.append(value)

    def extend(self, values: Any) -> None:
        """Store list items."""
        self.contents.extend(values)

    @property
    def class_name(self) -> str:
        """The name of the class, without its module."""
        return self.origin.rpartition(".")[2]

    def get(self, name: str, default: Any = None) -> Any:
        """Return a field, also from the dictionaries of submodules, buffers and parameters."""
        for holder in ("_modules", "_buffers", "_parameters"):
            if isinstance(held := self.fields.get(holder), dict) and name in held:
                return held[name]
        return self.fields.get(name, default)


@cache
def record_class(origin: str) -> type[Record]:
    """Return the class of records that stand for objects of `origin`, such as models.common.Conv."""
    return type(origin.rpartition(".")[2], (Record,), {"origin": origin})


def make_record(origin: str, fields: dict[str, Any] | None = None, args: tuple[Any, ...] = ()) -> Record:
    """Make a record to write: an object of the class `origin` with these fields, or the result of a call."""
    record = record_class(origin)(*args)
    record.fields.update(fields or {})
    return record


class _Storage:
    """A flat tensor of one dtype; views of it are made by `_rebuild_tensor`."""

    def __init__(self, values: Tensor) -> None:
        self.values = values


def _rebuild_tensor(storage: _Storage, offset: int, size: Any, stride: Any, *rest: Any) -> Tensor:
    """Return a view of a storage; one that repeats values is refused, as its copy can be of any size."""
    if not isinstance(storage, _Storage):
        raise DataError("a tensor in it has no storage")
    view = torch.as_strided(storage.values, tuple(size), tuple(stride), offset)  # checks the bounds
    if view.numel() > storage.values.numel():
        raise DataError(f"a tensor of {list(size)} has only {storage.values.numel()} values")
    return view


def _rebuild_parameter(data: Tensor, *rest: Any) -> Tensor:
    return data


_CONTAINERS: dict[str, type] = {
    "collections.OrderedDict": collections.OrderedDict,
    "torch.Size": tuple,
    **{f"builtins.{kind.__name__}": kind for kind in (set, frozenset, list, dict, tuple)},
}
_ALLOWED: dict[str, Any] = {
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "builtins.str": plain_text,
    **{f"builtins.{kind.__name__}": kind for kind in (int, float, bool)},
    **{f"pathlib.{name}Path": path_text for name in ("", "Posix", "Windows")},
    **{f"pathlib.Pure{name}Path": path_text for name in ("", "Posix", "Windows")},
    **{f"pathlib._local.{name}Path": path_text for name in ("", "Posix", "Windows")},
}


class _Unpickler(BoundedUnpickler):
    """Unpickler of the classes in `_ALLOWED`; any other class becomes one of records."""

    def find_class(self, module: str, name: str) -> Any:
        origin = f"{module.replace('__builtin__', 'builtins')}.{name}"
        if origin in _CONTAINERS:
            return self.container(_CONTAINERS[origin])
        if origin in _ALLOWED:
            return _ALLOWED[origin]
        if module in ("torch", "torch.storage") and name in _DTYPES:
            return _DTYPES[name]
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        return type(name.rpartition(".")[2], (Record,), {"origin": origin})

    def set_state(self, instance: Any, state: Any) -> None:
        if isinstance(instance, Record):
            instance.__setstate__(state)
        elif not isinstance(instance, collections.OrderedDict):  # whose attributes are not needed
            raise DataError(f"it sets attributes of a {type(instance).__name__}")


def _children(node: Any) -> list[Any] | None:
    """Return the elements of a container, see `check_structure`; of a record those that readers visit."""
    if isinstance(node, Record):
        return [*node.fields.values(), *node.contents]
    if isinstance(node, dict):
        return list(node.values())
    return list(node) if isinstance(node, list | tuple) else None


def read_torch_file(path: Path) -> Any:
    """Read a file written by any version of `torch.save`, without running code of it.

    Returns:
        The saved object: tensors on the CPU, plain containers, and `Record` for everything else.

    Raises:
        DataError: not a PyTorch file, truncated or corrupt.
    """
    try:
        with path.open("rb") as file:
            if zipfile.is_zipfile(file):
                return _read_zip(file)
            file.seek(0)
            return _LegacyReader(file).read()
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except ConfigError:  # a limit that is not valid
        raise
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except (  # what malformed pickles, zips and tensors raise
        *(pickle.UnpicklingError, zipfile.BadZipFile, EOFError, KeyError, IndexError, ValueError),
        *(TypeError, AttributeError, RuntimeError, struct.error, UnicodeError, MemoryError, AssertionError),
    ) as error:
        raise DataError(f"{path}: not a readable PyTorch file ({type(error).__name__}: {error})") from error


def _read_zip(file: IO[bytes]) -> Any:
    size = file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise DataError("its entries are compressed, which no program that writes checkpoints does")
        if sum(entry.file_size for entry in entries) > size:
            raise DataError("its entries are larger than the file")
        heads = [entry for entry in entries if entry.filename.rpartition("/")[2] == "data.pkl"]
        if not heads:
            raise DataError("not a PyTorch checkpoint (a zip file without data.pkl)")
        folder = heads[0].filename.removesuffix("data.pkl")
        DESCRIPTION.check(heads[0].file_size)
        known: dict[str, _Storage] = {}

        def load(pid: Any) -> _Storage:
            _, dtype, key, *_ = pid
            if not isinstance(key, str) or not isinstance(dtype, torch.dtype):
                raise DataError("a tensor in it has no storage")
            if key not in known:
                raw = bytearray(archive.read(f"{folder}data/{key}"))
                known[key] = _Storage(_flat(raw, dtype))
            return known[key]

        content = _Unpickler(BoundedFile(io.BytesIO(archive.read(heads[0]))), load).load()
    check_structure(content, _children)
    return content


class _LegacyReader:
    """Reader of a stream: magic number, protocol, system info, object, storage keys, and the storages."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.rest = BoundedFile(file)
        self.known: dict[str, tuple[_Storage, torch.dtype]] = {}
        self.announced = 0  # bytes of all storages

    def read(self) -> Any:
        """Return the object, with the content of its tensors."""
        try:
            if self._unpickle() != _LEGACY_MAGIC:
                raise DataError("not a PyTorch checkpoint")
        except pickle.UnpicklingError as error:
            raise DataError("not a PyTorch checkpoint") from error
        self._unpickle(), self._unpickle()
        content, keys = self._unpickle(), self._unpickle()
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise DataError("corrupt: it lists no tensors")
        for key in keys:
            storage, dtype = self.known[key]
            count = struct.unpack("<q", self.rest.read(8))[0]
            if count != storage.values.numel():
                raise DataError("corrupt: the length of a tensor differs from the announced one")
            raw = bytearray(self.rest.read(count * dtype.itemsize))
            storage.values.copy_(_flat(raw, dtype))
        return content

    def _unpickle(self) -> Any:
        start = self.file.tell()
        content = _Unpickler(self.rest, self._storage).load()
        DESCRIPTION.check(self.file.tell() - start)
        check_structure(content, _children)
        return content

    def _storage(self, pid: Any) -> Any:
        if pid[0] == "module":  # a class, with its source text beside it
            return pid[1]
        _, dtype, key, _, count, *_ = pid
        if not isinstance(key, str) or not isinstance(dtype, torch.dtype) or type(count) is not int:
            raise DataError("a tensor in it has no storage")
        if key not in self.known:
            self.announced += count * dtype.itemsize
            if count < 0 or self.announced > _remaining(self.file):
                raise DataError("truncated: its tensors are larger than the file")
            self.known[key] = _Storage(torch.empty(count, dtype=dtype)), dtype
        return self.known[key][0]


def _flat(raw: bytearray, dtype: torch.dtype) -> Tensor:
    return torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)


def _remaining(file: IO[bytes]) -> int:
    here = file.tell()
    end = file.seek(0, io.SEEK_END)
    file.seek(here)
    return end


def state_of(record: Record, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the (key, tensor) pairs of a module's record, as its `state_dict()` would have them."""
    hidden = record.get("_non_persistent_buffers_set") or ()
    for holder in ("_parameters", "_buffers"):
        for name, value in (record.fields.get(holder) or {}).items():
            if isinstance(value, Tensor) and name not in hidden:
                yield prefix + name, value
    for name, child in (record.fields.get("_modules") or {}).items():
        if isinstance(child, Record):
            yield from state_of(child, f"{prefix}{name}.")


class _Pickler(pickle._Pickler):
    """Pickler that writes the class of a record as the global that it names.

    It derives from the pickler in Python, as the one in C imports every class that it writes. The types that
    mypy knows are those of the one in C, which lacks what is used here.
    """

    def reducer_override(self, obj: Any) -> Any:
        if not isinstance(obj, Record):
            return NotImplemented
        if obj.args:  # the result of a call, such as builtins.getattr
            return type(obj), obj.args, obj.fields or None
        return copyreg.__newobj__, (type(obj),), obj.fields  # type: ignore[attr-defined]

    def save_global(self, obj: Any, name: str | None = None) -> None:
        if isinstance(obj, type) and issubclass(obj, Record):
            module, _, name = obj.origin.replace("builtins.", "__builtin__.").rpartition(".")
            self.write(pickle.GLOBAL + f"{module}\n{name}\n".encode())  # type: ignore[attr-defined]
            self.memoize(obj)  # type: ignore[attr-defined]
        else:
            super().save_global(obj, name)  # type: ignore[misc]


def write_torch_file(file: IO[bytes], content: Any) -> None:
    """Write what `torch.load` reads: tensors, plain containers, and an object for each `Record`.

    Protocol 2, as of `torch.save`, writes Python 2's names of builtins, which every reader knows.
    """
    save_torch(file, content, pickle_module=SimpleNamespace(__name__="pickle", Pickler=_Pickler))


def save_torch(file: IO[bytes], content: Any, **options: Any) -> None:
    """Write a file with `torch.save` and its `options`.

    Raises:
        OSError: it cannot be written; the RuntimeError of PyTorch does not say why.
    """
    noting = _NotingErrors(file)
    try:
        torch.save(content, noting, **options)  # type: ignore[arg-type]
    except RuntimeError as error:
        raise noting.error or error from error


class _NotingErrors:
    """A file to write, with the first error of the operating system."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        self.file.flush()
