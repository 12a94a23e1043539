"""Errors for the user: one line without a traceback, and an exit status."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager


class YoloError(Exception):
    """Base class of errors with a message for the user; scripts log it and exit with `status`."""

    status = 1


class ConfigError(YoloError, ValueError):
    """An invalid flag, yaml or name (exit status 2)."""

    status = 2


class MissingFileError(ConfigError, FileNotFoundError):
    """A file that a flag or argument names and that does not exist (exit status 2)."""


class DataError(YoloError):
    """A missing, corrupt or empty file (exit status 1)."""


class WriteError(DataError):
    """A file that cannot be written, because the disk is full, for example (exit status 1)."""


class OutOfMemory(YoloError):
    """No memory, of the computer or of a GPU, for the batch and image size (exit status 1)."""


_LONGEST = 1000  # characters of a message
# What torch, numpy, OpenCV and ONNX Runtime say, in lower case.
_NO_MEMORY = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "can't start new thread",
    "insufficient memory",
    "failed to allocate",
    "unable to allocate",
    "bad_alloc",
    "alloc_failed",  # of cuBLAS and cuDNN
)
_STRIDE = 32  # pixels, of which image sizes are multiples


def one_line(error: BaseException) -> str:
    """Return the message of an error without line breaks, shortened, or its type where it has none."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 200]} ... {text[-190:]}"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message: PyTorch and others append a stack of C++ calls."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of any library means that memory was short."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in _NO_MEMORY)


@contextmanager
def memory_errors(batch_size: int, imgsz: Sequence[int], parts: int = 1) -> Iterator[None]:
    """Raise OutOfMemory, which names the batch and image size to try, where memory is short.

    Args:
        batch_size: images in a batch.
        imgsz: side, or height and width, of an image in pixels; empty if it cannot be changed.
        parts: number of processes that share a batch.
    """
    try:
        yield
    except YoloError:
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        size = "x".join(map(str, imgsz))
        now = f"batch size {batch_size}" + (f" and {size} px" if size else "")
        smaller = batch_size // 2 // parts * parts
        tries = [f"--batch-size {smaller}"] if smaller else []
        # Half the pixels: each side by the root of 2, rounded down to the stride.
        sides = [max(int(side / 2**0.5) // _STRIDE, 1) * _STRIDE for side in imgsz]
        if sides and max(sides) < max(imgsz):
            tries.append(f"--imgsz {' '.join(map(str, sides))}")
        advice = f"try {' or '.join(tries)}" if tries else "close other programs"
        raise OutOfMemory(f"out of memory at {now}: {advice} ({one_line(error)[:200]})") from error
