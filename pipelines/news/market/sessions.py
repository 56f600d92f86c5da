"""Trading sessions of an exchange, and the session a news item belongs to.

A session takes the news after the cut-off of the session before it, up to and including its own
cut-off: what comes after hours, on a weekend or on a holiday belongs to the next session.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field

import exchange_calendars
import numpy as np
import pandas as pd
import pyarrow as pa
from exchange_calendars.errors import CalendarError

from cluster.errors import InputError

_MARGIN = np.timedelta64(31, "D")  # longer than any closure of an exchange since 1945
_FOREIGN_SHARE = 0.02


@dataclass(frozen=True, kw_only=True)
class CalendarConfig:
    """Which sessions there are, and when each stops taking news."""

    exchange: str = field(
        default="XNYS", metadata={"help": "Exchange calendar (ISO 10383 code: XNYS, XKRX, …)."}
    )
    cutoff: str = field(
        default="close",
        metadata={"help": "News up to then count for the session: close, or HH:MM local time."},
    )
    lags: int = field(
        default=0, metadata={"help": "Also fit the targets of 1 … LAGS sessions after the news."}
    )

    def __post_init__(self) -> None:
        if self.cutoff != "close" and not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", self.cutoff):
            fix = "Give a local time of day such as 15:30, or close."
            raise InputError("--cutoff", "unknown", "close or HH:MM", self.cutoff, fix)
        if self.lags < 0:
            raise InputError("--lags", "negative", "0 or more", self.lags, "Pass 0 for no lag.")


@dataclass(frozen=True, eq=False)
class Sessions:
    """Consecutive sessions of one exchange.

    Attributes
    ----------
    exchange : str
    dates : datetime64[D], (n_sessions,)
    cutoffs_utc : datetime64[us], (n_sessions,)
        Rising; news at the very cut-off still belong to the session.
    opens_utc : datetime64[us]
        Cut-off of the session before the first one: later news belong to the first.
    """

    exchange: str
    dates: np.ndarray
    cutoffs_utc: np.ndarray
    opens_utc: np.datetime64

    def __len__(self) -> int:
        return len(self.dates)

    def assign(self, published_at: pa.ChunkedArray | pa.Array | np.ndarray) -> np.ndarray:
        """Return the session of each UTC time stamp as int32, -1 if outside (or null)."""
        if not isinstance(published_at, np.ndarray):
            published_at = published_at.cast(pa.timestamp("us", "UTC")).to_numpy()
        stamps = published_at.astype("datetime64[us]")
        session = np.searchsorted(self.cutoffs_utc, stamps, side="left").astype(np.int32)
        outside = (session == len(self)) | (stamps <= self.opens_utc) | np.isnat(stamps)
        return np.where(outside, np.int32(-1), session)

    def index_of(self, dates: np.ndarray) -> np.ndarray:
        """Return the session of each date as int32, -1 if it is no session."""
        dates = dates.astype("datetime64[D]")
        at = np.minimum(np.searchsorted(self.dates, dates), len(self) - 1)
        return np.where(self.dates[at] == dates, at, -1).astype(np.int32)


def make_sessions(config: CalendarConfig, first: object, last: object) -> Sessions:
    """Return the sessions from ``first`` to ``last`` (dates, both included).

    With a cut-off of ``HH:MM``, a session that closes early stops at that close, if earlier.

    Raises
    ------
    InputError
        When the exchange is unknown, or its calendar has no session in that time.
    """
    start, end = (np.datetime64(str(day), "D") for day in (first, last))
    try:
        calendar = exchange_calendars.get_calendar(
            config.exchange, start=str(start - _MARGIN), end=str(end + 1)
        )
    except CalendarError as error:
        names = exchange_calendars.get_calendar_names()
        if config.exchange in names:
            raise _no_session(config, start, end) from error
        near = difflib.get_close_matches(config.exchange.upper(), names, n=3)
        fix = f"Did you mean {' or '.join(near or ['XNYS', 'XKRX', 'XLON'])}?"
        expected = "an ISO 10383 code such as XNYS or XKRX"
        raise InputError(
            "--exchange", "unknown calendar", expected, config.exchange, fix
        ) from error
    except ValueError as error:  # outside what the calendar records
        raise _no_session(config, start, end) from error
    closes = calendar.schedule["close"]
    days = closes.index.to_numpy().astype("datetime64[D]")
    cutoffs = _microseconds(closes)
    if config.cutoff != "close":
        wall = closes.index + pd.Timedelta(f"{config.cutoff}:00")
        once = np.ones(len(wall), dtype=bool)
        local = wall.tz_localize(calendar.tz, ambiguous=once, nonexistent="shift_forward")
        early = np.isin(closes.index, calendar.early_closes)
        fixed = _microseconds(pd.Series(local.tz_convert("UTC")))
        cutoffs = np.where(early, np.minimum(fixed, cutoffs), fixed)
    inside = (days >= start) & (days <= end)
    before = np.flatnonzero(days < start)
    if not inside.any() or not before.size:
        raise _no_session(config, start, end)
    return Sessions(config.exchange, days[inside], cutoffs[inside], cutoffs[before[-1]])


def check_calendar(sessions: Sessions, dates: np.ndarray) -> int:
    """Return how many of the price rows' ``dates`` are no sessions (their rows are left out).

    Raises
    ------
    InputError
        When days disagree both ways in number: the prices are of another exchange, whose closing
        time would put the news into wrong sessions.
    """
    days = np.unique(dates.astype("datetime64[D]"))
    foreign = days[sessions.index_of(days) < 0]
    empty = np.setdiff1d(sessions.dates, days)
    odd = foreign.size + empty.size
    if foreign.size == days.size or (
        foreign.size and empty.size and odd > _FOREIGN_SHARE * len(sessions)
    ):
        raise InputError(
            "--exchange",
            f"prices on {foreign.size} days that are no sessions of {sessions.exchange}, such as "
            f"{foreign[0]}, and none on {empty.size} of its sessions"
            + (f", such as {empty[0]}" if empty.size else ""),
            fix="Pass the exchange that the prices come from.",
        )
    return int((sessions.index_of(dates) < 0).sum())


def _no_session(config: CalendarConfig, start: np.datetime64, end: np.datetime64) -> InputError:
    return InputError(
        "--exchange",
        f"{config.exchange} has no session from {start} to {end}",
        fix="Check the dates of the prices, or pass another exchange.",
    )


def _microseconds(stamps: pd.Series) -> np.ndarray:
    return stamps.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy().astype("datetime64[us]")
