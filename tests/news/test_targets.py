"""Targets and observations, against loops and pandas that know nothing of the grids."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import InputError
from pipelines.news.market.observations import SEPARATOR, align
from pipelines.news.market.sessions import CalendarConfig, make_sessions
from pipelines.news.market.targets import (
    FORMULAS,
    MARKET,
    TargetConfig,
    build_targets,
    feature_values,
)
from pipelines.news.reading.ingest import InputConfig, read_inputs

STOCKNET = Path(__file__).parents[2] / ".." / "shared" / "data" / "stocknet"
SESSIONS = make_sessions(CalendarConfig(), "2015-01-02", "2015-02-13")
N = len(SESSIONS)
ALL = (*(f.name for f in FORMULAS[:-1]), "change:per")
TICKERS = ["C", "A", "B"]


def make_prices(seed=0, missing=0.15, tickers=TICKERS) -> pd.DataFrame:
    """Rows in disorder, some sessions of some tickers missing, some volumes zero."""
    rng = np.random.default_rng(seed)
    rows = []
    for ticker in tickers:
        for date in SESSIONS.dates:
            if rng.random() < missing:
                continue
            low, high = np.sort(rng.uniform(10, 20, 2))
            close = rng.uniform(low, high)
            rows.append(
                {
                    "ticker": ticker,
                    "date": date.astype(object),
                    "open": rng.uniform(low, high),
                    "high": high,
                    "low": low,
                    "close": close,
                    "adj_close": close * rng.choice([0.5, 1.0]),
                    "volume": rng.choice([0.0, 100.0, 250.0, 900.0], p=[0.1, 0.3, 0.3, 0.3]),
                    "per": rng.choice([np.nan, -3.0, 8.0, 12.0], p=[0.1, 0.1, 0.4, 0.4]),
                }
            )
    return pd.DataFrame(rows).sample(frac=1, random_state=seed)


def as_table(frame: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(frame, preserve_index=False)


def make_news(stamps, tickers) -> pa.Table:
    return pa.table(
        {
            "ticker": pa.array(tickers, pa.string()),
            "published_at": pa.array(stamps, pa.timestamp("us", "UTC")),
            "text": [f"text {i}" for i in range(len(stamps))],
        }
    )


class Oracle:
    """The formulas of the docstring, one ticker and session at a time."""

    def __init__(self, frame: pd.DataFrame, horizon: int, market: str | None) -> None:
        self.rows = {
            (r.ticker, int(SESSIONS.index_of(np.array([r.date], "datetime64[D]"))[0])): r
            for r in frame.itertuples()
        }
        self.tickers, self.h, self.market = sorted(set(frame.ticker)), horizon, market

    def step(self, ticker, s):
        if ticker == MARKET:
            if self.market:
                return self.step(self.market, s)
            steps = [x for t in self.tickers if not math.isnan(x := self.step(t, s))]
            return sum(steps) / len(steps) if steps else math.nan
        now, before = self.rows.get((ticker, s)), self.rows.get((ticker, s - 1))
        return math.log(now.adj_close / before.adj_close) if now and before else math.nan

    def value(self, name, ticker, s):
        if ticker == MARKET and name in ("log_range", "volume_change", "change:per"):
            if self.market:
                return self.value(name, self.market, s)
            found = [x for t in self.tickers if not math.isnan(x := self.value(name, t, s))]
            return sum(found) / len(found) if found else math.nan
        if name.startswith("abs_"):
            return abs(self.value(name.removeprefix("abs_"), ticker, s))
        span = range(s, s + self.h)
        if name == "return":
            return sum(self.step(ticker, i) for i in span)
        if name == "excess_return":
            if ticker in (MARKET, self.market):
                return math.nan
            return sum(self.step(ticker, i) - self.step(MARKET, i) for i in span)
        rows = [self.rows.get((ticker, i)) for i in span]
        before = [self.rows.get((ticker, i - self.h)) for i in span]
        if name == "log_range":
            if None in rows:
                return math.nan
            high = max(r.high * r.adj_close / r.close for r in rows)
            return math.log(high / min(r.low * r.adj_close / r.close for r in rows))
        if name == "volume_change":
            if None in rows + before or not all(r.volume > 0 for r in rows + before):
                return math.nan
            return math.log(sum(r.volume for r in rows) / sum(r.volume for r in before))
        levels = [self.rows.get((ticker, i)) for i in range(s - 1, s + self.h)]
        if None in levels or not all(r.per > 0 for r in levels):
            return math.nan
        return levels[-1].per / levels[0].per - 1


# ------------------------------------------------------------------------------------- targets


@pytest.mark.parametrize("market", [None, "B"])
@pytest.mark.parametrize("horizon", [1, 3])
@pytest.mark.parametrize("seed", [0, 1])
def test_targets_match_the_formulas_applied_one_by_one(seed, horizon, market):
    frame = make_prices(seed)
    config = TargetConfig(targets=ALL, horizon=horizon, market=market)
    targets = build_targets(as_table(frame), SESSIONS, config, lags=2)
    assert targets.tickers == ["A", "B", "C", MARKET]
    assert targets.values.shape == (4, N, 3 * len(ALL))
    oracle = Oracle(frame, horizon, market)
    for k, name in enumerate(targets.names):
        base, _, lag = name.partition("+")
        for i, ticker in enumerate(targets.tickers):
            for s in range(N):
                expected = oracle.value(base, ticker, s + int(lag or 0))
                got = targets.values[i, s, k]
                assert got == pytest.approx(expected, abs=1e-12, nan_ok=True), (name, ticker, s)


def test_names_tell_the_lag():
    targets = build_targets(as_table(make_prices()), SESSIONS, TargetConfig(targets=("return",)), 2)
    assert targets.names == ["return", "return+1", "return+2"]


def test_excess_returns_match_pandas():
    frame = make_prices(missing=0).sort_values(["ticker", "date"])
    steps = frame.groupby("ticker")["adj_close"].transform(lambda p: np.log(p).diff())
    excess = steps - steps.groupby(frame["date"]).transform("mean")
    expected = excess.to_numpy().reshape(3, N)
    targets = build_targets(as_table(frame), SESSIONS, TargetConfig(targets=("excess_return",)))
    np.testing.assert_allclose(targets.values[:3, :, 0], expected, atol=1e-12)


def test_no_target_spans_a_gap():
    frame = make_prices(missing=0)
    halted = frame["date"] == SESSIONS.dates[10].astype(object)
    frame = frame[~(halted & (frame["ticker"] == "A"))]
    config = TargetConfig(targets=("return", "log_range", "volume_change"), horizon=2)
    undefined = np.isnan(build_targets(as_table(frame), SESSIONS, config).values[0]).T
    assert np.flatnonzero(undefined[0]).tolist() == [0, 9, 10, 11, N - 1]
    assert np.flatnonzero(undefined[1]).tolist() == [9, 10, N - 1]
    assert set(np.flatnonzero(undefined[2])) >= {0, 1, 9, 10, 11, 12, N - 1}


def test_close_is_used_when_there_is_no_adjusted_close():
    frame = make_prices(missing=0)
    only_close = as_table(frame.drop(columns=["adj_close"]))
    adjusted = as_table(frame.assign(adj_close=frame["close"]))
    config = TargetConfig(horizon=3)
    np.testing.assert_allclose(
        build_targets(only_close, SESSIONS, config).values,
        build_targets(adjusted, SESSIONS, config).values,
        atol=1e-12,
    )


def test_a_split_inside_the_horizon_leaves_the_range_alone():
    dates = SESSIONS.dates[:3]
    flat = {"open": 10.0, "high": 11.0, "low": 9.0, "close": 10.0, "adj_close": 5.0}
    rows = [{"ticker": "A", "date": d.astype(object), "volume": 1.0} | flat for d in dates]
    rows[2] |= {"open": 5.0, "high": 5.5, "low": 4.5, "close": 5.0}
    config = TargetConfig(targets=("log_range",), horizon=3)
    targets = build_targets(as_table(pd.DataFrame(rows)), SESSIONS, config)
    assert targets.values[0, 0, 0] == pytest.approx(math.log(11 / 9))


def test_price_rows_on_holidays_are_left_out_and_counted():
    frame = make_prices(missing=0)
    holiday = frame.iloc[:1].assign(date=pd.Timestamp("2015-01-19").date())
    with_holiday = build_targets(as_table(pd.concat([frame, holiday])), SESSIONS, TargetConfig())
    without = build_targets(as_table(frame), SESSIONS, TargetConfig())
    np.testing.assert_array_equal(with_holiday.values, without.values)
    assert with_holiday.dropped == {"price rows on days that are no session": 1}


@pytest.mark.parametrize("lags", [N, N + 5])
def test_lags_longer_than_the_calendar_leave_nothing(lags):
    targets = build_targets(as_table(make_prices()), SESSIONS, TargetConfig(), lags)
    assert np.isnan(targets.values[:, :, -4:]).all()


def test_features_are_the_last_value_known_before_the_session():
    frame = make_prices(seed=3)
    values, tickers = feature_values(as_table(frame), SESSIONS, ("per", "close"))
    for i, ticker in enumerate(tickers[:-1]):
        own = frame[frame["ticker"] == ticker].set_index("date")
        for s, date in enumerate(SESSIONS.dates):
            for k, name in enumerate(("per", "close")):
                known = own[name][own.index < date.astype(object)].sort_index().dropna()
                expected = known.iloc[-1] if len(known) else np.nan
                np.testing.assert_equal(values[i, s, k], expected)
    np.testing.assert_allclose(values[-1, 5:], np.nanmean(values[:-1, 5:], axis=0))


# ----------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": ("excess_returns",)}, "unknown target.*Did you mean excess_return?"),
        ({"targets": ("change:",)}, "unknown target"),
        ({"targets": ()}, "--targets: none given"),
        ({"targets": ("return", "return")}, "'return' given twice"),
        ({"horizon": 0}, "--horizon: too short"),
    ],
)
def test_impossible_configuration_is_refused(options, message):
    with pytest.raises(InputError, match=message) as caught:
        TargetConfig(**options)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("options", "lost", "message"),
    [
        ({"market": "NOPE"}, [], "--market: unknown ticker.*NOPE"),
        ({"targets": ("change:pbr",)}, [], "needs the price column 'pbr'.*columns open.*per"),
        ({"targets": ("log_range",)}, ["high"], "--high-column"),
        ({"targets": ("volume_change",)}, ["volume"], "--volume-column"),
        ({"features": ("pbr",)}, [], "--features: no price column 'pbr'"),
    ],
)
def test_target_that_the_prices_cannot_give_is_refused(options, lost, message):
    prices = as_table(make_prices().drop(columns=lost))
    with pytest.raises(InputError, match=message):
        build_targets(prices, SESSIONS, TargetConfig(**options))


def test_unknown_feature_is_refused():
    with pytest.raises(InputError, match="no price column 'pbr'"):
        feature_values(as_table(make_prices()), SESSIONS, ("pbr",))


def test_excess_of_a_single_ticker_over_itself_is_refused():
    prices = as_table(make_prices(tickers=["A"]))
    with pytest.raises(InputError, match="A, the only ticker"):
        build_targets(prices, SESSIONS, TargetConfig())


# -------------------------------------------------------------------------------- observations

stamp = st.integers(
    int(np.datetime64("2014-12-29", "s").astype(int)),
    int(np.datetime64("2015-02-17", "s").astype(int)),
)


@settings(deadline=None, max_examples=40)
@given(
    documents=st.lists(st.tuples(stamp, st.sampled_from(["A", "B", "C", "X"])), max_size=60),
    seed=st.integers(0, 3),
    kind=st.sampled_from(["documents", "days"]),
)
def test_align_equals_a_loop_over_the_documents(documents, seed, kind):
    # Two documents that are always there, so that no target is constant or empty.
    base = [(int(SESSIONS.cutoffs_utc[i].astype(int)) // 10**6, "A") for i in range(3, N - 3)]
    documents = base + documents
    stamps = np.array([s for s, _ in documents]).astype("datetime64[s]").astype("datetime64[us]")
    news = make_news(stamps, [t for _, t in documents])
    targets = build_targets(as_table(make_prices(seed)), SESSIONS, TargetConfig(), 1)

    rows, counts = [], {"outside the calendar": 0, "ticker without prices": 0, "no target": 0}
    for i, (at, ticker) in enumerate(zip(stamps, news["ticker"].to_pylist(), strict=True)):
        closes = [k for k, cutoff in enumerate(SESSIONS.cutoffs_utc) if at <= cutoff]
        if not closes or at <= SESSIONS.opens_utc:
            counts["outside the calendar"] += 1
        elif ticker not in targets.tickers:
            counts["ticker without prices"] += 1
        elif np.isnan(y := targets.values[targets.tickers.index(ticker), closes[0]]).all():
            counts["no target"] += 1
        else:
            rows.append((closes[0], ticker, i, y))
    if kind == "days":
        groups = {}
        for s, ticker, i, y in rows:
            groups.setdefault((s, ticker), []).append((i, y))
        expected = [
            (s, ticker, found[0][0], SEPARATOR.join(f"text {i}" for i, _ in found), found[0][1])
            for (s, ticker), found in sorted(groups.items())
        ]
    else:
        expected = [(s, ticker, i, f"text {i}", y) for s, ticker, i, y in rows]

    got = align(news, targets, SESSIONS, kind)
    assert got.session.tolist() == [row[0] for row in expected]
    assert [got.tickers[t] for t in got.ticker] == [row[1] for row in expected]
    assert got.doc_first.tolist() == [row[2] for row in expected]
    assert got.text.to_pylist() == [row[3] for row in expected]
    np.testing.assert_array_equal(got.Y, np.array([row[4] for row in expected]))
    assert {name: got.dropped[name] for name in counts} == counts
    for k, name in enumerate(targets.names):
        assert got.dropped[f"no {name}"] == int(np.isnan(got.Y[:, k]).sum())


def test_observations_have_the_promised_types():
    news = make_news(SESSIONS.cutoffs_utc[5:15], ["A"] * 10)
    targets = build_targets(as_table(make_prices(missing=0)), SESSIONS, TargetConfig())
    got = align(news, targets, SESSIONS)
    assert isinstance(got.text, pa.Array)
    assert got.text.type == pa.string()
    assert (got.ticker.dtype, got.session.dtype, got.doc_first.dtype) == (np.int32, np.int32, int)
    assert got.Y.shape == (10, 4)
    assert len(got) == 10


def test_news_without_tickers_take_the_markets_own_targets():
    news = make_news(SESSIONS.cutoffs_utc[5:15], [None] * 10)
    config = TargetConfig(targets=("return", "log_range"))
    targets = build_targets(as_table(make_prices()), SESSIONS, config)
    got = align(news, targets, SESSIONS)
    assert {got.tickers[t] for t in got.ticker} == {MARKET}
    np.testing.assert_array_equal(got.Y, targets.values[-1, 5:15])


def test_excess_return_of_news_without_tickers_is_refused():
    news = make_news(SESSIONS.cutoffs_utc[5:15], [None] * 10)
    targets = build_targets(as_table(make_prices()), SESSIONS, TargetConfig())
    with pytest.raises(InputError, match=r"excess_return of news without a ticker.*return,abs_ret"):
        align(news, targets, SESSIONS)


def test_constant_target_is_refused():
    frame = make_prices(missing=0).assign(adj_close=7.0, close=7.0)
    config = TargetConfig(targets=("return",))
    targets = build_targets(as_table(frame), SESSIONS, config)
    with pytest.raises(InputError, match="target return: constant over 10 rows"):
        align(make_news(SESSIONS.cutoffs_utc[5:15], ["A"] * 10), targets, SESSIONS)


def test_nearly_constant_growth_counts_as_constant():
    frame = make_prices(missing=0, tickers=["A"]).sort_values("date")
    frame = frame.assign(adj_close=1.01 ** np.arange(N))
    targets = build_targets(as_table(frame), SESSIONS, TargetConfig(targets=("return",)))
    with pytest.raises(InputError, match="constant"):
        align(make_news(SESSIONS.cutoffs_utc[5:15], ["A"] * 10), targets, SESSIONS)


def test_target_defined_nowhere_is_refused():
    frame = make_prices(missing=0).assign(volume=0.0)
    targets = build_targets(as_table(frame), SESSIONS, TargetConfig())
    with pytest.raises(InputError, match="target volume_change: defined for none of 10 rows"):
        align(make_news(SESSIONS.cutoffs_utc[5:15], ["A"] * 10), targets, SESSIONS)


def test_no_document_inside_the_calendar_counts_the_reasons():
    targets = build_targets(as_table(make_prices()), SESSIONS, TargetConfig())
    news = make_news(np.array(["2016-06-01"] * 3, dtype="datetime64[us]"), ["A"] * 3)
    with pytest.raises(InputError, match=r"none of 3 documents.*outside the calendar 3"):
        align(news, targets, SESSIONS)


def test_unknown_kind_of_observation_is_refused():
    targets = build_targets(as_table(make_prices()), SESSIONS, TargetConfig())
    with pytest.raises(InputError, match="--observations"):
        align(make_news(SESSIONS.cutoffs_utc[:2], ["A"] * 2), targets, SESSIONS, "weeks")


@pytest.mark.skipif(not STOCKNET.exists(), reason=f"real texts are not at {STOCKNET}")
def test_stocknet_keeps_nearly_all_documents():
    files = {"news": str(STOCKNET / "news.parquet"), "prices": str(STOCKNET / "prices.parquet")}
    inputs = read_inputs(InputConfig(**files))
    dates = inputs.prices["date"].to_numpy()
    sessions = make_sessions(CalendarConfig(), dates.min(), dates.max())
    targets = build_targets(inputs.prices, sessions, TargetConfig())
    got = align(inputs.news, targets, sessions)
    assert len(got) == 106_338 - got.dropped["no target"]
    assert got.dropped["no target"] < 200
    days = align(inputs.news, targets, sessions, "days")
    assert sum(text.count(SEPARATOR) + 1 for text in days.text.to_pylist()) == len(got)
