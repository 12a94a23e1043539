"""Errors that a user can act on: one line, no traceback, a fixed exit status."""


class YoloError(Exception):
    """A failure with a message for the user; a script prints it on one line and exits with `status`."""

    status = 1


class ConfigError(YoloError, ValueError):
    """A flag, yaml or name that the user has to correct (exit status 2)."""

    status = 2


class DataError(YoloError):
    """A file that is missing, corrupt or empty (exit status 1)."""
