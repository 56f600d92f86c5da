"""Bad input through the command: exit code 2, a message that says what, where and how to mend it.

The market of these tests is good but for the one fault that a test puts into it. No fault may get
as far as Ray, and none may leave a run folder.
"""

import gzip
import os
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import tenfold

from pipelines.news import run
from pipelines.news.synthetic import SyntheticConfig, make_market

ROOT = Path(__file__).resolve().parents[2]
TINY = SyntheticConfig(documents=300, tickers=8, sessions=60, words=2)


class ReachedRayError(Exception):
    """The input was taken for good."""


@pytest.fixture(scope="module")
def market():
    news, prices, _ = make_market(TINY)
    return news.to_pandas(), prices.to_pandas()


@pytest.fixture
def news(market):
    return market[0].copy()


@pytest.fixture
def prices(market):
    return market[1].copy()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty working directory, and no way to Ray."""

    def no_ray(config):
        raise ReachedRayError

    monkeypatch.setattr(run, "connect", no_ray)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def fit(news, prices):
    """Return what runs ``news fit`` on frames, or on files by their names."""

    def start(*options, news=news, prices=prices):
        files = []
        for name, table in (("news", news), ("prices", prices)):
            if isinstance(table, pd.DataFrame):
                table.to_parquet(f"{name}.parquet")
                table = f"{name}.parquet"
            files += [f"--{name}", table]
        return tenfold("news", "fit", *files, "--out", "out", *options)

    return start


@pytest.fixture
def refused(fit, folder):
    """Return what runs a fit that has to be refused, and gives back its message."""

    def start(*options, **tables):
        before = {*folder.rglob("*")}
        outcome = fit(*options, **tables)
        assert outcome.code == 2, outcome.err
        assert outcome.out == ""
        assert "Traceback" not in outcome.err
        made = {path.name for path in {*folder.rglob("*")} - before}
        assert made <= {"news.parquet", "prices.parquet"}
        message = outcome.err.splitlines()[-1]
        assert message.startswith("tenfold: ")
        assert message.endswith((".", "?")), "the last sentence says what to do"
        return message

    return start


def test_market_without_a_fault_is_taken(fit):
    with pytest.raises(ReachedRayError):
        fit()


@pytest.mark.parametrize("which", ["news", "prices"])
def test_missing_file_is_refused(refused, which):
    message = refused(**{which: "nowhere/texts.parquet"})
    assert "nowhere/texts.parquet: no such file or folder. Check the path" in message


def test_glob_or_folder_without_files_is_refused(refused, folder):
    assert "no file matches" in refused(news="nowhere/*.csv")
    (folder / "empty").mkdir()
    assert "empty: no file matches" in refused(news="empty")


def test_empty_path_is_refused(refused):
    assert "--news" in refused(news="")
    assert "--prices" in refused(prices="")
    assert "--out" in refused("--out", "")


@pytest.mark.parametrize(
    ("table", "column", "option"),
    [
        ("news", "text", "--text-column"),
        ("news", "published_at", "--time-column"),
        ("prices", "ticker", "--price-ticker-column"),
        ("prices", "date", "--date-column"),
        ("prices", "close", "--close-column"),
    ],
)
def test_missing_column_is_named_with_its_option(refused, news, prices, table, column, option):
    frame = (news if table == "news" else prices).drop(columns=column)
    message = refused(**{table: frame})
    assert f"{table}.parquet: no column '{column}': got columns" in message
    assert option in message


def test_column_that_only_some_targets_need_is_missed_by_them(refused, prices):
    message = refused(prices=prices.drop(columns="volume"))
    assert "volume_change needs the price column 'volume'" in message
    assert "--volume-column" in message
    message = refused(prices=prices.drop(columns="high"))
    assert "log_range needs the price column 'high'" in message


def test_missing_news_ticker_is_refused_where_a_target_needs_it(refused, news):
    assert "--ticker-column" in refused(news=news.drop(columns="ticker"))


def test_wrong_column_is_refused_by_its_type(refused, news, prices):
    numbers = np.linspace(0, 1, len(news))
    assert "column 'text': expected text, got double" in refused(news=news.assign(text=numbers))
    message = refused(news=news.assign(published_at=numbers))
    assert "column 'published_at': expected times, got double" in message
    message = refused(prices=prices.assign(close="abc"))
    assert "row 1, column 'close': not a number" in message
    assert "480 bad rows" in message


def test_empty_table_is_refused(refused, news, prices):
    assert "news.parquet: no rows" in refused(news=news.iloc[:0])
    assert "prices.parquet: no rows" in refused(prices=prices.iloc[:0])


@pytest.mark.parametrize("bad_rows", ["error", "drop"])
def test_texts_that_are_all_empty_are_refused(refused, news, bad_rows):
    message = refused("--bad-rows", bad_rows, news=news.assign(text=" \n"))
    assert "all 300 texts are empty" in message
    assert "--text-column" in message


def test_dates_without_overlap_are_refused(refused, news):
    later = news.assign(published_at=news["published_at"] + pd.Timedelta(days=3_650))
    message = refused(news=later)
    assert "news from 2032-01-" in message
    assert "prices from 2022-01-03 to 2022-03-29 do not overlap" in message


def test_unknown_ticker_is_named_with_the_nearest(refused, news):
    news.loc[6, "ticker"] = "T0001"
    message = refused(news=news)
    assert "row 7, column 'ticker': the ticker has no prices" in message
    assert "did you mean T00" in message
    assert "--bad-rows drop" in message


def test_news_of_unknown_tickers_alone_is_refused(refused, news):
    message = refused("--bad-rows", "drop", news=news.assign(ticker="AAPL"))
    assert "no ticker has prices: expected tickers such as T000" in message


def test_unknown_market_ticker_is_refused(refused):
    assert "--market: unknown ticker" in refused("--market", "SPY")


def test_naive_timestamps_are_refused_with_the_option_that_helps(refused, news):
    message = refused(news=news.assign(published_at=news["published_at"].dt.tz_localize(None)))
    assert "row 1, column 'published_at': no time zone (300 such rows)" in message
    assert "--timezone America/New_York" in message


def test_duplicate_price_rows_are_refused(refused, prices):
    message = refused(prices=pd.concat([prices, prices.iloc[[5]]]))
    assert "row 481, column 'date': a second row for the same ticker and date" in message
    assert "got T000 2022-01-10" in message


@pytest.mark.parametrize("column", ["open", "high", "low", "close", "adj_close"])
@pytest.mark.parametrize(
    ("value", "what"),
    [
        (np.nan, "NaN or missing price"),
        (np.inf, "infinite"),
        (0.0, "a price that is not positive"),
        (-3.5, "a price that is not positive"),
    ],
)
def test_impossible_price_is_named_by_row_and_column(refused, prices, column, value, what):
    prices.loc[7, column] = value
    message = refused(prices=prices)
    assert f"prices.parquet: row 8, column '{column}': {what}" in message
    assert "--bad-rows drop" in message


def test_constant_target_is_refused(refused, prices):
    message = refused(prices=prices.assign(volume=1_000.0))
    assert "target volume_change: constant over 300 rows" in message
    assert "Leave volume_change out of --targets" in message


def test_fold_without_data_is_named(refused, news):
    assert "fold 0: no training data" in refused("--embargo", "40")
    assert "a smaller --embargo" in refused("--embargo", "99999999999999999999")
    assert "at least 101 sessions with news" in refused("--folds", "100")
    few = news.iloc[:3].assign(published_at=news["published_at"].iloc[[0, 100, 200]].to_numpy())
    assert "fold" in refused("--folds", "2", news=few.dropna())


@pytest.mark.parametrize(("low", "high"), [(3, 1), (0, 2), (1, 99)])
def test_ngram_range_reversed_is_refused(refused, low, high):
    message = refused("--ngram-min", low, "--ngram-max", high)
    assert "--ngram-min, --ngram-max: not a range" in message
    assert f"got {low} and {high}" in message


@pytest.mark.parametrize("grid", ["0.1,0", "-0.1,0.2", "nan", "inf", "0.1;0.2"])
def test_alpha_grid_not_positive_is_refused(refused, grid):
    assert "--alpha-grid" in refused(f"--alpha-grid={grid}")


@pytest.mark.parametrize("ratio", ["1", "0", "-2", "nan", "inf"])
def test_alpha_ratio_that_gives_no_grid_is_refused(refused, ratio):
    assert "--alpha-ratio" in refused(f"--alpha-ratio={ratio}")


@pytest.mark.parametrize("content", [b"", b"PAR1 and no more", "half"])
def test_unreadable_parquet_is_refused(refused, folder, news, content):
    news.to_parquet("torn.parquet")
    whole = (folder / "torn.parquet").read_bytes()
    half = whole[: len(whole) // 2]
    (folder / "torn.parquet").write_bytes(half if content == "half" else content)
    message = refused(news="torn.parquet")
    assert "torn.parquet: cannot be read" in message
    assert "make it again" in message


def test_truncated_csv_is_refused(refused, folder, news):
    text = news[["text", "ticker", "published_at"]].to_csv(index=False)
    (folder / "torn.csv").write_text(text[: text.index(",", len(text) // 2)])
    message = refused(news="torn.csv")
    assert "expected 3 fields, got 1" in message
    quoted = '"' + text[: len(text) // 2]
    (folder / "torn.csv").write_text("text,ticker,published_at\n" + quoted)
    assert "broken CSV" in refused(news="torn.csv")
    (folder / "torn.csv.gz").write_bytes(gzip.compress(text.encode())[:-99])
    assert "torn.csv.gz: cannot be read" in refused(news="torn.csv.gz")


def test_truncated_json_lines_are_refused(refused, folder, news):
    news.assign(published_at=news["published_at"].astype(str)).to_json(
        "torn.jsonl", orient="records", lines=True
    )
    whole = (folder / "torn.jsonl").read_bytes()
    (folder / "torn.jsonl").write_bytes(whole[:-30])
    assert "torn.jsonl: row 300: malformed JSON" in refused(news="torn.jsonl")


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("spoiled", "what"), [(b"pro\x00fit", "NUL"), (b"pro\xff\xfefit", "not UTF-8")]
)
def test_broken_text_is_named_by_row(refused, news, form, spoiled, what):
    texts = [text.encode() for text in news["text"]]
    texts[8] = spoiled
    table = pa.Table.from_pandas(news, preserve_index=False)
    table = table.set_column(2, "text", pa.array(texts, pa.binary()))
    if form == "parquet":
        pq.write_table(table, "spoiled.parquet")
    else:
        rows = zip(news["ticker"], news["published_at"], texts, strict=True)
        lines = [f"{ticker},{stamp},".encode() + text for ticker, stamp, text in rows]
        Path("spoiled.csv").write_bytes(b"\n".join([b"ticker,published_at,text", *lines, b""]))
    message = refused(news=f"spoiled.{form}")
    assert f"spoiled.{form}: row 9, column 'text'" in message
    assert what in message


def test_output_folder_not_writable_is_refused(refused, folder):
    (folder / "taken").write_text("a file in the way")
    for out in ("taken", "taken/deeper", "/proc/tenfold"):
        message = refused("--out", out)
        assert f"{out}: output folder: expected a folder that can be written to" in message
    assert (folder / "taken").read_text() == "a file in the way"
    assert "storage address" in refused("--out", "gopher://nowhere")


def test_unreachable_ray_is_refused_within_seconds(news, prices, folder):
    news.to_parquet("news.parquet")
    prices.to_parquet("prices.parquet")
    command = [sys.executable, "-m", "pipelines", "news", "fit", "--news", "news.parquet"]
    command += ["--prices", "prices.parquet"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_AUTH_TOKEN": "of-this-test"}
    drivers = [
        subprocess.Popen([*command, *options], env=environment | variables, stdout=PIPE,
                         stderr=PIPE, text=True)
        for options, variables in (
            (["--out", "one", "--address", "127.0.0.1:1"], {}),
            (["--out", "two"], {"RAY_ADDRESS": "127.0.0.1:1"}),
        )
    ]  # fmt: skip
    for driver in drivers:
        out, err = driver.communicate(timeout=30)
        assert driver.returncode == 2
        assert "tenfold: 127.0.0.1:1: Ray address unreachable" in err
        assert "RAY_ADDRESS" in err
        assert "Traceback" not in err
        assert "of-this-test" not in out + err
    for out in ("one", "two"):
        assert {path.name for path in (folder / out).iterdir()} == {"run.json"}, "what was tried"


IMPOSSIBLE = """
--bad-rows=ignore --timezone=Mars/Olympus --exchange=XXXX --cutoff=25:00 --lags=-1
--lags=1000000000 --targets=profit --targets= --targets=return,return --targets=change:sector
--horizon=0 --horizon=1000000000 --features=sector --tokenizer=latin --min-df=0 --max-df=0
--max-df=1.5 --max-df=nan --weighting=bm25 --hash-bits=4 --hash-bits=64 --stop-words=@none.txt
--observations=weeks --scale=log --shard-rows=0 --folds=1 --fold-kind=random --embargo=-1
--seed=-1 --seed=99999999999 --engine=lars --alphas=0 --tol=0 --tol=1 --tol=nan --rule=2se
--stability=-1 --min-stability=2 --min-stability=0.5 --stretch=0 --workers=0 --num-cpus=0
--object-store-gib=0
"""


@pytest.mark.parametrize("option", IMPOSSIBLE.split())
def test_impossible_value_is_refused_by_its_option(refused, option):
    assert option.partition("=")[0] in refused(option)


@pytest.mark.parametrize("option", ["--folds=five", "--alpha-ratio=ten", "--folds", "--fulds=5"])
def test_malformed_or_unknown_option_is_refused(fit, folder, option):
    outcome = fit(option)
    assert outcome.code == 2
    assert option.partition("=")[0] in outcome.err
    assert not (folder / "out").exists()


def test_feature_that_never_varies_is_refused(refused, prices):
    for value in (1.0, np.nan, np.inf):
        message = refused("--features", "beta", prices=prices.assign(beta=value))
        assert "--features: beta is constant or missing" in message


def test_prices_of_another_exchange_are_refused(refused, prices):
    moved = prices.assign(date=pd.to_datetime(prices["date"]) + pd.Timedelta(days=1))
    assert "no sessions of XNYS" in refused(prices=moved)
