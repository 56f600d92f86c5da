"""The text of a bundle's frames: ``# x,y,index``, then a row of whole numbers a point.

Whole bundles are parsed in one pass. What that pass does not take is read line by line, which
either finds the file and line to blame, or gives the same points for text that is merely unusual:
CRLF or no line end, a byte order mark, blanks around numbers, blank lines, no header.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv

from cluster.errors import InputError

HEADER = b"# x,y,index\n"
_HEADER_LIKE = re.compile(r"[ \t]*#?[ \t]*x[ \t]*,[ \t]*y[ \t]*,[ \t]*index[ \t]*")
_HEADER_LINE = re.compile(_HEADER_LIKE.pattern.encode() + rb"\n")
_MEANT_AS_HEADER = re.compile(r"#|[xy]|index", re.IGNORECASE)
_INTEGER = re.compile(r"[+-]?[0-9]+")
_PLAIN = b"0123456789,-\n"
_ARROW_LARGEST_BLOCK = 2**31 - 2
_INT16 = np.iinfo(np.int16)
_SHOWN_CHARACTERS = 200  # most paths whole


class BadBundle(InputError):
    """A panel bundle that cannot be used.

    Parameters
    ----------
    file : str
        The file to blame, or the folder.
    line : int or None
        Its line, counted from 1 with the header; None where it is about the whole file.
    reason : str
    value : object, optional
        What was found there.
    """

    def __init__(self, file: str, line: int | None, reason: str, value: object = None) -> None:
        self.file, self.line, self.reason, self.value = file, line, reason, value
        where = file if line is None else f"{file}, line {line}"
        super().__init__(where, reason, got=None if value is None else shown(value))

    def __reduce__(self) -> tuple[type, tuple[str, int | None, str, object]]:
        return type(self), (self.file, self.line, self.reason, self.value)


def shown(value: object) -> str:
    """Return ``value`` as one short line that any log or table can hold."""
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    text = text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
    return text if text.isprintable() else repr(text)[1:-1]


def parse_frames(texts: Sequence[bytes], files: Sequence[str]) -> npt.NDArray[np.int16]:
    """Return the points of one panel's frames.

    Parameters
    ----------
    texts : sequence of bytes
        The frames' files, in order of time.
    files : sequence of str
        What they are called in messages.

    Returns
    -------
    ndarray (2, n_frames, n_points), int16, px
        x and y, in order of the index.

    Raises
    ------
    BadBundle
        At the first line that is not a row of three integers, at values that int16 does not hold,
        and where a frame's indices are not 1 … n with the same n in every frame.
    """
    points = _parse_at_once(texts)
    return _parse_by_line(texts, files) if points is None else points


def _parse_at_once(texts: Sequence[bytes]) -> npt.NDArray[np.int16] | None:
    """Return the points, or None where anything at all is unusual."""
    rows = [_plain_rows(text) for text in texts]
    counts = {text.count(b"\n") for text in rows}
    joined = b"".join(rows)
    if len(counts) != 1 or counts == {0} or len(joined) > _ARROW_LARGEST_BLOCK:
        return None
    if joined.translate(None, _PLAIN):  # Arrow would take blanks, lone CR and more in its own way
        return None
    try:
        table = pa.csv.read_csv(
            pa.py_buffer(joined),
            pa.csv.ReadOptions(
                use_threads=False, block_size=len(joined) + 1, column_names=["x", "y", "index"]
            ),
            pa.csv.ParseOptions(quote_char=False, ignore_empty_lines=False),
            pa.csv.ConvertOptions(
                check_utf8=False,
                column_types={"x": pa.int16(), "y": pa.int16(), "index": pa.int32()},
                null_values=[],
            ),
        )
    except pa.ArrowInvalid:
        return None
    n_points = counts.pop()
    shape = (len(texts), n_points)
    x, y, index = (column.to_numpy().reshape(shape) for column in table.columns)
    usual = np.arange(1, n_points + 1, dtype=np.int32)
    if (index == usual).all():
        return np.stack([x, y])
    order = np.argsort(index, axis=1)
    if not (np.take_along_axis(index, order, axis=1) == usual).all():
        return None
    return np.stack([np.take_along_axis(values, order, axis=1) for values in (x, y)])


def _plain_rows(text: bytes) -> bytes:
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n")
    header = _HEADER_LINE.match(text)
    text = text[header.end() :] if header else text
    return text if text.endswith(b"\n") else text + b"\n"


def _parse_by_line(texts: Sequence[bytes], files: Sequence[str]) -> npt.NDArray[np.int16]:
    frames = [_frame_by_line(text, file) for text, file in zip(texts, files, strict=True)]
    usual = Counter(map(len, frames)).most_common(1)[0][0]
    for frame, file in zip(frames, files, strict=True):
        if len(frame) != usual:
            raise BadBundle(file, None, f"other point count than most frames, {usual}", len(frame))
    # (n_frames, n_points, 2) to x and y first
    return np.ascontiguousarray(np.moveaxis(np.array(frames, dtype=np.int16), 2, 0))


def _frame_by_line(data: bytes, file: str) -> list[tuple[int, int]]:
    """Return the (x, y) of one frame's points, in order of the index."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadBundle(file, line, "not UTF-8 text", data[error.start : error.end]) from None
    points: dict[int, tuple[int, int]] = {}
    line_of: dict[int, int] = {}
    for line, row in enumerate(text.split("\n"), start=1):
        row = row.removesuffix("\r")
        if not row.strip(" \t") or (line == 1 and _HEADER_LIKE.fullmatch(row)):
            continue
        if line == 1 and _MEANT_AS_HEADER.search(row):
            raise BadBundle(file, line, "header is not '# x,y,index'", row)
        x, y, index = _row(row, file, line)
        if index in points:
            raise BadBundle(file, line, f"index repeated, first on line {line_of[index]}", index)
        points[index], line_of[index] = (x, y), line
    if not points:
        raise BadBundle(file, None, "no points in it" if data else "empty file")
    for expected, index in enumerate(sorted(points), start=1):
        if index != expected:
            raise BadBundle(file, line_of[index], f"index {expected} is missing", index)
    return [points[index] for index in sorted(points)]


def _row(row: str, file: str, line: int) -> tuple[int, int, int]:
    fields = [field.strip(" \t") for field in row.split(",")]
    if len(fields) != 3 or "" in fields:
        raise BadBundle(file, line, "torn row, not x,y,index", row)
    for field in fields:
        if not _INTEGER.fullmatch(field):
            raise BadBundle(file, line, "not an integer", field)
    # int() refuses thousands of digits, and far fewer are outside already.
    x, y, index = (int(field if len(field) < 8 else _shortened(field)) for field in fields)
    for name, value, text in (("x", x, fields[0]), ("y", y, fields[1])):
        if not _INT16.min <= value <= _INT16.max:
            raise BadBundle(file, line, f"{name} is outside {_INT16.min} … {_INT16.max}", text)
    if index < 1:
        raise BadBundle(file, line, "index is counted from 1", fields[2])
    return x, y, index


def _shortened(integer: str) -> str:
    sign = "-" if integer.startswith("-") else ""
    return sign + (integer.lstrip("+-").lstrip("0")[:9] or "0")
