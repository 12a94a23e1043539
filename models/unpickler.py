"""A virtual machine for pickles that builds data only, at a cost in proportion to the size of the file.

It derives from the unpickler that is written in Python. The one in C allocates what a file asks for (a memo
index of 2**31 takes all memory), and hashes nested tuples by recursion in C, which ends in a crash. What
remains is that each operation may build an object: some 100 bytes of memory for one byte of the file.
"""

from __future__ import annotations

import collections
import os
import pickle
from collections.abc import Callable
from functools import partial
from typing import IO, Any

import torch

from utils.base.errors import DataError
from utils.base.limits import DEPTH

_PythonUnpickler: Any = pickle._Unpickler  # mypy knows only what the one in C has
_SCALARS = (str, int, float, bool, bytes, type(None), torch.dtype)
_EXTENSIONS = (pickle.EXT1, pickle.EXT2, pickle.EXT4)
_REFUSED = (*_EXTENSIONS, pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER)
_LONGEST_PATH = 4096
_COPIED = 3  # elements that calls of containers may copy, as a multiple of the operations of the file
_WRITTEN_OUT = 20  # elements of the content without sharing, as a multiple of those with it
_FEW = 100_000  # elements and copies that are always accepted


class BoundedFile:
    """The rest of a file; a length beyond its end is refused before memory is allocated for it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        here = file.tell()
        self._end = file.seek(0, os.SEEK_END)
        file.seek(here)

    def read(self, count: int) -> bytes:
        """Read exactly `count` bytes, or none at the end of the file."""
        left = self._end - self._file.tell()
        if count < 0 or left and count > left:
            raise DataError("truncated: it ends before what it announces")
        return self._file.read(count) if left else b""

    def readline(self) -> bytes:
        """Read up to the end of the line."""
        return self._file.readline()

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer, which the unpickler has allocated: no file of `torch.save` needs that."""
        raise DataError("it has byte arrays, which checkpoints do not have")


class BoundedUnpickler(_PythonUnpickler):
    """Unpickler with limits; its subclass says which classes there are.

    Args:
        file: to read one pickle from.
        storages: returns what a persistent id stands for.
    """

    def __init__(self, file: BoundedFile, storages: Callable[[Any], Any]) -> None:
        super().__init__(file, encoding="utf-8")
        self.storages = storages
        self.copied = 0

    def persistent_load(self, pid: Any) -> Any:
        return self.storages(pid)

    def container(self, kind: type) -> Callable[..., Any]:
        """Return a function that builds a container of a builtin class from another one."""
        return partial(self._build, kind)

    def _build(self, kind: type, content: Any = (), *rest: Any) -> Any:
        if rest or not isinstance(content, list | tuple | set | frozenset | dict):
            raise DataError(f"it builds a {kind.__name__} of a {type(content).__name__}")
        self.copied += len(content)
        if self.copied > max(_FEW, _COPIED * len(self.memo)):
            raise DataError("its containers are copied again and again")
        if kind in (set, frozenset):
            _check_keys(content)
        if kind in (dict, collections.OrderedDict):
            pairs = list(content.items()) if isinstance(content, dict) else [tuple(pair) for pair in content]
            _check_keys(pair[0] for pair in pairs)
            return kind(pairs)
        return kind(content)

    def load_setitem(self) -> None:
        _check_keys(self.stack[-2:-1])
        super().load_setitem()

    def load_setitems(self) -> None:
        _check_keys(self.stack[::2])
        super().load_setitems()

    def load_additems(self) -> None:
        _check_keys(self.stack)
        super().load_additems()

    def load_dict(self) -> None:
        _check_keys(self.stack[::2])
        super().load_dict()

    def load_frozenset(self) -> None:
        _check_keys(self.stack)
        super().load_frozenset()

    def load_build(self) -> None:
        state = self.stack.pop()
        self.set_state(self.stack[-1], state)

    def set_state(self, instance: Any, state: Any) -> None:
        """Set the state of an object."""
        raise NotImplementedError

    def refused(self) -> None:
        """Refuse an operation that no checkpoint has."""
        raise DataError("it has operations that checkpoints do not have")


_OPERATIONS = {
    pickle.SETITEM: BoundedUnpickler.load_setitem,
    pickle.SETITEMS: BoundedUnpickler.load_setitems,
    pickle.ADDITEMS: BoundedUnpickler.load_additems,
    pickle.DICT: BoundedUnpickler.load_dict,
    pickle.FROZENSET: BoundedUnpickler.load_frozenset,
    pickle.BUILD: BoundedUnpickler.load_build,
    **dict.fromkeys((pickle.EXT1, pickle.EXT2, pickle.EXT4), BoundedUnpickler.refused),
    **dict.fromkeys(
        (pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER), BoundedUnpickler.refused
    ),
}
BoundedUnpickler.dispatch = {
    **_PythonUnpickler.dispatch,
    **{code[0]: function for code, function in _OPERATIONS.items()},
}


def _check_keys(keys: Any) -> None:
    """Raise DataError unless keys are plain: the hash of a nested tuple takes time without limit."""
    for key in keys:
        if not isinstance(key, _SCALARS):
            raise DataError(f"a key or member of a set is a {type(key).__name__}; expected text or a number")


def path_text(*parts: Any) -> str:
    """Return the text of a pickled path.

    Raises:
        DataError: its parts are no text, or it is longer than any path.
    """
    if not all(isinstance(part, str) for part in parts) or sum(map(len, parts)) > _LONGEST_PATH:
        raise DataError("a path in it is not valid")
    return "/".join(parts)


def plain_text(value: Any = "") -> str:
    """Return `str(value)` of a scalar."""
    _check_keys([value])
    return str(value)


def check_structure(content: Any, children: Callable[[Any], list[Any] | None]) -> None:
    """Raise DataError if containers are nested too deeply, contain themselves, or are shared without limit.

    What reads the content later visits a shared container each time: n lists of two references to the
    next one have 2**n elements.

    Args:
        content: of a file.
        children: returns the elements of a container, and None for anything else.
    """
    sizes: dict[int, int] = {}  # by id: number of elements, those of shared containers each time
    depths: dict[int, int] = {}
    deepest = DEPTH.value
    open_ids: set[int] = set()
    stack: list[tuple[Any, list[Any] | None]] = [(content, None)]
    elements = 0
    while stack:
        node, inside = stack.pop()
        if inside is None:
            if id(node) in sizes or (inside := children(node)) is None:
                continue
            if id(node) in open_ids:
                raise DataError("a container in it contains itself")
            open_ids.add(id(node))
            if len(open_ids) > deepest:  # here, not at the end: a file may have millions of levels
                DEPTH.check(len(open_ids))
            elements += len(inside) + 1
            stack.append((node, inside))
            stack += [(child, None) for child in inside]
        else:
            open_ids.discard(id(node))
            known = [id(child) for child in inside if id(child) in sizes]
            depths[id(node)] = depth = 1 + max((depths[key] for key in known), default=0)
            if depth > deepest:  # through a container that was visited before, in another place
                DEPTH.check(depth)
            sizes[id(node)] = 1 + len(inside) + sum(sizes[key] for key in known)
            if sizes[id(node)] > max(_FEW, _WRITTEN_OUT * elements) + _FEW:
                raise DataError("containers in it share others without limit")
