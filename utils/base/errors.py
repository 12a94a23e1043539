"""Errors that a user can act on: one line, no traceback, a fixed exit status."""


class YoloError(Exception):
    """A failure with a message for the user; a script prints it on one line and exits with `status`."""

    status = 1


class ConfigError(YoloError, ValueError):
    """A flag, yaml or name that the user has to correct (exit status 2)."""

    status = 2


class DataError(YoloError):
    """A file that is missing, corrupt or empty (exit status 1)."""


def one_line(error: BaseException) -> str:
    """Return the message of an error without line breaks, or its type where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message: PyTorch and others append a stack of C++ calls."""
    return (str(error).splitlines() or [type(error).__name__])[0]
