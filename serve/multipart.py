"""Read multipart/form-data as it streams in, in memory, and no more of it than is allowed.

Starlette's own form parser would put larger files on the disk and notice their size afterwards.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from email.message import Message
from typing import TYPE_CHECKING

from serve.errors import RequestError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartParser

MAX_FIELDS, MAX_FIELD_BYTES, MAX_HEADER_BYTES = 16, 4096, 4096
_AROUND = MAX_FIELDS * (MAX_FIELD_BYTES + MAX_HEADER_BYTES)  # what may be there beside the image


@dataclass
class Form:
    """Text fields by name, and the bytes of the one file that was asked for."""

    fields: dict[str, str] = field(default_factory=dict)
    file: bytes | None = None


async def read_form(
    content_type: str, length: str | None, chunks: AsyncIterator[bytes], file_field: str, max_file: int
) -> Form:
    """Parse the body of a request.

    Args:
        content_type: the header, with the boundary.
        length: the header Content-Length, which may be absent and may lie.
        chunks: the body as it arrives.
        file_field: name of the field that holds the file; further files are refused.
        max_file: its largest number of bytes.

    Raises:
        RequestError: 415 no form, 413 too large (read no further), 400 a form that cannot be read.
    """
    kind, boundary = _boundary(content_type)
    if kind != "multipart/form-data" or not boundary:
        raise RequestError(415, f"send multipart/form-data with the image in the field {file_field!r}")
    if length is not None and length.isdigit() and int(length) > max_file + _AROUND:
        raise _too_large(max_file)
    parts = _Parts(file_field, max_file)
    received = 0

    from python_multipart.exceptions import FormParserError

    try:
        parser = parts.parser(boundary)
        async for chunk in chunks:
            received += len(chunk)
            if received > max_file + _AROUND:
                raise _too_large(max_file)
            parser.write(chunk)
        parser.finalize()
    except FormParserError as error:
        raise RequestError(400, f"the form cannot be read: {error}") from error
    if not parts.ended:
        raise RequestError(400, "the form is cut off")
    return parts.form


class _Parts:
    """Puts a form together from what the parser reports."""

    def __init__(self, file_field: str, max_file: int) -> None:
        self.form = Form()
        self.ended = False
        self._file_field = file_field
        self._max_file = max_file
        self._count = 0
        self._key, self._value = bytearray(), bytearray()
        self._headers: dict[str, str] = {}
        self._name = ""
        self._content = bytearray()

    def parser(self, boundary: str) -> MultipartParser:
        from python_multipart.multipart import MultipartParser

        return MultipartParser(
            boundary.encode("latin-1", "replace"),
            {
                "on_part_begin": self._begin,
                "on_header_field": lambda data, start, end: self._header(self._key, data[start:end]),
                "on_header_value": lambda data, start, end: self._header(self._value, data[start:end]),
                "on_header_end": self._end_header,
                "on_headers_finished": self._end_headers,
                "on_part_data": self._take,
                "on_part_end": self._end,
                "on_end": self._finish,
            },
        )

    def _begin(self) -> None:
        self._count += 1
        if self._count > MAX_FIELDS:
            raise RequestError(400, f"the form has more than {MAX_FIELDS} fields")
        self._headers, self._name, self._content = {}, "", bytearray()

    def _header(self, word: bytearray, more: bytes) -> None:
        word += more
        if len(word) > MAX_HEADER_BYTES:
            raise RequestError(400, "a header of the form is too long")

    def _end_header(self) -> None:
        self._headers[self._key.decode("latin-1").lower()] = self._value.decode("utf-8", "replace")
        self._key.clear()
        self._value.clear()

    def _end_headers(self) -> None:
        words = Message()
        words["content-disposition"] = self._headers.get("content-disposition", "")
        try:
            name = words.get_param("name", "", "content-disposition")
        except (TypeError, ValueError) as error:  # parameters that Python's parser stumbles over
            raise RequestError(400, "a header of the form cannot be read") from error
        self._name = name if isinstance(name, str) else name[2]

    def _take(self, data: bytes, start: int, end: int) -> None:
        self._content += data[start:end]
        if self._name == self._file_field:
            if len(self._content) > self._max_file:
                raise _too_large(self._max_file)
        elif len(self._content) > MAX_FIELD_BYTES:
            raise RequestError(400, f"the field {self._name[:40]!r} of the form is too long")

    def _end(self) -> None:
        if self._name != self._file_field:
            self.form.fields[self._name] = self._content.decode("utf-8", "replace")
        elif self.form.file is not None:
            raise RequestError(
                400, f"the form has more than one {self._file_field!r}; send one image a request"
            )
        else:
            self.form.file = bytes(self._content)

    def _finish(self) -> None:
        self.ended = True


def _boundary(content_type: str) -> tuple[str, str]:
    words = Message()
    words["content-type"] = content_type.replace("\r", "").replace("\n", "")
    try:
        boundary = words.get_boundary("")
    except (TypeError, ValueError):  # parameters that Python's parser stumbles over
        return "", ""
    return words.get_content_type(), boundary if isinstance(boundary, str) else ""


def _too_large(limit: int) -> RequestError:
    return RequestError(413, f"the upload is larger than {limit / 2**20:g} MB")
