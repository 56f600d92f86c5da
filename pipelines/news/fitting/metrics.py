"""How good a score is out of fold: R2, information coefficients, direction."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

FloatArray = npt.NDArray[np.float64]

SESSIONS_A_YEAR = 252
# A correlation over fewer tickers says nothing.
MIN_TICKERS = 5


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """Predictions for rows that their model has not seen.

    All of shape (n,): row number, session, ticker, actual and predicted target, the training mean
    of the row's fold, which is the forecast to beat, and what the fold's model says of a text
    without any of its words (its intercept).
    """

    row: npt.NDArray[np.int64]
    session: npt.NDArray[np.int64]
    ticker: npt.NDArray[np.int64]
    actual: FloatArray
    predicted: FloatArray
    baseline: FloatArray
    wordless: FloatArray


def score_out_of_fold(rows: OutOfFold) -> tuple[dict[str, float | None], pd.DataFrame]:
    """Return the metrics, and a frame (session, ic, rank_ic, n) with a row per session.

    - ``oof_r2``: 1 - SSE / SSE of the training mean.
    - ``pooled_ic``: Pearson correlation over all rows.
    - ``ic``, ``rank_ic``: mean over sessions of the correlation (Pearson, Spearman) across tickers
      between the mean prediction and the mean target of each ticker.
    - ``daily_ir``: mean of the daily IC over its standard deviation, times sqrt(252).
    - ``directional_accuracy``: share of rows on the same side of the baseline as predicted; rows
      with none of the model's words do not count.

    A metric that is not defined (no session with enough tickers, a constant prediction) is None.
    """
    error = float(np.sum((rows.actual - rows.predicted) ** 2))
    baseline_error = float(np.sum((rows.actual - rows.baseline) ** 2))
    daily = _daily_ic(rows)
    ic = daily["ic"].dropna()
    spread = float(ic.std(ddof=1)) if ic.size > 1 else 0.0
    moved = rows.predicted != rows.wordless
    agree = np.sign(rows.predicted - rows.baseline) == np.sign(rows.actual - rows.baseline)
    return {
        "oof_r2": 1.0 - error / baseline_error if baseline_error > 0 else None,
        "pooled_ic": _correlation(rows.predicted, rows.actual),
        "ic": float(ic.mean()) if ic.size else None,
        "rank_ic": float(daily["rank_ic"].dropna().mean()) if ic.size else None,
        "daily_ir": float(ic.mean()) / spread * SESSIONS_A_YEAR**0.5 if spread > 0 else None,
        "directional_accuracy": float(agree[moved].mean()) if moved.any() else None,
    }, daily


def _daily_ic(rows: OutOfFold) -> pd.DataFrame:
    """Correlate across tickers within each session."""
    frame = pd.DataFrame(
        {
            "session": rows.session,
            "ticker": rows.ticker,
            "actual": rows.actual,
            "predicted": rows.predicted,
        }
    )
    by_ticker = frame.groupby(["session", "ticker"], sort=True).mean()
    daily = by_ticker.groupby(level="session")
    ranks = daily.rank()
    table = pd.DataFrame(
        {
            "ic": _group_correlation(by_ticker),
            "rank_ic": _group_correlation(ranks),
            "n": daily.size(),
        }
    ).reset_index()
    return table[table["n"] >= MIN_TICKERS].reset_index(drop=True)


def _group_correlation(frame: pd.DataFrame) -> pd.Series:
    """Pearson correlation of the two columns within each session; NaN where one is constant."""
    centred = frame - frame.groupby(level="session").transform("mean")
    products = pd.DataFrame(
        {
            "xy": centred["actual"] * centred["predicted"],
            "xx": centred["actual"] ** 2,
            "yy": centred["predicted"] ** 2,
        }
    )
    sums = products.groupby(level="session").sum()
    norm = np.sqrt(sums["xx"] * sums["yy"])
    # Sums of squares of a constant column are rounding alone.
    defined = (sums["xx"] > 1e-20) & (sums["yy"] > 1e-20)
    return (sums["xy"] / norm.where(defined)).clip(-1.0, 1.0)


def _correlation(left: FloatArray, right: FloatArray) -> float | None:
    if left.size < 2 or left.std() <= 1e-10 or right.std() <= 1e-10:
        return None
    return float(np.corrcoef(left, right)[0, 1])
