"""Files and paths: the project root, yamls by bare name, run directories, text, caches, atomic writes."""

from __future__ import annotations

import codecs
import difflib
import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from utils.base.errors import ConfigError, MissingFileError, WriteError
from utils.base.inputs import expand_user

ROOT = Path(__file__).resolve().parents[2]
# pip installs everything into one package below site-packages, where nothing is written later.
INSTALLED = (ROOT / "__init__.py").is_file()
SCRIPTS = ROOT / "scripts" if INSTALLED else ROOT

# The encodings that a byte order mark at the start of a file makes certain. UTF-32 starts as UTF-16 does.
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def output_root() -> Path:
    """Return the default parent of runs/ and datasets/: the checkout, or the current folder if installed."""
    return Path.cwd() if INSTALLED else ROOT


def command_for(program: str) -> str:
    """Return the command that starts `train.py`, or `-m utils.data get`."""
    if not INSTALLED:
        return f"python {program}"
    return f"yolov5-lska {program.removesuffix('.py').rpartition(' ')[2].replace('/', ' ')}"


def relative_to_cwd(path: Path) -> str:
    """Return `path` relative to the current folder."""
    try:
        return os.path.relpath(path)
    except ValueError:  # another drive on Windows
        return str(path)


def runs_folder(kind: str) -> str:
    """Return the default of `--project`."""
    return relative_to_cwd(output_root() / "runs" / kind)


def find_file(
    name: str | Path,
    folders: tuple[str, ...],
    suffixes: tuple[str, ...],
    flag: str,
    also: Callable[[], list[str]] = list,
) -> Path:
    """Find a file from its path or, by bare name, below `folders` of the project root.

    Args:
        name: path or bare name.
        folders: searched with all below them.
        suffixes: allowed endings; none: any.
        flag: the flag that the name was given to, for errors.
        also: returns further names that an error may suggest.

    Raises:
        ConfigError: no file or several files have that name, or its suffix is not allowed.
    """
    path = expand_user(name)
    if suffixes and path.suffix.lower() not in suffixes:
        raise ConfigError(f"{flag} {name}: a file ending in {' or '.join(suffixes)} is needed")
    for candidate in (path, ROOT / path):
        if candidate.is_file():
            return candidate
    if path.exists():
        raise ConfigError(
            f"{flag} {name}: {'a folder' if path.is_dir() else 'a pipe, device or socket'}, "
            "where a file is needed"
        )
    known = [file for folder in folders for file in (ROOT / folder).rglob(f"*{path.suffix}")]
    found = [file for file in known if file.name == path.name] if path.name == str(name) else []
    if len(found) > 1:
        paths = ", ".join(relative_to_cwd(file) for file in sorted(found))
        raise ConfigError(f"{flag} {name}: several files have that name ({paths}); give the path")
    if not found:
        near = difflib.get_close_matches(path.name, sorted({*also(), *(file.name for file in known)}), n=3)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise MissingFileError(f"{flag} {name}: no such file here or below {', '.join(folders)}/{hint}")
    return found[0]


def increment_path(path: Path, exist_ok: bool = False) -> Path:
    """Return the first of exp, exp2, exp3, ... that does not exist; gaps are reused."""
    if exist_ok or not path.exists():
        return path
    for n in range(2, 9999):
        candidate = path.with_name(f"{path.name}{n}")
        if not candidate.exists():
            return candidate
    raise ConfigError(f"{path} to {path}9998 all exist; choose another --name")


def claim_folder(path: Path, exist_ok: bool = False) -> Path:
    """Make and return the first of the folders exp, exp2, exp3, ... that does not exist.

    Two processes never get the same one. With `exist_ok` it is `path`, whether it exists or not.

    Raises:
        ConfigError: the folder cannot be made.
    """
    while True:
        folder = increment_path(path, exist_ok)
        try:
            folder.mkdir(parents=True, exist_ok=exist_ok)
        except FileExistsError as error:
            if not folder.is_dir() and os.path.lexists(folder):  # a file, or a link to nothing
                raise ConfigError(f"{folder}: is no folder; choose another --name") from error
        except OSError as error:
            raise ConfigError(f"{folder}: {error.strerror or error}; choose another --project") from error
        else:
            return folder


def remove_if_empty(folder: Path) -> None:
    """Remove a folder that a run has claimed and not written to."""
    with suppress(OSError):  # not empty, or gone
        folder.rmdir()


def check_writable(folder: Path, flag: str = "--project") -> None:
    """Check that a folder can be created or written to, before hours of work are lost.

    Raises:
        ConfigError: it cannot.
    """
    parent = expand_user(folder).absolute()
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    if not parent.is_dir():
        raise ConfigError(f"{flag} {folder}: {parent} is a file, where a folder is needed")
    if not os.access(parent, os.W_OK):
        raise ConfigError(f"{flag} {folder}: {parent} cannot be written to; choose another")


def path_hints(path: Path) -> str:
    """Return hints for the message about a path that does not exist: backslashes, or another case."""
    hints = ""
    if "\\" in str(path) and os.sep != "\\":
        drive = re.search(r"[A-Za-z]:\\", str(path))
        advice = "it is of a drive of Windows" if drive else "replace them by slashes"
        hints += f"; it has backslashes, which only Windows reads as folders: {advice}"
    if similar := same_but_case(path):
        hints += f"; found {similar}: names are case-sensitive"
    return hints


def same_but_case(path: Path) -> Path | None:
    """Return an existing path that differs from `path` only in upper and lower case."""
    anchor = Path(path.anchor)
    found = (_same(anchor, path.parts[len(anchor.parts) :])) if not path.exists() else ()
    return next(iter(found), None)


def _same(folder: Path, parts: Sequence[str]) -> Iterator[Path]:
    """Yield the paths below a folder whose parts are `parts`, in any case; those in the same case first."""
    if not parts:
        yield folder
        return
    if (folder / parts[0]).exists():
        yield from _same(folder / parts[0], parts[1:])
    with suppress(OSError):
        for item in sorted(folder.iterdir()):
            if item.name != parts[0] and item.name.lower() == parts[0].lower():
                yield from _same(item, parts[1:])


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(2**22):
            digest.update(chunk)
    return digest.hexdigest()


def decode_text(data: bytes, errors: str = "strict") -> str:
    """Decode the content of a text file: UTF-8, or what its byte order mark says.

    Args:
        data: the bytes.
        errors: how bytes that are not UTF-8 are decoded, see `bytes.decode`.

    Raises:
        ValueError: the encoding is not known; the message says how to save the file.
    """
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding, errors)
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        name = encoding.upper().removesuffix("-SIG")
        raise ValueError(f"line {number} has bytes that are not {name}; save the file as UTF-8") from error
    if "\0" in text:
        raise ValueError("has zero bytes, as UTF-16 without a byte order mark has; save the file as UTF-8")
    return text


def cache_folder() -> Path:
    """Return the folder for downloads and caches: $YOLOV5_CONFIG_DIR, else the user's cache folder."""
    if chosen := os.environ.get("YOLOV5_CONFIG_DIR"):
        return expand_user(chosen)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "yolov5-lska"
    try:
        return Path.home() / ".cache/yolov5-lska"
    except RuntimeError:  # no HOME, and a user that is not listed, as in some containers
        return Path(tempfile.gettempdir()) / f"yolov5-lska-{os.getuid()}"


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file; a part of it is removed if it cannot be written.

    Raises:
        WriteError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        with suppress(OSError):
            path.unlink()
        raise WriteError(f"{path}: cannot be written ({error.strerror or error})") from error


@contextmanager
def atomic_write(path: Path, mode: str = "wb", **kwargs: Any) -> Iterator[IO[Any]]:
    """Write a file atomically: open a temporary file, and rename it to `path` unless there is an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(descriptor, mode, **kwargs) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)  # mkstemp gives 0600; users share run folders
        os.replace(name, path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename in (None, name):
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise
