"""Read news and prices into clean tables; bad rows raise, or are dropped and listed.

A fault of a whole file or column (missing, unreadable, of a wrong type, times without a zone)
always raises. A fault of a row follows ``bad_rows``.
"""

from __future__ import annotations

import difflib
import hashlib
import io
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from cluster.errors import InputError
from cluster.storage import Store
from pipelines.news.reading import columns as as_
from pipelines.news.reading.sieve import Rejects, Sieve, gather, settle
from pipelines.news.reading.sources import (
    RawFile,
    Reject,
    file_blocks,
    find_files,
    read_file,
    shown,
)

_EMPTY = "the text is empty"
_QUANTITIES = ("open", "high", "low", "close", "adj_close", "volume")


def _option(default: str, text: str) -> str:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, kw_only=True)
class InputConfig:
    """Which files hold news and prices, and how their columns are called."""

    news: str = field(metadata={"help": "News: a file, folder or glob (Parquet, CSV, JSON lines)."})
    prices: str = field(metadata={"help": "Daily prices: a file, folder or glob."})
    text_column: str = _option("text", "News column with the text.")
    time_column: str = _option("published_at", "News column with the time of publication.")
    ticker_column: str = _option("ticker", "News column with the ticker (may be absent).")
    price_ticker_column: str = _option("ticker", "Price column with the ticker.")
    date_column: str = _option("date", "Price column with the trading day.")
    open_column: str = _option("open", "Price column (may be absent).")
    high_column: str = _option("high", "Price column (may be absent; log_range needs it).")
    low_column: str = _option("low", "Price column (may be absent; log_range needs it).")
    close_column: str = _option("close", "Price column.")
    adj_close_column: str = _option("adj_close", "Close adjusted for splits and dividends.")
    volume_column: str = _option("volume", "Price column (volume_change needs it).")
    timezone: str | None = field(
        default=None, metadata={"help": "Zone of times that carry none, such as America/New_York."}
    )
    bad_rows: str = _option("error", "What to do about bad rows: error, or drop and list them.")

    def __post_init__(self) -> None:
        if self.bad_rows not in ("error", "drop"):
            raise InputError(
                "--bad-rows", "unknown choice", "error or drop", self.bad_rows, "Pass one."
            )
        try:
            ZoneInfo(self.timezone or "UTC")
        except (ValueError, OSError, KeyError) as error:
            fix = "Use a name such as America/New_York or Asia/Seoul."
            raise InputError("--timezone", "unknown", "a tz name", self.timezone, fix) from error

    def price_columns(self) -> dict[str, str]:
        """Return our names of the price columns -> the file's."""
        own = {"ticker": self.price_ticker_column, "date": self.date_column}
        return own | {name: getattr(self, f"{name}_column") for name in _QUANTITIES}


@dataclass(frozen=True)
class Inputs:
    """News and prices that fit together, and the rows left out."""

    news: pa.Table
    prices: pa.Table
    rejects: Rejects


def read_inputs(config: InputConfig) -> Inputs:
    """Read news and prices and check them against each other.

    Raises
    ------
    InputError
        As ``read_news``, ``read_prices`` and ``match_tickers`` do.
    """
    news, bad_news = read_news(config)
    prices, bad_prices = read_prices(config)
    news, unknown = match_tickers(news, prices, config)
    return Inputs(news, prices, bad_news + bad_prices + unknown)


def read_news(config: InputConfig) -> tuple[pa.Table, Rejects]:
    """Read the news.

    Returns
    -------
    table : doc_id int64 (position), ticker string (null where the files name none),
        published_at timestamp[us, UTC], text string, file dictionary, row int64
    rejects : the rows dropped

    Raises
    ------
    InputError
        When a file or column is missing or unusable, a time carries no zone, all texts are
        empty, or no good row is left; with ``bad_rows="error"`` also at any bad row.
    """
    wanted = {config.text_column, config.time_column, config.ticker_column}
    raws = [read_file(file, wanted) for file in find_files(config.news)]
    with_ticker = config.ticker_column != InputConfig.ticker_column or any(
        config.ticker_column in raw.there for raw in raws
    )
    table, rejects = gather(_sift_news(raw, config, with_ticker) for raw in raws)
    if table.num_rows == 0 and rejects and all(r.reason == _EMPTY for r in rejects):
        fix = "Name the column that holds the text with --text-column."
        raise InputError(config.news, f"all {len(rejects)} texts are empty", fix=fix)
    settle(rejects, table.num_rows, config.news, config.bad_rows)
    doc_id = pa.array(np.arange(table.num_rows))
    return table.add_column(0, "doc_id", doc_id), Rejects(tuple(rejects))


def read_texts(spec: str, column: str, bad_rows: str) -> tuple[pa.Table, Rejects]:
    """Read texts alone, to be scored.

    Returns
    -------
    table : text string, file dictionary, row int64
    rejects : the rows dropped

    Raises
    ------
    InputError
        As :func:`read_news` does about its texts.
    """
    sieves = []
    for file in find_files(spec):
        sieve = Sieve(read_file(file, {column}))
        if sieve.raw.there:
            _require(sieve.raw, {"--text-column": column})
            _sift_text(sieve, column)
        sieves.append(sieve)
    table, rejects = gather(sieves)
    settle(rejects, table.num_rows, spec, bad_rows)
    return table, Rejects(tuple(rejects))


def read_prices(config: InputConfig) -> tuple[pa.Table, Rejects]:
    """Read the prices, sorted by ticker and date.

    Returns
    -------
    table : ticker string, date date32, those of open, high, low, close, adj_close, volume that
        the files have, and their every other numeric column, all float64
    rejects : the rows dropped (of rows for the same ticker and date the first is kept)

    Raises
    ------
    InputError
        When a file or column is missing or unusable, or no good row is left; with
        ``bad_rows="error"`` also at any bad row.
    """
    files = find_files(config.prices)
    table, rejects = gather(_sift_prices(read_file(file), config) for file in files)
    settle(rejects, table.num_rows, config.prices, config.bad_rows)
    table, twice = _without_repeats(table, config)
    settle(twice, table.num_rows, config.prices, config.bad_rows)
    table = table.drop_columns(["file", "row"])
    return table.sort_by([("ticker", "ascending"), ("date", "ascending")]), Rejects(
        (*rejects, *twice)
    )


def match_tickers(
    news: pa.Table, prices: pa.Table, config: InputConfig
) -> tuple[pa.Table, Rejects]:
    """Check that news and prices overlap in time, and set aside news of tickers without prices.

    Raises
    ------
    InputError
        When the dates do not overlap, or no ticker of the news has prices; with
        ``bad_rows="error"`` also when only some have none.
    """
    stamps, dates = pc.min_max(news["published_at"]).as_py(), pc.min_max(prices["date"]).as_py()
    first, last = stamps["min"].date(), stamps["max"].date()
    if first > dates["max"] or last < dates["min"]:
        span = f"prices from {dates['min']} to {dates['max']}"
        raise InputError(
            config.news,
            f"news from {first} to {last} and {span} do not overlap",
            fix="Give news and prices of the same time.",
        )
    tickers = news["ticker"]
    if tickers.null_count == len(tickers):
        return news, Rejects()
    known = pc.unique(prices["ticker"])
    bad = ~as_.mask(pc.is_in(tickers, value_set=known))
    if bad.all():
        mine = ", ".join(pc.unique(tickers).to_pylist()[:5])
        theirs = ", ".join(known.to_pylist()[:5])
        raise InputError(
            config.news,
            f"column {config.ticker_column!r}: no ticker has prices",
            f"tickers such as {theirs}",
            mine,
            "Write tickers the same way in both, or name the columns with --ticker-column and "
            "--price-ticker-column.",
        )
    rows = news.filter(pa.array(bad)).select(["file", "row", "ticker"]).to_pylist()
    names, hints = known.to_pylist(), {}
    for ticker in {row["ticker"] for row in rows}:
        near = difflib.get_close_matches(ticker, names, n=1)
        hints[ticker] = f" (did you mean {near[0]}?)" if near else ""
    rejects = []
    for row in rows:
        reason = f"the ticker has no prices{hints[row['ticker']]}"
        rejects.append(Reject(row["file"], row["row"], config.ticker_column, reason, row["ticker"]))
    news = news.filter(pa.array(~bad))
    settle(rejects, news.num_rows, config.news, config.bad_rows)
    doc_id = pa.array(np.arange(news.num_rows))
    return news.set_column(0, "doc_id", doc_id), Rejects(tuple(rejects))


def write_rejects(run: Store, rejects: Rejects) -> None:
    """Write ``rejects.csv`` into the run folder."""
    text = io.BytesIO()
    pyarrow.csv.write_csv(rejects.table(), text)
    run.write_bytes("rejects.csv", text.getvalue())


def input_fingerprint(config: InputConfig) -> str:
    """Return a hash of the content of all input files, whatever they are called."""
    return joint_fingerprint(file_digests(config))


def file_digests(config: InputConfig) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Return a hash of the content of each file, by its name, of news and of prices."""
    news, prices = (
        {file: _digest_of(file) for file in find_files(spec)}
        for spec in (config.news, config.prices)
    )
    return news, prices


def joint_fingerprint(digests: tuple[dict[str, bytes], dict[str, bytes]]) -> str:
    """Return a hash of all files from their own ones."""
    joint = hashlib.blake2b(digest_size=16)
    for files in digests:
        for digest in files.values():
            joint.update(digest)
        joint.update(b"|")
    return joint.hexdigest()


def _digest_of(file: str) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for block in file_blocks(file):
        digest.update(block)
    return digest.digest()


def _sift_news(raw: RawFile, config: InputConfig, with_ticker: bool) -> Sieve:
    sieve = Sieve(raw)
    if not raw.there:
        return sieve
    needed = {"--text-column": config.text_column, "--time-column": config.time_column}
    if with_ticker:
        needed["--ticker-column"] = config.ticker_column
    _require(raw, needed)
    if with_ticker:
        _sift_ticker(sieve, config.ticker_column)
    else:
        sieve.add("ticker", pa.nulls(len(raw.rows), pa.string()))

    column = config.time_column
    stamps, naive = as_.as_utc(raw.columns[column], config.timezone, raw.file, column)
    sieve.reject(as_.mask(stamps.is_null()), column, "not a time (ISO 8601)")
    if config.timezone is None and naive.any():
        i = int(np.flatnonzero(naive)[0])
        raise InputError(
            raw.file,
            f"row {raw.rows[i]}, column {column!r}: no time zone ({int(naive.sum())} such rows)",
            "an offset such as Z or -05:00",
            shown(raw.columns[column][i].as_py()),
            "Pass --timezone, such as --timezone America/New_York.",
        )
    sieve.add("published_at", stamps)

    _sift_text(sieve, config.text_column)
    return sieve


def _sift_text(sieve: Sieve, column: str) -> None:
    raw = sieve.raw
    text, broken, nul = as_.as_text(raw.columns[column], raw.file, column)
    sieve.reject(broken, column, "the text is not UTF-8")
    sieve.reject(nul, column, "the text has a NUL character in it")
    blank = as_.mask(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(text)), 0))
    sieve.reject(blank | as_.mask(text.is_null()), column, _EMPTY)
    sieve.add("text", text)


def _sift_prices(raw: RawFile, config: InputConfig) -> Sieve:
    sieve = Sieve(raw)
    if not raw.there:
        return sieve
    columns = config.price_columns()
    options = {name: f"--{name.replace('_', '-')}-column" for name in columns}
    options["ticker"] = "--price-ticker-column"
    optional = {
        name
        for name in _QUANTITIES
        if name != "close" and columns[name] == name and name not in raw.there
    }
    _require(raw, {options[name]: columns[name] for name in columns if name not in optional})
    _sift_ticker(sieve, columns["ticker"])
    days, _ = as_.as_dates(raw.columns[columns["date"]], raw.file, columns["date"])
    sieve.reject(np.isnat(days), columns["date"], "not a date (2015-06-30)")
    sieve.add("date", days)
    numbers = {
        name: _sift_quantity(sieve, name, columns[name], options[name])
        for name in _QUANTITIES
        if name not in optional
    }
    if "high" in numbers and "low" in numbers:
        reason = f"below column {columns['low']!r}"
        sieve.reject(numbers["high"] < numbers["low"], columns["high"], reason)
    ours = {*columns, *columns.values(), "file", "row"}
    for name in raw.there:
        found = None if name in ours else as_.as_numbers(raw.columns[name])
        if found is not None and not found[1].any():
            sieve.add(name, np.where(np.isinf(found[0]), np.nan, found[0]))
    return sieve


def _sift_ticker(sieve: Sieve, column: str) -> None:
    text, broken, nul = as_.as_text(sieve.raw.columns[column], sieve.raw.file, column)
    sieve.reject(broken | nul, column, "not UTF-8 text")
    empty = as_.mask(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(text)), 0))
    sieve.reject(empty | as_.mask(text.is_null()), column, "the ticker is missing")
    sieve.add("ticker", text)


def _sift_quantity(sieve: Sieve, name: str, column: str, option: str) -> np.ndarray:
    """Check prices (finite, positive) or the volume (finite or missing, not negative)."""
    raw = sieve.raw
    found = as_.as_numbers(raw.columns[column])
    if found is None:
        kind, fix = raw.columns[column].type, f"Name the right column with {option}."
        raise InputError(raw.file, f"column {column!r}", "numbers", kind, fix)
    values, unreadable = found
    sieve.reject(unreadable, column, "not a number")
    sieve.reject(np.isinf(values), column, "infinite")
    if name == "volume":
        sieve.reject(values < 0, column, "a negative volume")
    else:
        sieve.reject(np.isnan(values), column, "NaN or missing price")
        sieve.reject(values <= 0, column, "a price that is not positive")
    sieve.add(name, values)
    return values


def _require(raw: RawFile, needed: dict[str, str]) -> None:
    for option, column in needed.items():
        if column not in raw.there:
            there = ", ".join(shown(name) for name in raw.there)
            fix = f"Name the column with {option}."
            raise InputError(raw.file, f"no column {column!r}", got=f"columns {there}", fix=fix)


def _without_repeats(table: pa.Table, config: InputConfig) -> tuple[pa.Table, list[Reject]]:
    codes = pc.rank(table["ticker"], tiebreaker="dense").to_numpy().astype(np.int64)
    days = table["date"].cast(pa.int32()).to_numpy().astype(np.int64)
    _, first = np.unique(codes * 2**32 + days, return_index=True)
    again = np.ones(table.num_rows, dtype=bool)
    again[first] = False
    rows = table.filter(pa.array(again)).select(["file", "row", "ticker", "date"]).to_pylist()
    reason = "a second row for the same ticker and date"
    rejects = [
        Reject(r["file"], r["row"], config.date_column, reason, f"{r['ticker']} {r['date']}")
        for r in rows
    ]
    return table.filter(pa.array(~again)), rejects
