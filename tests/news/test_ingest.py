"""Reading news and prices: good files of every format, and every bad one with its message."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.errors import InputError
from pipelines.news.reading.ingest import (
    InputConfig,
    Inputs,
    input_fingerprint,
    read_inputs,
    read_news,
    read_prices,
)

STOCKNET = Path(__file__).parents[2] / ".." / "shared" / "data" / "stocknet"
NEWS = (
    "ticker,published_at,text\n"
    "A,2015-01-02T10:00:00Z,profits rise\n"
    'B,2015-01-05T10:00:00-05:00,"losses, again"\n'
    "A,2015-01-05 12:30:00+09:00,ünïcode 한국어\n"
)
PRICES = (
    "ticker,date,open,high,low,close,adj_close,volume,per,name\n"
    "B,2015-01-05,10,11,9,10.5,5.25,0,12.5,Beta\n"
    "A,2015-01-02,1,2,1,1.5,1.5,100,,Alpha\n"
    "A,2015-01-05,1,2,1,1.6,1.6,,11,Alpha\n"
)


@pytest.fixture
def market(tmp_path):
    """Write news and prices (text or bytes) and return their configuration."""

    def write(news=NEWS, prices=PRICES, news_name="news.csv", prices_name="prices.csv", **options):
        for name, content in ((news_name, news), (prices_name, prices)):
            data = content if isinstance(content, bytes) else content.encode()
            (tmp_path / name).write_bytes(data)
        files = {"news": str(tmp_path / news_name), "prices": str(tmp_path / prices_name)}
        return InputConfig(**files | options)

    return write


def complaint(config) -> str:
    with pytest.raises(InputError) as caught:
        read_inputs(config)
    assert caught.value.exit_code == 2
    return str(caught.value)


def dropped(config) -> Inputs:
    return read_inputs(InputConfig(**{**vars(config), "bad_rows": "drop"}))


# ---------------------------------------------------------------------------------- good input


def test_tables_have_the_promised_columns_and_types(market):
    inputs = read_inputs(market())
    assert inputs.news.schema.names == ["doc_id", "ticker", "published_at", "text", "file", "row"]
    assert inputs.news.schema.field("published_at").type == pa.timestamp("us", "UTC")
    assert inputs.news["doc_id"].to_pylist() == [0, 1, 2]
    assert inputs.news["text"].to_pylist() == ["profits rise", "losses, again", "ünïcode 한국어"]
    stamps = pd.to_datetime(inputs.news["published_at"].to_pandas()).dt.strftime("%d %H:%M")
    assert stamps.tolist() == ["02 10:00", "05 15:00", "05 03:30"]
    assert inputs.prices["ticker"].to_pylist() == ["A", "A", "B"], "sorted by ticker and date"
    assert inputs.prices.schema.field("date").type == pa.date32()
    assert inputs.prices["adj_close"].to_pylist() == [1.5, 1.6, 5.25]
    assert "name" not in inputs.prices.schema.names, "a text column is no fundamentals column"
    np.testing.assert_array_equal(inputs.prices["per"].to_numpy(), [np.nan, 11, 12.5])
    np.testing.assert_array_equal(inputs.prices["volume"].to_numpy(), [100, np.nan, 0])
    assert len(inputs.rejects) == 0


@pytest.mark.parametrize("suffix", ["parquet", "csv", "csv.gz", "tsv", "jsonl", "json", "jsonl.gz"])
def test_every_format_gives_the_same_table(market, tmp_path, suffix):
    expected = read_inputs(market())
    frames = {
        "news": pd.read_csv(tmp_path / "news.csv"),
        "prices": pd.read_csv(tmp_path / "prices.csv"),
    }
    paths = {}
    for name, frame in frames.items():
        path = tmp_path / f"{name}.{suffix}"
        paths[name] = str(path)
        if suffix == "parquet":
            frame.to_parquet(path)
        elif "json" in suffix:
            frame.to_json(path, orient="records", lines=True)
        else:
            frame.to_csv(path, index=False, sep="\t" if "tsv" in suffix else ",")
    got = read_inputs(InputConfig(**paths))
    assert got.news.drop_columns("file").equals(expected.news.drop_columns("file"))
    pd.testing.assert_frame_equal(got.prices.to_pandas(), expected.prices.to_pandas())


def test_parquet_with_categories_and_naive_dates_reads_as_plain(market, tmp_path):
    expected = read_prices(market())[0]
    frame = pd.read_csv(tmp_path / "prices.csv", parse_dates=["date"])
    frame["ticker"] = frame["ticker"].astype("category")
    frame.to_parquet(tmp_path / "prices.parquet")
    got, _ = read_prices(InputConfig(news="", prices=str(tmp_path / "prices.parquet")))
    pd.testing.assert_frame_equal(got.to_pandas(), expected.to_pandas())


@pytest.mark.parametrize("scheme", ["", "file://"])
@pytest.mark.parametrize("spec", ["folder", "folder/*.csv", "**/part-*.csv"])
def test_folders_and_globs_read_all_their_files_in_order(tmp_path, spec, scheme):
    folder = tmp_path / "folder"
    folder.mkdir()
    lines = NEWS.splitlines(keepends=True)
    (folder / "part-2.csv").write_text(lines[0] + lines[2] + lines[3])
    (folder / "part-1.csv").write_text(lines[0] + lines[1])
    (folder / "_SUCCESS.csv").write_text("left by another tool")
    if spec == "folder/*.csv":
        (folder / "_SUCCESS.csv").unlink()
    news, _ = read_news(InputConfig(news=f"{scheme}{tmp_path}/{spec}", prices=""))
    assert news["row"].to_pylist() == [1, 1, 2]
    assert [Path(f).name for f in news["file"].to_pylist()] == ["part-1.csv", *["part-2.csv"] * 2]


def test_columns_are_mapped_by_option(market):
    news = NEWS.replace("text", "headline").replace("published_at", "when").replace("ticker", "sym")
    prices = PRICES.replace("date", "day").replace(",close", ",last").replace("ticker", "code")
    config = market(
        news,
        prices,
        text_column="headline",
        time_column="when",
        ticker_column="sym",
        price_ticker_column="code",
        date_column="day",
        close_column="last",
    )
    assert read_inputs(config).prices["close"].to_pylist() == [1.5, 1.6, 10.5]


def test_news_without_a_ticker_column_have_null_tickers(market):
    config = market("published_at,text\n2015-01-05T10:00Z,the market\n")
    assert read_inputs(config).news["ticker"].to_pylist() == [None]


def test_korean_tickers_keep_their_leading_zeros(market):
    config = market(NEWS.replace("A,", "005930,"), PRICES.replace("\nA,", "\n005930,"))
    assert read_inputs(config).news["ticker"].to_pylist() == ["005930", "B", "005930"]


def test_dates_may_be_compact(market):
    config = market(prices=PRICES.replace("2015-01-0", "2015010"))
    assert str(read_prices(config)[0]["date"][0]) == "2015-01-02"


def test_naive_times_are_local_to_the_timezone_across_the_change_of_clocks(market):
    rows = ["2015-03-06T16:00", "2015-03-09 16:00:00", "2015-11-01T01:30", "2015-03-08T02:30"]
    news = "ticker,published_at,text\n" + "".join(f"A,{row},x\n" for row in rows)
    table, _ = read_news(market(news, timezone="America/New_York"))
    got = [stamp.strftime("%m-%d %H:%M") for stamp in table["published_at"].to_pylist()]
    # The second 01:30 of 1 November would be 06:30; 02:30 of 8 March does not exist.
    assert got == ["03-06 21:00", "03-09 20:00", "11-01 05:30", "03-08 07:00"]


def test_infinite_fundamentals_are_missing_not_bad(market):
    prices, _ = read_prices(market(prices=PRICES.replace("12.5", "inf")))
    assert np.isnan(prices["per"].to_numpy()[2])


def test_fingerprint_follows_content_not_names(market, tmp_path):
    before = input_fingerprint(market())
    assert input_fingerprint(market(news_name="other.csv")) == before
    assert input_fingerprint(market(NEWS.replace("rise", "fall"))) != before


# ------------------------------------------------------------ whole files and columns that fail


def test_missing_file_is_named(market, tmp_path):
    config = market(news=NEWS)
    message = complaint(InputConfig(news=str(tmp_path / "nope.csv"), prices=config.prices))
    assert "nope.csv: no such file" in message


def test_glob_without_match_is_named(market, tmp_path):
    config = market()
    message = complaint(InputConfig(news=str(tmp_path / "nope-*.csv"), prices=config.prices))
    assert "nope-*.csv: no file matches" in message


def test_unknown_format_lists_the_known(market):
    assert ".parquet" in complaint(market(news_name="news.docx"))


def test_missing_text_column_lists_columns_and_option(market):
    message = complaint(market(NEWS.replace("text", "body")))
    assert "no column 'text': got columns ticker, published_at, body" in message
    assert "--text-column" in message


@pytest.mark.parametrize(
    ("old", "new", "option"),
    [(",close", ",last", "--close-column"), ("date", "day", "--date-column")],
)
def test_missing_price_column_names_the_option(market, old, new, option):
    assert option in complaint(market(prices=PRICES.replace(old, new)))


def test_a_mapped_column_that_is_absent_is_an_error_even_if_optional(market):
    assert "--high-column" in complaint(market(high_column="top"))
    assert "--ticker-column" in complaint(market(ticker_column="symbol"))


def test_column_of_a_wrong_type_is_named(market, tmp_path):
    path = tmp_path / "news.parquet"
    pq.write_table(pa.table({"published_at": pa.array([1, 2]), "text": ["a", "b"]}), path)
    message = complaint(InputConfig(news=str(path), prices=market().prices))
    assert "column 'published_at': expected times, got int64" in message


def test_column_named_twice_is_an_error(market):
    assert "column 'text'" in complaint(market("text,text,published_at\na,b,2015-01-05T10:00Z\n"))


@pytest.mark.parametrize("news", ["", NEWS.splitlines(keepends=True)[0]])
def test_empty_table_is_an_error(market, news):
    assert "news.csv: no rows" in complaint(market(news))


@pytest.mark.parametrize("bad_rows", ["error", "drop"])
def test_all_texts_empty_is_an_error_of_its_own(market, bad_rows):
    news = "ticker,published_at,text\nA,2015-01-05T10:00Z,\nA,2015-01-05T11:00Z,  \n"
    message = complaint(market(news, bad_rows=bad_rows))
    assert "all 2 texts are empty" in message
    assert "--text-column" in message


def test_dates_that_do_not_overlap_name_both_ranges(market):
    message = complaint(market(NEWS.replace("2015-", "2019-")))
    assert "news from 2019-01-02 to 2019-01-05" in message
    assert "prices from 2015-01-02 to 2015-01-05" in message


def test_no_known_ticker_is_an_error_even_when_dropping(market):
    news = NEWS.replace("\nA,", "\nX,").replace("\nB,", "\nY,")
    message = complaint(market(news, bad_rows="drop"))
    assert "no ticker has prices: expected tickers such as A, B, got X, Y" in message


@pytest.mark.parametrize("bad_rows", ["error", "drop"])
def test_naive_times_ask_for_a_timezone(market, bad_rows):
    message = complaint(market(NEWS.replace("T10:00:00Z", "T10:00:00"), bad_rows=bad_rows))
    assert "row 1, column 'published_at': no time zone (1 such rows)" in message
    assert "--timezone" in message


def test_naive_parquet_times_ask_for_a_timezone(market, tmp_path):
    path = tmp_path / "news.parquet"
    stamps = pd.to_datetime(["2015-01-05 10:00"])
    pd.DataFrame({"published_at": stamps, "text": "x"}).to_parquet(path)
    config = InputConfig(news=str(path), prices=market().prices)
    assert "--timezone" in complaint(config)
    local = read_inputs(InputConfig(**{**vars(config), "timezone": "Asia/Seoul"}))
    assert local.news["published_at"][0].as_py().hour == 1


@pytest.mark.parametrize("data", [b"", b"PAR1", b"not parquet at all"])
def test_unreadable_parquet_is_named(market, data):
    assert "news.parquet: cannot be read" in complaint(market(data, news_name="news.parquet"))


def test_truncated_gzip_is_named(market):
    data = gzip.compress(NEWS.encode())[:-20]
    assert "news.csv.gz: cannot be read" in complaint(market(data, news_name="news.csv.gz"))


def test_unknown_timezone_and_choice_of_bad_rows_are_refused():
    with pytest.raises(InputError, match="--timezone"):
        InputConfig(news="n", prices="p", timezone="Mars/Olympus")
    with pytest.raises(InputError, match="--bad-rows"):
        InputConfig(news="n", prices="p", bad_rows="ignore")


# ------------------------------------------------------------------------------------ bad rows

GOOD_LINE = "A,2015-01-05T10:00:00Z,"
BAD_NEWS = {
    "unparseable time": ("A,yesterday,x\n", "published_at", "not a time"),
    "impossible date": ("A,2015-02-30T10:00:00Z,x\n", "published_at", "not a time"),
    "missing time": ("A,,x\n", "published_at", "not a time"),
    "missing ticker": (",2015-01-05T10:00:00Z,x\n", "ticker", "the ticker is missing"),
    "empty text": (GOOD_LINE + "\n", "text", "the text is empty"),
    "NUL": (GOOD_LINE + "x\0y\n", "text", "NUL"),
    "broken UTF-8": (GOOD_LINE.encode() + b"caf\xe9\n", "text", "not UTF-8"),
    "too few fields": ("A,2015-01-05T10:00:00Z\n", "", "expected 3 fields, got 2"),
    "too many fields": (GOOD_LINE + "x,y\n", "", "expected 3 fields, got 4"),
    "torn last row": ("A,2015-01", "", "expected 3 fields, got 2"),
    "torn in quotes": (GOOD_LINE + '"and then', "", "unexpected end of data"),
    "unknown ticker": ("ZZZ,2015-01-05T10:00:00Z,x\n", "ticker", "has no prices"),
}
BAD_PRICES = {
    "NaN price": ("A,2015-01-06,1,2,1,nan,1,5,1,x\n", "close", "NaN or missing"),
    "missing price": ("A,2015-01-06,1,2,1,1,,5,1,x\n", "adj_close", "NaN or missing"),
    "infinite price": ("A,2015-01-06,1,inf,1,1,1,5,1,x\n", "high", "infinite"),
    "negative price": ("A,2015-01-06,1,2,-1,1,1,5,1,x\n", "low", "not positive"),
    "zero price": ("A,2015-01-06,0,2,1,1,1,5,1,x\n", "open", "not positive"),
    "price no number": ("A,2015-01-06,1,2,1,abc,1,5,1,x\n", "close", "not a number"),
    "negative volume": ("A,2015-01-06,1,2,1,1,1,-5,1,x\n", "volume", "negative volume"),
    "high below low": ("A,2015-01-06,1,1,2,1,1,5,1,x\n", "high", "below column 'low'"),
    "repeated row": ("A,2015-01-05,1,2,1,9,9,5,1,x\n", "date", "second row for the same ticker"),
    "unparseable date": ("A,2015-13-06,1,2,1,1,1,5,1,x\n", "date", "not a date"),
    "date without day": ("A,2015-01,1,2,1,1,1,5,1,x\n", "date", "not a date"),
    "missing ticker": (",2015-01-06,1,2,1,1,1,5,1,x\n", "ticker", "the ticker is missing"),
}


def as_bytes(text):
    return text if isinstance(text, bytes) else text.encode()


@pytest.mark.parametrize("case", BAD_NEWS)
def test_bad_news_row_raises_or_is_dropped_and_listed(market, case):
    line, column, reason = BAD_NEWS[case]
    config = market(NEWS.encode() + as_bytes(line))
    message = complaint(config)
    assert f"news.csv: row 4{f', column {column!r}' if column else ''}: " in message
    assert reason in message
    assert "--bad-rows drop" in message
    inputs = dropped(config)
    assert inputs.news.num_rows == 3
    (reject,) = inputs.rejects.rows
    assert (Path(reject.file).name, reject.row, reject.column) == ("news.csv", 4, column)
    assert reason in reject.reason


@pytest.mark.parametrize("case", BAD_PRICES)
def test_bad_price_row_raises_or_is_dropped_and_listed(market, case):
    line, column, reason = BAD_PRICES[case]
    config = market(prices=PRICES + line)
    message = complaint(config)
    assert f"prices.csv: row 4, column {column!r}: " in message
    assert reason in message
    inputs = dropped(config)
    assert inputs.prices.num_rows == 3
    assert 9.0 not in inputs.prices["close"].to_pylist(), "of repeated rows the first is kept"
    assert [(r.row, r.column) for r in inputs.rejects.rows] == [(4, column)]


def test_repeated_price_row_is_found_across_files(market, tmp_path):
    config = market()
    (tmp_path / "prices-2.csv").write_text(PRICES)
    spread = InputConfig(news=config.news, prices=str(tmp_path / "prices*.csv"))
    assert "prices.csv: row 1" in complaint(spread)
    assert "3 bad rows, this the first" in complaint(spread)
    assert dropped(spread).prices.num_rows == 3


def test_row_number_skips_nothing_after_torn_and_multi_line_rows(market):
    news = 'ticker,published_at,text\nA,2015\nA,2015-01-05T10:00Z,"two\nlines"\n\nA,never,x\n'
    rejects = dropped(market(news)).rejects
    assert [(r.row, r.column) for r in rejects.rows] == [(1, ""), (3, "published_at")]


def test_first_bad_row_is_the_first_in_the_file_whichever_check_it_fails(market):
    news = "ticker,published_at,text\n" + GOOD_LINE + "\nA,never,x\n,2015-01-05T10:00Z,x\nA,2015\n"
    config = market(news + GOOD_LINE + "x\n")
    assert "row 1, column 'text': the text is empty (4 bad rows, this the first)" in complaint(
        config
    )
    assert [r.row for r in dropped(config).rejects.rows] == [1, 2, 3, 4]


def test_malformed_json_line_is_named_by_its_line(market):
    good = {"ticker": "A", "published_at": "2015-01-05T10:00Z", "text": "x"}
    surrogate = json.dumps(good).replace('"x"', '"\\ud800"')
    lines = [json.dumps(good), '{"ticker": "A", ', "", "[1]", surrogate]
    config = market("\n".join(lines), news_name="news.jsonl")
    assert "row 2: malformed JSON" in complaint(config)
    rejects = dropped(config).rejects.rows
    assert [(r.row, r.column) for r in rejects] == [(2, ""), (4, ""), (5, "text")]


def test_json_of_mixed_types_keeps_the_rows_that_are_fine(market):
    lines = [
        '{"ticker": "A", "published_at": "2015-01-05T10:00Z", "text": "x"}',
        '{"ticker": "A", "published_at": 1420452000, "text": "x"}',
        '{"ticker": "A", "text": "x"}',
    ]
    inputs = dropped(market("\n".join(lines), news_name="news.jsonl"))
    assert inputs.news.num_rows == 1
    assert [(r.row, r.value) for r in inputs.rejects.rows] == [(2, "1420452000"), (3, "nothing")]


def test_no_good_row_left_is_an_error_even_when_dropping(market):
    message = complaint(market("ticker,published_at,text\nA,never,x\n", bad_rows="drop"))
    assert "No good row is left" in message


def test_rejects_make_a_table(market):
    config = market(NEWS + "A,yesterday,x\n")
    table = dropped(config).rejects.table()
    assert table.to_pylist()[0]["value"] == "yesterday"
    assert table.schema.names == ["file", "row", "column", "reason", "value"]


def test_zoned_times_of_day_are_no_dates(market, tmp_path):
    path = tmp_path / "prices.parquet"
    days = pd.to_datetime(["2015-01-05 00:00", "2015-01-06 15:00"]).tz_localize("Asia/Seoul")
    frame = pd.DataFrame({"ticker": "A", "date": days, "close": 1.0})
    frame.to_parquet(path)
    config = InputConfig(news=market().news, prices=str(path), bad_rows="drop")
    prices, rejects = read_prices(config)
    assert [str(day) for day in prices["date"].to_pylist()] == ["2015-01-05"], "the local day"
    assert [r.row for r in rejects.rows] == [2]


@pytest.mark.skipif(not STOCKNET.exists(), reason=f"real texts are not at {STOCKNET}")
def test_stocknet_reads_without_a_bad_row():
    files = {"news": str(STOCKNET / "news.parquet"), "prices": str(STOCKNET / "prices.parquet")}
    inputs = read_inputs(InputConfig(**files))
    assert (inputs.news.num_rows, inputs.prices.num_rows) == (106_338, 49_452)
    assert len(inputs.rejects) == 0
