"""Errors for the user: one line without a traceback, and an exit status."""


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


_LONGEST = 1000  # characters of a message


def one_line(error: BaseException) -> str:
    """Return the message of an error without line breaks, shortened, or its type where it has none."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 200]} ... {text[-190:]}"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message: PyTorch and others append a stack of C++ calls."""
    return (str(error).splitlines() or [type(error).__name__])[0]
