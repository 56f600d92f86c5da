"""Turn raw columns into text, UTC times, dates and numbers; a mask tells the rows that fail.

A column of a type that cannot be meant raises ``InputError`` at once.
"""

from __future__ import annotations

from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import InputError

_DAY = r"^\s*\d{4}-?\d{2}-?\d{2}"
_OFFSET = r"[Tt ]\d{2}.*(?:[Zz]|[+-]\d{2}(?::?\d{2})?)\s*$"
_DATE = r"^\s*(?:\d{4}-\d{2}-\d{2}|\d{8})(?:[Tt ]00:00(?::00(?:\.0*)?)?)?\s*$"
_MISSING = pa.array(["", "na", "n/a", "#n/a", "nan", "null", "none", "-"])


def as_text(
    column: pa.ChunkedArray, file: str, name: str
) -> tuple[pa.ChunkedArray, np.ndarray, np.ndarray]:
    """Return strings (null where missing or broken), and masks of broken UTF-8 and of NULs.

    Integers become their digits, so that numeric tickers may be used.
    """
    column = _decoded(column)
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_null(kind):
        column = column.cast(pa.string())
    elif not _is_text(kind):
        raise InputError(file, f"column {name!r}", "text", kind, "Name the column that holds it.")
    raw = column.cast(pa.large_binary())
    broken = np.zeros(len(column), dtype=bool)
    try:
        text = raw.cast(pa.large_string())  # validates UTF-8
    except pa.ArrowInvalid:
        values = raw.to_pylist()
        broken = np.array([v is not None and not _is_utf8(v) for v in values])
        kept = [None if bad else v for v, bad in zip(values, broken, strict=True)]
        text = pa.chunked_array([pa.array(kept, pa.large_binary())]).cast(pa.large_string())
    if text.nbytes < 2**31:
        text = text.cast(pa.string())
    return text, broken, mask(pc.match_substring(text, "\x00"))


def as_utc(
    column: pa.ChunkedArray, timezone: str | None, file: str, name: str
) -> tuple[pa.ChunkedArray, np.ndarray]:
    """Return ``timestamp[us, UTC]`` (null where unreadable), and a mask of stamps without offset.

    Those are taken for local times of ``timezone`` (UTC when None; the caller refuses): where a
    clock going back makes two of a time, the earlier; where it skips one, the moment of the jump.
    """
    column = _decoded(column)
    kind = column.type
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        return column.cast(pa.timestamp("us", "UTC"), safe=False), np.zeros(len(column), dtype=bool)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        stamps = pd.Series(column.cast(pa.timestamp("us"), safe=False).to_pandas())
        return _from_pandas(_localised(stamps, timezone)), mask(column.is_valid())
    if not (_is_text(kind) or pa.types.is_null(kind)):
        fix = "Write ISO 8601 times such as 2015-06-30T15:59:00-04:00."
        raise InputError(file, f"column {name!r}", "times", kind, fix)
    text, _, _ = as_text(column, file, name)
    series = text.to_pandas().astype("str")
    dated = mask(pc.match_substring_regex(text, _DAY))
    offset = dated & mask(pc.match_substring_regex(text, _OFFSET))
    stamps = pd.Series(pd.NaT, index=series.index, dtype="datetime64[us, UTC]")
    stamps[offset] = pd.to_datetime(series[offset], utc=True, format="ISO8601", errors="coerce")
    local = pd.to_datetime(series[dated & ~offset], format="ISO8601", errors="coerce")
    stamps[dated & ~offset] = _localised(local, timezone)
    return _from_pandas(stamps), dated & ~offset & stamps.notna().to_numpy()


def as_dates(column: pa.ChunkedArray, file: str, name: str) -> tuple[np.ndarray, pa.ChunkedArray]:
    """Return ``datetime64[D]`` (NaT where unreadable) and the column as it can be shown.

    Dates, local timestamps of any hour, midnights of a time zone, ``2015-06-30`` and ``20150630``
    are dates; a zoned time of day is not, for its day depends on where one stands.
    """
    column = _decoded(column)
    kind = column.type
    if pa.types.is_date(kind) or (pa.types.is_timestamp(kind) and kind.tz is None):
        return column.cast(pa.date32(), safe=False).to_numpy().astype("datetime64[D]"), column
    if pa.types.is_timestamp(kind):
        wall = pd.Series(column.to_pandas()).dt.tz_localize(None)
        days = wall.where(wall.dt.normalize() == wall)
        return days.to_numpy().astype("datetime64[D]"), column
    if not (_is_text(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)):
        raise InputError(file, f"column {name!r}", "dates", kind, "Write dates as 2015-06-30.")
    text, _, _ = as_text(column, file, name)
    series = text.to_pandas().astype("str")
    dated = mask(pc.match_substring_regex(text, _DATE))
    days = np.full(len(series), np.datetime64("NaT"), dtype="datetime64[D]")
    parsed = pd.to_datetime(series[dated], format="ISO8601", errors="coerce")
    days[dated] = parsed.to_numpy().astype("datetime64[D]")
    return days, text


def as_numbers(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return float64 (NaN where missing or unreadable) and a mask of the unreadable.

    None stands for a column of a type that is neither numbers nor text.
    """
    column = _decoded(column)
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        values = column.cast(pa.float64(), safe=False)
        return np.asarray(pc.fill_null(values, np.nan)), np.zeros(len(column), dtype=bool)
    if pa.types.is_null(kind):
        return np.full(len(column), np.nan), np.zeros(len(column), dtype=bool)
    if not _is_text(kind):
        return None
    text, broken, _ = as_text(column, "", "")
    trimmed = pc.utf8_trim_whitespace(text)
    empty = mask(pc.is_in(pc.utf8_lower(trimmed), value_set=_MISSING.cast(trimmed.type)))
    parsed = pd.to_numeric(trimmed.to_pandas(), errors="coerce").to_numpy(dtype=np.float64)
    bad = broken | (np.isnan(parsed) & ~empty & mask(text.is_valid()))
    return parsed, bad


def mask(flags: pa.ChunkedArray) -> np.ndarray:
    """Return an Arrow boolean column as a NumPy mask, null being False."""
    return np.asarray(pc.fill_null(flags, False), dtype=bool)


def _decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        return column.cast(column.type.value_type)
    return column


def _is_text(kind: pa.DataType) -> bool:
    return any(
        test(kind)
        for test in (
            pa.types.is_string,
            pa.types.is_large_string,
            pa.types.is_string_view,
            pa.types.is_binary,
            pa.types.is_large_binary,
        )
    )


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _localised(stamps: pd.Series, timezone: str | None) -> pd.Series:
    zone = ZoneInfo(timezone) if timezone else ZoneInfo("UTC")
    first = np.ones(len(stamps), dtype=bool)
    local = stamps.dt.tz_localize(zone, ambiguous=first, nonexistent="shift_forward")
    return local.dt.tz_convert("UTC")


def _from_pandas(stamps: pd.Series) -> pa.ChunkedArray:
    return pa.chunked_array([pa.Array.from_pandas(stamps).cast(pa.timestamp("us", "UTC"))])
