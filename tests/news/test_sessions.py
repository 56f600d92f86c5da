"""Sessions: which one a news item belongs to, around closes, half days, clocks and holidays."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import InputError
from pipelines.news.market.sessions import CalendarConfig, check_calendar, make_sessions

STOCKNET = Path(__file__).parents[2] / ".." / "shared" / "data" / "stocknet"
NEW_YORK = make_sessions(CalendarConfig(), "2014-01-02", "2015-12-31")
SEOUL = make_sessions(CalendarConfig(exchange="XKRX"), "2014-01-02", "2015-12-30")


def session_date(sessions, stamp: str) -> str:
    index = int(sessions.assign(np.array([stamp], dtype="datetime64[us]"))[0])
    return "outside" if index < 0 else str(sessions.dates[index])


# All times are UTC. New York closes at 21:00 in winter, 20:00 in summer; Seoul at 06:00.
@pytest.mark.parametrize(
    ("sessions", "stamp", "date"),
    [
        (NEW_YORK, "2015-01-05T15:00", "2015-01-05"),
        (NEW_YORK, "2015-01-05T21:00", "2015-01-05"),
        (NEW_YORK, "2015-01-05T21:00:00.000001", "2015-01-06"),
        (NEW_YORK, "2015-03-06T20:30", "2015-03-06"),
        (NEW_YORK, "2015-03-09T20:30", "2015-03-10"),
        (NEW_YORK, "2015-10-30T20:30", "2015-11-02"),
        (NEW_YORK, "2015-11-02T20:30", "2015-11-02"),
        (NEW_YORK, "2015-01-10T12:00", "2015-01-12"),
        (NEW_YORK, "2015-01-16T22:00", "2015-01-20"),
        (NEW_YORK, "2014-07-03T17:00", "2014-07-03"),
        (NEW_YORK, "2014-07-03T17:00:01", "2014-07-07"),
        (SEOUL, "2015-01-05T06:00", "2015-01-05"),
        (SEOUL, "2015-01-05T06:01", "2015-01-06"),
        (SEOUL, "2015-09-25T07:00", "2015-09-30"),
        (SEOUL, "2014-11-13T06:30", "2014-11-13"),
        (NEW_YORK, "2013-12-31T21:00", "outside"),
        (NEW_YORK, "2013-12-31T21:01", "2014-01-02"),
        (NEW_YORK, "2015-12-31T21:00", "2015-12-31"),
        (NEW_YORK, "2015-12-31T21:01", "outside"),
    ],
    ids=[
        "in hours",
        "at the close",
        "just after the close",
        "before the clocks go forward",
        "after the clocks went forward",
        "Friday evening before the clocks go back",
        "after the clocks went back",
        "Saturday",
        "before a long weekend",
        "at the close of a half day",
        "after a half day, before the usual close",
        "Seoul at the close",
        "Seoul after the close",
        "Seoul before Chuseok",
        "Seoul closes late on the day of the entrance examination",
        "at the close before the first session",
        "before the first session",
        "last close",
        "after the last close",
    ],
)
def test_news_belong_to_the_session_that_closes_next(sessions, stamp, date):
    assert session_date(sessions, stamp) == date


def test_fixed_cutoff_is_local_time_and_not_later_than_an_early_close():
    sessions = make_sessions(CalendarConfig(cutoff="15:30"), "2014-01-02", "2015-12-31")
    assert session_date(sessions, "2015-01-05T20:30") == "2015-01-05"
    assert session_date(sessions, "2015-01-05T20:31") == "2015-01-06"
    assert session_date(sessions, "2015-07-06T19:31") == "2015-07-07", "summer time"
    assert session_date(sessions, "2014-07-03T17:01") == "2014-07-07", "half day"


def test_null_stamps_and_arrow_columns_of_any_unit_are_taken():
    stamps = pa.chunked_array([pa.array([1_420_470_000, None], pa.timestamp("s", "UTC"))])
    assert NEW_YORK.assign(stamps).tolist() == [253, -1], "the second session of 2015"
    assert NEW_YORK.assign(stamps).dtype == np.int32


def test_dates_that_are_no_session_have_no_index():
    dates = np.array(["2014-01-02", "2014-01-04", "2030-01-01", "1999-01-01"], "datetime64[D]")
    assert NEW_YORK.index_of(dates).tolist() == [0, -1, -1, -1]


@settings(deadline=None)
@given(
    st.lists(st.datetimes(datetime(2013, 12, 1), datetime(2016, 2, 1)), min_size=2, max_size=40),
    st.sampled_from([NEW_YORK, SEOUL]),
)
def test_assignment_is_monotone_and_the_first_cutoff_not_before_the_stamp(stamps, sessions):
    ordered = np.sort(np.array(stamps, dtype="datetime64[us]"))
    index = sessions.assign(ordered)
    inside = index[index >= 0]
    assert (np.diff(inside) >= 0).all()
    cutoffs = [sessions.opens_utc, *sessions.cutoffs_utc]
    for stamp, i in zip(ordered, index, strict=True):
        later = [k for k, cutoff in enumerate(cutoffs) if stamp <= cutoff]
        expected = later[0] - 1 if later else -1
        assert i == expected


@pytest.mark.parametrize("cutoff", ["close", "00:00", "02:30", "15:30", "23:59"])
@pytest.mark.parametrize("exchange", ["XNYS", "XKRX", "XLON", "24/7"])
def test_cutoffs_rise_and_stay_within_a_day_of_their_session(exchange, cutoff):
    config = CalendarConfig(exchange=exchange, cutoff=cutoff)
    sessions = make_sessions(config, "2014-01-01", "2014-12-31")
    assert (np.diff(sessions.cutoffs_utc) > np.timedelta64(0)).all()
    assert sessions.opens_utc < sessions.cutoffs_utc[0]
    assert (np.abs(sessions.cutoffs_utc - sessions.dates) <= np.timedelta64(36, "h")).all()


# ----------------------------------------------------------------------------------- bad input


def test_unknown_exchange_suggests_near_ones():
    with pytest.raises(InputError, match=r"--exchange: unknown calendar.*NOPE") as caught:
        make_sessions(CalendarConfig(exchange="NOPE"), "2015-01-01", "2015-02-01")
    assert caught.value.exit_code == 2
    with pytest.raises(InputError, match="Did you mean XNYS"):
        make_sessions(CalendarConfig(exchange="xnys"), "2015-01-01", "2015-02-01")


@pytest.mark.parametrize(
    ("exchange", "first", "last"),
    [("XNYS", "2015-01-03", "2015-01-04"), ("XKRX", "1900-01-01", "1901-01-01")],
)
def test_time_without_sessions_is_an_error(exchange, first, last):
    with pytest.raises(InputError, match=f"{exchange} has no session from {first} to {last}"):
        make_sessions(CalendarConfig(exchange=exchange), first, last)


@pytest.mark.parametrize("cutoff", ["noon", "24:00", "9:30", "15:60", ""])
def test_malformed_cutoff_is_refused(cutoff):
    with pytest.raises(InputError, match="--cutoff"):
        CalendarConfig(cutoff=cutoff)


def test_negative_lags_are_refused():
    with pytest.raises(InputError, match="--lags: negative"):
        CalendarConfig(lags=-1)


def test_prices_of_another_exchange_are_refused():
    with pytest.raises(InputError, match="Pass the exchange that the prices come from"):
        check_calendar(NEW_YORK, SEOUL.dates)
    weekend = np.array(["2015-01-03"], dtype="datetime64[D]")
    with pytest.raises(InputError, match="no sessions of XNYS"):
        check_calendar(NEW_YORK, weekend)


def test_rows_on_holidays_and_missing_sessions_alone_are_tolerated():
    holiday = np.array(["2015-01-01", "2015-01-01"], dtype="datetime64[D]")
    assert check_calendar(NEW_YORK, np.append(NEW_YORK.dates, holiday)) == 2
    assert check_calendar(NEW_YORK, NEW_YORK.dates[::2]) == 0


@pytest.mark.skipif(not STOCKNET.exists(), reason=f"real texts are not at {STOCKNET}")
def test_stocknet_falls_on_sessions_of_new_york_only():
    dates = pq.read_table(STOCKNET / "prices.parquet")["date"].to_numpy()
    for exchange in ("XNYS", "XKRX"):
        sessions = make_sessions(CalendarConfig(exchange=exchange), dates.min(), dates.max())
        if exchange == "XNYS":
            assert check_calendar(sessions, dates) == 0
        else:
            with pytest.raises(InputError, match="XKRX"):
                check_calendar(sessions, dates)
