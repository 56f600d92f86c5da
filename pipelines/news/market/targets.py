"""Targets of each ticker and session, from daily prices and fundamentals.

All are NaN wherever a price they need is missing: nothing spans a halt or a gap. ``s`` is the
session of the news (plus the lag), ``h`` the horizon, ``P`` the close (adjusted where the prices
have ``adj_close``), so that the target of session ``s`` moves from the close of ``s−1`` to that
of ``s+h−1``.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import InputError
from pipelines.news.market.sessions import Sessions, check_calendar

MARKET = "(market)"
"""Name of the last row of ``Targets.values``: the market's own targets."""

CHANGE = "change:"


class Formula(NamedTuple):
    """One line of the table of targets."""

    name: str
    formula: str
    unit: str
    needs: tuple[str, ...]


FORMULAS = (
    Formula(
        "excess_return",
        "Σ over h sessions of log(P_s / P_{s−1}) − the market's (equal-weighted mean of all "
        "tickers that session, or the market ticker)",
        "log return",
        (),
    ),
    Formula("abs_excess_return", "|excess_return|", "log return", ()),
    Formula("return", "Σ over h sessions of log(P_s / P_{s−1})", "log return", ()),
    Formula("abs_return", "|return|", "log return", ()),
    Formula(
        "log_range",
        "log(highest high / lowest low of h sessions), both adjusted as the close is",
        "log ratio",
        ("high", "low"),
    ),
    Formula(
        "volume_change",
        "log(mean volume of h sessions / mean volume of the h before); NaN where one is zero",
        "log ratio",
        ("volume",),
    ),
    Formula(
        CHANGE + "COLUMN",
        "v_{s+h−1} / v_{s−1} − 1 of any numeric column v; NaN unless positive throughout",
        "relative change",
        (),
    ),
)
_KNOWN = {formula.name: formula for formula in FORMULAS[:-1]}


@dataclass(frozen=True, kw_only=True)
class TargetConfig:
    """What the words are to explain."""

    targets: tuple[str, ...] = field(
        default=("excess_return", "abs_excess_return", "log_range", "volume_change"),
        metadata={"help": "Targets: " + ", ".join(f.name for f in FORMULAS) + "."},
    )
    horizon: int = field(default=1, metadata={"help": "Sessions that a target spans."})
    market: str | None = field(
        default=None, metadata={"help": "Ticker that stands for the market (default: the mean)."}
    )
    features: tuple[str, ...] = field(
        default=(), metadata={"help": "Numeric price columns used beside the words."}
    )

    def __post_init__(self) -> None:
        if self.horizon < 1:
            raise InputError("--horizon", "too short", "1 or more", self.horizon, "Pass 1.")
        if not self.targets:
            raise InputError("--targets", "none given", fix="Name one, such as excess_return.")
        twice = [name for name in self.targets if self.targets.count(name) > 1]
        if twice:
            raise InputError("--targets", f"{twice[0]!r} given twice", fix="Name each once.")
        for name in self.targets:
            if name not in _KNOWN and not (name.startswith(CHANGE) and len(name) > len(CHANGE)):
                near = difflib.get_close_matches(name, _KNOWN, n=1)
                fix = f"Did you mean {near[0]}?" if near else "Choose one of these."
                expected = ", ".join(formula.name for formula in FORMULAS)
                raise InputError("--targets", "unknown target", expected, name, fix)


@dataclass(frozen=True, eq=False)
class Targets:
    """Raw (not standardised) targets.

    Attributes
    ----------
    names : list of str
        ``excess_return``, or ``excess_return+2`` for two sessions after the news.
    values : float64, (n_tickers + 1, n_sessions, n_targets)
        NaN where undefined; the last row is the market's own.
    tickers : list of str
        Sorted, then ``MARKET``.
    dropped : dict of str to int
        Price rows left out, and why.
    """

    names: list[str]
    values: np.ndarray
    tickers: list[str]
    dropped: dict[str, int]


def build_targets(
    prices: pa.Table, sessions: Sessions, config: TargetConfig, lags: int = 0
) -> Targets:
    """Compute the targets of every ticker and session.

    The market's own row holds its return (mean over tickers, or the market ticker's), and the
    mean over tickers (or the market ticker's) of the other targets; excess returns are NaN there.

    Raises
    ------
    InputError
        When a column that a target or feature needs is not there, the market ticker is unknown,
        the only ticker is its own market, or the prices are of another exchange.
    """
    _check_columns(prices, config)
    grid = _Grid(prices, sessions)
    market = None if config.market is None else _market_row(grid.tickers, config.market)
    if market is None and len(grid.tickers) == 1 and any("excess" in t for t in config.targets):
        raise InputError(
            "--targets",
            f"excess returns of {grid.tickers[0]}, the only ticker, over the mean of all tickers",
            fix="Pass --market with prices of an index, or use return and abs_return.",
        )
    close = "adj_close" if "adj_close" in prices.column_names else "close"
    steps = _log_steps(grid[close])
    values = np.empty((len(grid.tickers) + 1, len(sessions), len(config.targets)))
    for k, name in enumerate(config.targets):
        values[:, :, k] = _one(name, grid, steps, market, close, config.horizon)
    lagged = [_later(values, lag) for lag in range(lags + 1)]
    names = [f"{n}+{lag}" if lag else n for lag in range(lags + 1) for n in config.targets]
    dropped = {"price rows on days that are no session": grid.outside}
    return Targets(names, np.concatenate(lagged, axis=2), [*grid.tickers, MARKET], dropped)


def feature_values(
    prices: pa.Table, sessions: Sessions, names: tuple[str, ...]
) -> tuple[np.ndarray, list[str]]:
    """Return the last value known before each session, so that nothing looks ahead.

    Returns
    -------
    values : float64, (n_tickers + 1, n_sessions, n_features)
        NaN before the first value; the last row is the mean over tickers.
    tickers : list of str
        As in ``Targets``: index with an observation's ticker and session.
    """
    _check_features(prices, names)
    grid = _Grid(prices, sessions)
    values = np.full((len(grid.tickers) + 1, len(sessions), len(names)), np.nan)
    for k, name in enumerate(names):
        levels = grid[name]
        known = np.where(np.isnan(levels), 0, np.arange(len(sessions)))
        last = np.maximum.accumulate(known, axis=1)
        filled = np.take_along_axis(levels, last, axis=1)
        values[:-1, 1:, k] = filled[:, :-1]
        values[-1, :, k] = _mean(values[:-1, :, k])
    return values, [*grid.tickers, MARKET]


class _Grid:
    """Price columns as arrays (n_tickers, n_sessions), NaN where there is no row."""

    def __init__(self, prices: pa.Table, sessions: Sessions) -> None:
        dates = prices["date"].to_numpy()
        self.outside = check_calendar(sessions, dates)
        encoded = pc.dictionary_encode(prices["ticker"].combine_chunks())
        order = np.argsort(np.array(encoded.dictionary.to_pylist()), kind="stable")
        self.tickers = [encoded.dictionary[int(i)].as_py() for i in order]
        self._row = np.argsort(order)[encoded.indices.to_numpy()]
        self._session = sessions.index_of(dates)
        self._shape = (len(self.tickers), len(sessions))
        self._prices = prices

    def __getitem__(self, column: str) -> np.ndarray:
        grid = np.full(self._shape, np.nan)
        inside = self._session >= 0
        values = self._prices[column].to_numpy()
        grid[self._row[inside], self._session[inside]] = values[inside]
        return grid


def _one(
    name: str, grid: _Grid, steps: np.ndarray, market: int | None, close: str, h: int
) -> np.ndarray:
    """Return one target, (n_tickers + 1, n_sessions)."""
    if name.endswith("return"):
        of_market = _mean(steps) if market is None else steps[market]
        if "excess" in name:
            own = steps - of_market
            if market is not None:
                own[market] = np.nan  # zero by definition: no observation
            own = np.vstack([own, np.full_like(of_market, np.nan)])
        else:
            own = np.vstack([steps, of_market])
        total = _windows(own, h).sum(axis=2)
        return np.abs(total) if name.startswith("abs_") else total
    if name == "log_range":
        adjust = grid[close] / grid["close"]
        highest = _windows(grid["high"] * adjust, h).max(axis=2)
        lowest = _windows(grid["low"] * adjust, h).min(axis=2)
        own = np.log(highest / lowest)
    elif name == "volume_change":
        volume = grid["volume"]
        volume[volume == 0] = np.nan
        mean = _windows(volume, h).mean(axis=2)
        before = np.full_like(mean, np.nan)
        before[:, h:] = mean[:, :-h]
        own = np.log(mean / before)
    else:
        own = np.expm1(_windows(_log_steps(grid[name.removeprefix(CHANGE)]), h).sum(axis=2))
    return np.vstack([own, _mean(own) if market is None else own[market]])


def _log_steps(levels: np.ndarray) -> np.ndarray:
    """Return log(level_s / level_{s−1}), NaN unless both are there and positive."""
    logs = np.log(np.where(levels > 0, levels, np.nan))
    return np.diff(logs, axis=1, prepend=np.nan)


def _windows(values: np.ndarray, h: int) -> np.ndarray:
    """Return the window s … s+h−1 of each session s, (n, n_sessions, h), NaN past the end."""
    padded = np.pad(values, ((0, 0), (0, h - 1)), constant_values=np.nan)
    return np.lib.stride_tricks.sliding_window_view(padded, h, axis=1)


def _later(values: np.ndarray, lag: int) -> np.ndarray:
    shifted = np.full_like(values, np.nan)
    shifted[:, : max(values.shape[1] - lag, 0)] = values[:, lag:]
    return shifted


def _mean(values: np.ndarray) -> np.ndarray:
    """Return the mean over tickers of those that have a value, NaN where none has."""
    there = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(there, values, 0.0).sum(axis=0) / there.sum(axis=0)


def _market_row(tickers: list[str], market: str) -> int:
    if market in tickers:
        return tickers.index(market)
    near = difflib.get_close_matches(market, tickers, n=3) or tickers[:3]
    fix = f"Did you mean {' or '.join(near)}? Its prices must be among the prices."
    raise InputError("--market", "unknown ticker", "a ticker that has prices", market, fix)


def _check_columns(prices: pa.Table, config: TargetConfig) -> None:
    there = [name for name in prices.column_names if name not in ("ticker", "date")]
    for name in config.targets:
        change = name.startswith(CHANGE)
        needs = (name.removeprefix(CHANGE),) if change else _KNOWN[name].needs
        for column in needs:
            if column not in there:
                mend = "" if change else f", or name the column with --{column}-column"
                raise InputError(
                    "--targets",
                    f"{name} needs the price column {column!r}",
                    got=f"numeric columns {', '.join(there)}",
                    fix=f"Leave {name} out of --targets{mend}.",
                )
    _check_features(prices, config.features)


def _check_features(prices: pa.Table, names: tuple[str, ...]) -> None:
    there = [name for name in prices.column_names if name not in ("ticker", "date")]
    for name in names:
        if name not in there:
            fix = "Choose among these."
            got = f"numeric columns {', '.join(there)}"
            raise InputError("--features", f"no price column {name!r}", got=got, fix=fix)
