"""Read multipart/form-data as it arrives: in memory, and no more than is allowed.

Starlette's own form parser would write larger files to disk and check their size only afterwards.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from python_multipart.multipart import Field, File, FormParser, parse_options_header

from serve.errors import RequestError
from utils.base.errors import one_line

MAX_FIELDS, MAX_FIELD_BYTES = 16, 4096
_OVERHEAD = MAX_FIELDS * 2 * MAX_FIELD_BYTES  # bytes of text fields and part headers beside the image


@dataclass
class Form:
    """Text fields by name, and the bytes of the image file, None without one."""

    fields: dict[str, str] = field(default_factory=dict)
    file: bytes | None = None


async def read_form(
    content_type: str, length: str | None, chunks: AsyncIterator[bytes], file_field: str, max_file: int
) -> Form:
    """Parse the body of a request.

    Args:
        content_type: the header, with the boundary.
        length: the header Content-Length, which may be absent or wrong.
        chunks: the body as it arrives.
        file_field: name of the field that holds the file; a second file is an error.
        max_file: largest number of bytes of the file.

    Raises:
        RequestError: 415 not a form, 413 too large (the rest is not read), 400 a damaged form.
    """
    parts = _FormBuilder(file_field, max_file)
    received = 0
    try:
        parser = parts.parser(content_type)
        if length is not None and length.isdigit() and int(length) > max_file + _OVERHEAD:
            raise _too_large(max_file)
        async for chunk in chunks:
            received += len(chunk)
            if received > max_file + _OVERHEAD:
                raise _too_large(max_file)
            parser.write(chunk)
    except (TypeError, ValueError) as error:  # FormParserError is one; old parsers of headers raise others
        raise RequestError(400, f"the form cannot be read: {one_line(error)}") from error
    if not parts.complete:
        raise RequestError(400, "the form is cut off")
    return parts.form


class _FormBuilder:
    """Collects the parts of a form as the parser completes them."""

    def __init__(self, file_field: str, max_file: int) -> None:
        self.form = Form()
        self.complete = False
        self._file_field = file_field
        self._max_file = max_file
        self._count = 0

    def parser(self, content_type: str) -> FormParser:
        """Return a parser that keeps files in memory and reports to this builder."""
        kind, parameters = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not parameters.get(b"boundary"):
            raise RequestError(
                415, f"send multipart/form-data with the image in the field {self._file_field!r}"
            )
        return FormParser(
            "multipart/form-data",
            lambda part: self._add(part, part.value or b""),
            self._add_file,
            self._end,
            parameters[b"boundary"],
            config={"MAX_MEMORY_FILE_SIZE": math.inf},
        )

    def _add_file(self, file: File) -> None:
        file.file_object.seek(0)
        self._add(file, file.file_object.read())

    def _add(self, part: Field | File, content: bytes) -> None:
        self._count += 1
        if self._count > MAX_FIELDS:
            raise RequestError(400, f"the form has more than {MAX_FIELDS} fields")
        name = (part.field_name or b"").decode("utf-8", "replace")
        if name != self._file_field:
            if len(content) > MAX_FIELD_BYTES:
                raise RequestError(400, f"the field {name[:40]!r} of the form is too long")
            self.form.fields[name] = content.decode("utf-8", "replace")
            return
        if len(content) > self._max_file:
            raise _too_large(self._max_file)
        if self.form.file is not None:
            raise RequestError(400, f"the form has several {name!r} fields; send one image per request")
        self.form.file = content

    def _end(self) -> None:
        self.complete = True


def _too_large(limit: int) -> RequestError:
    return RequestError(413, f"the upload is larger than {limit / 2**20:g} MB")
