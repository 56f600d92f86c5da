"""The synthetic market: its truth is in its texts and prices, and nowhere else."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pytest

from cluster.errors import InputError
from pipelines.news.market.observations import align
from pipelines.news.market.sessions import CalendarConfig, make_sessions
from pipelines.news.market.targets import TargetConfig, build_targets
from pipelines.news.reading.ingest import InputConfig, read_inputs
from pipelines.news.synthetic import WEIGHTS, SyntheticConfig, make_market, write_market

SMALL = {"documents": 6_000, "tickers": 40, "sessions": 120, "words": 4}


def counts(texts: list[str], ngrams: list[str]) -> np.ndarray:
    """How often each n-gram is in each text, found by splitting: (n_texts, n_ngrams)."""
    column = {tuple(ngram.split()): j for j, ngram in enumerate(ngrams)}
    found = np.zeros((len(texts), len(ngrams)))
    for i, text in enumerate(texts):
        words = text.split()
        for gram in [*zip(words, strict=True), *pairwise(words)]:
            if gram in column:
                found[i, column[gram]] += 1
    return found


def aligned(news, prices, kind="documents"):
    dates = prices["date"].to_numpy()
    sessions = make_sessions(CalendarConfig(), dates.min(), dates.max())
    return align(news, build_targets(prices, sessions, TargetConfig()), sessions, kind)


@pytest.fixture(scope="module")
def market():
    return make_market(SyntheticConfig(**SMALL))


def test_same_seed_gives_the_same_market_and_another_seed_another(market):
    again = make_market(SyntheticConfig(**SMALL))
    other = make_market(SyntheticConfig(**SMALL, seed=1))
    for one, two, three in zip(market, again, other, strict=True):
        assert one.equals(two)
        assert not one.equals(three)


def test_sizes_are_those_asked_for(market):
    news, prices, lexicon = market
    assert news.num_rows == SMALL["documents"]
    assert prices.num_rows == SMALL["tickers"] * SMALL["sessions"]
    planted = lexicon.to_pandas().groupby("target")["ngram"].nunique()
    assert planted.to_dict() == dict.fromkeys(WEIGHTS, SMALL["words"])
    assert lexicon["ngram"].to_pandas().is_unique


def test_files_are_read_back_without_a_bad_row(tmp_path):
    write_market(SyntheticConfig(**SMALL), tmp_path)
    files = {name: str(tmp_path / f"{name}.parquet") for name in ("news", "prices")}
    inputs = read_inputs(InputConfig(**files))
    assert len(inputs.rejects) == 0
    news, _, lexicon = make_market(SyntheticConfig(**SMALL))
    assert inputs.news["text"].to_pylist() == news["text"].to_pylist()
    assert pyarrow.csv.read_csv(tmp_path / "lexicon.csv").num_rows == lexicon.num_rows
    assert {"adj_close", "per"} <= set(inputs.prices.column_names)


def test_every_document_has_all_its_targets(market):
    got = aligned(*market[:2])
    assert len(got) == SMALL["documents"]
    assert not any(got.dropped.values())
    assert got.session.min() >= 1


def test_bars_are_possible(market):
    frame = market[1].to_pandas()
    assert (frame["low"] <= frame[["open", "close"]].min(axis=1) * (1 + 1e-12)).all()
    assert (frame["high"] >= frame[["open", "close"]].max(axis=1) * (1 - 1e-12)).all()
    raw = np.log(frame["close"]).groupby(frame["ticker"]).diff()
    adjusted = np.log(frame["adj_close"]).groupby(frame["ticker"]).diff()
    assert (np.abs(raw - adjusted) > 0.6).sum() == SMALL["tickers"] // 10, "one split each"


def test_range_is_the_sum_of_the_planted_weights_of_distinct_texts_when_there_is_no_noise():
    news, prices, lexicon = make_market(SyntheticConfig(**SMALL, noise=0.0))
    got = aligned(news, prices, "days")
    words = lexicon.to_pandas()
    words = words[words["target"] == "log_range"]
    distinct = ["\n".join(dict.fromkeys(text.split("\n"))) for text in got.text.to_pylist()]
    planted = counts(distinct, words["ngram"].tolist()) @ words["weight"].to_numpy()
    measured = got.Y[:, got.target_names.index("log_range")]
    kept = measured > 0.002 + 1e-9  # the smallest range
    assert kept.mean() > 0.99
    np.testing.assert_allclose(measured[kept], 0.035 + planted[kept], atol=1e-9)


@pytest.mark.parametrize(("signal", "found"), [(1.0, True), (0.0, False)])
def test_least_squares_finds_the_weights_only_when_there_is_signal(signal, found):
    news, prices, lexicon = make_market(SyntheticConfig(**SMALL, signal=signal))
    got = aligned(news, prices)
    words = lexicon.to_pandas()
    X = counts(got.text.to_pylist(), words["ngram"].tolist())
    design = np.column_stack([X, np.ones(len(X))])
    for k, name in enumerate(got.target_names):
        estimate, *_ = np.linalg.lstsq(design, got.Y[:, k], rcond=None)
        residual = got.Y[:, k] - design @ estimate
        z = estimate[:-1] * np.sqrt(X.sum(axis=0)) / residual.std()
        own = (words["target"] == name).to_numpy()
        signs = np.sign(words["weight"].to_numpy()[own])
        assert (np.abs(z[own]).min() > 6) == found, name
        assert np.abs(z[~own]).max() < 5.5, name
        if found:
            assert (np.sign(estimate[:-1][own]) == signs).all()
            np.testing.assert_allclose(np.abs(estimate[:-1][own]).mean(), WEIGHTS[name], rtol=0.3)


def test_words_of_twins_occur_nowhere_else_and_words_of_bigrams_do(market):
    news, _, lexicon = market
    texts = news["text"].to_pylist()
    words = lexicon.to_pandas()
    kinds = words["kind"].value_counts().to_dict()
    assert kinds == {"unigram": 8, "twin": 4, "bigram": 4}
    for ngram, kind in zip(words["ngram"], words["kind"], strict=True):
        if kind == "unigram":
            continue
        pair = counts(texts, [ngram]).ravel()
        alone = counts(texts, ngram.split())
        if kind == "twin":
            assert (alone == pair[:, None]).all()
        else:
            assert ((alone > 0).any(axis=1) & (pair == 0)).sum() > 10


def test_no_text_has_a_planted_ngram_twice_and_each_is_common(market):
    news, _, lexicon = market
    found = counts(news["text"].to_pylist(), lexicon["ngram"].to_pylist())
    assert found.max() == 1
    assert found.sum(axis=0).min() > 100
    assert found.sum(axis=1).mean() == pytest.approx(3, abs=0.3)


def test_signal_changes_prices_but_not_texts(market):
    news, prices, lexicon = make_market(SyntheticConfig(**SMALL, signal=0.0))
    assert news.equals(market[0])
    assert not prices.equals(market[1])
    assert set(lexicon["weight"].to_pylist()) == {0.0}
    assert lexicon["ngram"].equals(market[2]["ngram"])


def test_repeats_follow_the_first_post_in_the_same_session(market):
    news, prices, _ = market
    got = aligned(news, prices)
    frame = pd.DataFrame({"text": got.text.to_pylist(), "t": got.ticker, "s": got.session})
    repeated = frame.duplicated("text")
    assert repeated.mean() == pytest.approx(0.1, abs=0.01)
    assert (frame.groupby("text")[["t", "s"]].nunique() == 1).all(axis=None)


def test_share_of_after_hours_news_is_as_asked_for(market):
    news, _, _ = market
    stamps = pd.Series(news["published_at"].to_pandas()).dt.tz_convert("America/New_York")
    trading = stamps.dt.hour.between(9, 15) & (stamps.dt.dayofweek < 5)
    assert 0.25 < 1 - trading.mean() < 0.45
    assert (np.diff(news["published_at"].cast(pa.int64()).to_numpy()) >= 0).all()


def test_tiny_markets_can_be_made():
    config = SyntheticConfig(documents=1, tickers=2, sessions=3, words=1, repeats=0.0)
    news, prices, lexicon = make_market(config)
    assert (news.num_rows, prices.num_rows, lexicon.num_rows) == (1, 6, 4)


def test_other_exchanges_can_be_asked_for():
    config = SyntheticConfig(documents=50, tickers=2, sessions=20, exchange="XKRX")
    dates = make_market(config)[1]["date"].to_pylist()
    holidays = {str(day) for day in dates} & {"2022-01-31", "2022-02-01", "2022-02-02"}
    assert not holidays, "the new year of the moon"


@pytest.mark.parametrize(
    "options",
    [
        {"documents": 0},
        {"tickers": 1},
        {"words": 0},
        {"sessions": 2},
        {"repeats": 1.0},
        {"signal": -1.0},
        {"noise": float("nan")},
        {"first": "soon"},
    ],
)
def test_impossible_markets_are_refused(options):
    with pytest.raises(InputError, match=f"--{next(iter(options))}"):
        SyntheticConfig(**options)


def test_no_planted_ngram_arises_by_chance():
    config = SyntheticConfig(tickers=2, sessions=3, planted_per_text=0.0)
    news, _, lexicon = make_market(config)
    assert counts(news["text"].to_pylist(), lexicon["ngram"].to_pylist()).sum() == 0
