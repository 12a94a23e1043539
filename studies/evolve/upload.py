"""Copy the tables of an evolution to a bucket (`--bucket`), where others can watch it."""

from __future__ import annotations

from pathlib import Path

from utils.base.errors import ConfigError, one_line
from utils.base.log import LOG

_COPIED = ("evolve.csv", "hyp_evolve.yaml")


class Bucket:
    """A folder at an address that fsspec knows; a bare name means a bucket of Google Cloud Storage.

    Args:
        address: such as `gs://bucket/folder`, `s3://bucket`, or `bucket`.
        home: folder of the evolution; its name is added to the address.

    Raises:
        ConfigError: the kind of address is not known, or needs a package that is not installed.
    """

    def __init__(self, address: str, home: Path) -> None:
        import fsspec

        url = address if "://" in address else f"gs://{address}"
        self.url = f"{url.rstrip('/')}/{home.name}"
        self.home = home
        try:
            self._files, self._folder = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            reason = one_line(error)
            raise ConfigError(f"--bucket {address}: cannot be opened ({reason})") from error

    def copy(self) -> None:
        """Copy what is there; a bucket that cannot be reached is told, and tried again the next time."""
        try:
            self._files.makedirs(self._folder, exist_ok=True)
            for name in _COPIED:
                if (self.home / name).is_file():
                    self._files.put_file(str(self.home / name), f"{self._folder}/{name}")
        except Exception as error:  # each kind of store has its own errors; none of them is worth the search
            reason = one_line(error)
            LOG.warning(f"--bucket: nothing was copied to {self.url} ({reason[:200]})")
