"""Folders that downloads and archives fill: nothing is replaced there that they did not write themselves.

A data yaml of a stranger decides where its download goes (`path:`) and what is in it. So it goes into a
folder of its own: one that is empty, or that the same download has filled before, as a file in it says.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from utils.base.errors import ConfigError, DataError
from utils.base.inputs import expand_user
from utils.base.paths import ROOT, atomic_write, relative_to_cwd

MARK = ".unpacked.json"  # in the folder: its source, and the files that were written


class OwnFolder:
    """A folder that is filled from one source.

    Args:
        folder: it may not exist yet.
        source: what it is filled from, such as URLs; the same text again may replace its files.
        flag: where the folder was named, for messages.

    Raises:
        ConfigError: the folder is, or contains, the program, the current folder or the home folder.
        DataError: it has files of another origin.
    """

    def __init__(self, folder: Path, source: str, flag: str = "path") -> None:
        self.folder = folder
        self.source = source
        self._files: set[str] = set()  # relative to the folder, with slashes
        self._check_place(flag)
        if not folder.is_dir() or not any(folder.iterdir()):
            return
        earlier = self._read_mark()
        if earlier.get("source") != source:
            found = min(child.name for child in folder.iterdir())
            raise DataError(
                f"{flag}: {relative_to_cwd(folder)} has other files, such as {found}, and a download needs a "
                "folder of its own: move them away, or name another folder"
            )
        self._files = set(earlier.get("files", ()))

    def claim(self, names: Iterable[str]) -> None:
        """Record files that are about to be written, by their paths in the folder.

        Raises:
            DataError: one of them exists, and was not written from this source.
        """
        new = {name for name in names if name not in self._files}
        for name in sorted(new):
            if os.path.lexists(self.folder / name):
                where = relative_to_cwd(self.folder / name)
                raise DataError(f"{where}: exists, and is not from this download; move it away first")
        for name in new:
            for parent in (self.folder / name).parents:
                if parent == self.folder:
                    break
                if parent.is_symlink() or (parent.exists() and not parent.is_dir()):
                    raise DataError(f"{relative_to_cwd(parent)}: is no folder of this download; move it away")
        self._files |= new
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.folder / MARK, "w", encoding="utf-8") as file:
            json.dump({"source": self.source, "files": sorted(self._files)}, file)

    def add(self, fresh: Path, into: str = ".") -> None:
        """Move everything below `fresh` into a subfolder; files of the same source are replaced."""
        files = [path for path in fresh.rglob("*") if not path.is_dir()]
        targets = {Path(into, path.relative_to(fresh)).as_posix(): path for path in files}
        targets.pop(MARK, None)  # an archive does not decide what may be replaced
        self.claim(targets)
        for name, path in targets.items():
            target = self.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)

    def _check_place(self, flag: str) -> None:
        place = self.folder.absolute().resolve()
        taken = {"the program": ROOT, "the current folder": Path.cwd(), "your home folder": expand_user("~")}
        for what, other in taken.items():
            if other.resolve().is_relative_to(place):
                raise ConfigError(
                    f"{flag}: {place} {'is' if other.resolve() == place else 'contains'} {what}; "
                    "a download needs a folder of its own, such as datasets/cells"
                )

    def _read_mark(self) -> dict[str, Any]:
        try:
            content = json.loads((self.folder / MARK).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}
