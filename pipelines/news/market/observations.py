"""Join news with targets: the rows that the Lasso is fitted on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import InputError
from pipelines.news.market.sessions import Sessions
from pipelines.news.market.targets import MARKET, Targets

SEPARATOR = "\n"
"""Stands between the texts of one observation; no n-gram may cross it."""

_ARROW_STRING_BYTES = 2**31 - 1
_ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class Observations:
    """One row per document, or per ticker and session; ``n`` rows.

    Attributes
    ----------
    text : pa.Array of string (n,)
        Texts of a day are joined by ``SEPARATOR`` in the order of the news.
    ticker : int32 (n,)
        Position in ``tickers``.
    session : int32 (n,)
        Position in ``session_dates``.
    doc_first : int64 (n,)
        Row of the (first) document in the news table.
    Y : float64 (n, n_targets)
        Raw targets; NaN where that one is undefined, never all of a row.
    target_names, tickers : list of str
    session_dates : datetime64[D] (n_sessions,)
    dropped : dict of str to int
        Documents left out, and why; ``no <target>`` counts rows kept without that target.
    """

    text: pa.Array
    ticker: np.ndarray
    session: np.ndarray
    doc_first: np.ndarray
    Y: np.ndarray
    target_names: list[str]
    tickers: list[str]
    session_dates: np.ndarray
    dropped: dict[str, int]

    def __len__(self) -> int:
        return len(self.ticker)


def align(
    news: pa.Table,
    targets: Targets,
    sessions: Sessions,
    observations: Literal["documents", "days"] = "documents",
) -> Observations:
    """Give each document its session and targets; news without a ticker get the market's.

    ``"documents"`` keeps the order of the news; ``"days"`` makes one row of all documents of a
    ticker and session, in order of session, then ticker.

    Raises
    ------
    InputError
        When news name no tickers but excess returns are asked for, when no document has a
        target, or when a target is nowhere defined or constant.
    """
    if observations not in ("documents", "days"):
        fix = "Choose one of them."
        raise InputError("--observations", "unknown", "documents or days", observations, fix)
    ticker = _ticker_rows(news, targets)
    session = sessions.assign(news["published_at"])
    outside, unknown = session < 0, ticker < 0
    Y = targets.values[ticker, session]
    without = np.isnan(Y).all(axis=1)
    keep = ~(outside | unknown | without)
    dropped = {
        "outside the calendar": int(outside.sum()),
        "ticker without prices": int((unknown & ~outside).sum()),
        "no target": int((without & ~outside & ~unknown).sum()),
    }
    doc = np.flatnonzero(keep)
    if not doc.size:
        counts = ", ".join(f"{reason} {count}" for reason, count in dropped.items())
        span = f"{sessions.dates[0]} to {sessions.dates[-1]}"
        raise InputError(
            "news",
            f"none of {news.num_rows} documents has a target in the sessions {span} ({counts})",
            fix="Give prices around the times of the news, or a shorter --horizon or --lags.",
        )
    if observations == "days":
        doc, text = _joined(news["text"], doc, ticker, session)
    else:
        text = _compact(_large(news["text"].filter(pa.array(keep))))
    Y = Y[doc]
    _check_targets(Y, targets.names)
    missing = np.isnan(Y).sum(axis=0)
    dropped |= {f"no {name}": int(n) for name, n in zip(targets.names, missing, strict=True)}
    return Observations(
        text,
        ticker[doc],
        session[doc],
        doc.astype(np.int64),
        Y,
        targets.names,
        targets.tickers,
        sessions.dates,
        dropped | targets.dropped,
    )


def _ticker_rows(news: pa.Table, targets: Targets) -> np.ndarray:
    """Return each document's row in ``targets.values``, -1 if it has none."""
    names = news["ticker"]
    excess = [name for name in targets.names if "excess" in name]
    if excess and names.null_count == len(names):
        raise InputError(
            "--targets",
            f"{excess[0]} of news without a ticker: the market has no excess over itself",
            fix="Pass --ticker-column, or --targets return,abs_return,log_range,volume_change.",
        )
    at = pc.index_in(pc.fill_null(names, MARKET), value_set=pa.array(targets.tickers))
    return pc.fill_null(at, -1).to_numpy().astype(np.int32)


def _joined(
    texts: pa.ChunkedArray, doc: np.ndarray, ticker: np.ndarray, session: np.ndarray
) -> tuple[np.ndarray, pa.Array]:
    """Return the first document of each ticker and session, and the texts of all joined."""
    order = doc[np.lexsort((doc, ticker[doc], session[doc]))]
    new = np.ones(order.size, dtype=bool)
    new[1:] = (np.diff(session[order]) != 0) | (np.diff(ticker[order]) != 0)
    starts = np.flatnonzero(new)
    offsets = pa.array(np.append(starts, order.size), pa.int64())
    ordered = _large(texts).take(pa.array(order))
    joined = pc.binary_join(
        pa.LargeListArray.from_arrays(offsets, ordered), pa.scalar(SEPARATOR, pa.large_string())
    )
    return order[starts], _compact(joined)


def _large(texts: pa.ChunkedArray) -> pa.Array:
    """Return one array, in 64-bit offsets: Arrow's strings hold 2 GiB together, not more."""
    combined = texts.cast(pa.large_string()).combine_chunks()
    return combined if isinstance(combined, pa.Array) else combined.chunk(0)


def _compact(texts: pa.Array) -> pa.Array:
    return texts.cast(pa.string()) if texts.nbytes < _ARROW_STRING_BYTES else texts


def _check_targets(Y: np.ndarray, names: list[str]) -> None:
    for name, y in zip(names, Y.T, strict=True):
        defined = y[~np.isnan(y)]
        if not defined.size:
            fix = "Leave it out of --targets, or give prices of more sessions."
            raise InputError(f"target {name}", f"defined for none of {y.size} rows", fix=fix)
        if np.ptp(defined) <= _ROUNDING * max(1.0, np.abs(defined).max()):
            fix = f"Leave {name} out of --targets, or give other prices."
            raise InputError(
                f"target {name}",
                f"constant over {defined.size} rows",
                "values that vary",
                f"{defined[0]:g} everywhere",
                fix,
            )
