"""Metrics against scipy and closed forms, and None where nothing is defined."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr

from pipelines.news.fitting.metrics import MIN_TICKERS, OutOfFold, score_out_of_fold

QUICK = settings(deadline=None, max_examples=25)


def make_rows(seed, n=300, sessions=8, tickers=9, ties=False):
    rng = np.random.default_rng(seed)
    actual = rng.standard_normal(n)
    predicted = 0.3 * actual + rng.standard_normal(n)
    if ties:
        predicted = np.round(predicted)
    return OutOfFold(
        row=np.arange(n),
        session=rng.integers(0, sessions, n),
        ticker=rng.integers(0, tickers, n),
        actual=actual,
        predicted=predicted,
        baseline=(baseline := rng.choice([-0.1, 0.0, 0.2], n)),
        wordless=baseline,
    )


def ticker_means(rows, session):
    inside = rows.session == session
    tickers = np.unique(rows.ticker[inside])
    means = [
        [column[inside & (rows.ticker == ticker)].mean() for ticker in tickers]
        for column in (rows.predicted, rows.actual)
    ]
    return np.array(means)


@QUICK
@given(seed=st.integers(0, 10**6), ties=st.booleans(), n=st.sampled_from([60, 300]))
def test_daily_correlations_equal_scipys(seed, ties, n):
    rows = make_rows(seed, n=n, ties=ties)
    metrics, daily = score_out_of_fold(rows)
    pearson, spearman, counted = [], [], []
    for session in np.unique(rows.session):
        predicted, actual = ticker_means(rows, session)
        if predicted.size < MIN_TICKERS:
            continue
        constant = np.ptp(predicted) == 0
        pearson.append(np.nan if constant else pearsonr(predicted, actual)[0])
        spearman.append(np.nan if constant else spearmanr(predicted, actual)[0])
        counted.append((session, predicted.size))
    np.testing.assert_allclose(daily["ic"], pearson, atol=1e-10)
    np.testing.assert_allclose(daily["rank_ic"], spearman, atol=1e-10)
    assert list(zip(daily["session"], daily["n"], strict=True)) == counted
    if np.isfinite(pearson).sum() > 1:
        assert metrics["ic"] == pytest.approx(np.nanmean(pearson))
        assert metrics["rank_ic"] == pytest.approx(np.nanmean(spearman))
        ratio = np.nanmean(pearson) / np.nanstd(pearson, ddof=1) * np.sqrt(252)
        assert metrics["daily_ir"] == pytest.approx(ratio)


def test_pooled_numbers_equal_their_definitions():
    rows = make_rows(1)
    rows.predicted[::3] = rows.baseline[::3]  # rows without a word
    metrics, _ = score_out_of_fold(rows)
    residual, before = rows.actual - rows.predicted, rows.actual - rows.baseline
    assert metrics["oof_r2"] == pytest.approx(1 - (residual**2).sum() / (before**2).sum())
    assert metrics["pooled_ic"] == pytest.approx(pearsonr(rows.predicted, rows.actual)[0])
    right = [
        (p > b) == (a > b)
        for p, a, b in zip(rows.predicted, rows.actual, rows.baseline, strict=True)
        if p != b
    ]
    assert metrics["directional_accuracy"] == pytest.approx(np.mean(right))


def test_perfect_and_useless_predictions_have_the_known_values():
    rows = make_rows(2)
    parts = vars(rows)
    perfect, _ = score_out_of_fold(OutOfFold(**(parts | {"predicted": rows.actual})))
    for name in ("oof_r2", "pooled_ic", "ic", "rank_ic", "directional_accuracy"):
        assert perfect[name] == pytest.approx(1.0)
    opposite, _ = score_out_of_fold(OutOfFold(**(parts | {"predicted": -rows.actual})))
    assert opposite["ic"] == pytest.approx(-1.0)
    nothing, _ = score_out_of_fold(OutOfFold(**(parts | {"predicted": rows.baseline})))
    assert nothing["oof_r2"] == 0.0
    assert nothing["directional_accuracy"] is None


def test_a_constant_prediction_has_no_correlation():
    rows = make_rows(3)
    constant = np.full(300, 0.1)
    parts = vars(rows) | dict.fromkeys(("predicted", "baseline", "wordless"), constant)
    metrics, daily = score_out_of_fold(OutOfFold(**parts))
    for name in ("pooled_ic", "ic", "rank_ic", "daily_ir", "directional_accuracy"):
        assert metrics[name] is None
    assert daily["ic"].isna().all()


def test_too_few_tickers_have_no_daily_correlation():
    rows = make_rows(4, tickers=MIN_TICKERS - 1)
    metrics, daily = score_out_of_fold(rows)
    assert len(daily) == 0
    assert metrics["ic"] is metrics["rank_ic"] is metrics["daily_ir"] is None
    assert metrics["pooled_ic"] is not None


def test_one_session_has_no_information_ratio():
    rows = make_rows(5, n=20, sessions=1)
    metrics, _ = score_out_of_fold(rows)
    assert metrics["ic"] is not None
    assert metrics["daily_ir"] is None


def test_a_target_that_is_its_baseline_has_no_r2():
    rows = make_rows(6)
    metrics, _ = score_out_of_fold(OutOfFold(**(vars(rows) | {"actual": rows.baseline})))
    assert metrics["oof_r2"] is None


def test_rows_without_a_word_do_not_count_for_direction():
    rows = make_rows(3)
    wordless = np.full(rows.actual.size, 0.05)
    silent = np.arange(rows.actual.size) % 3 > 0
    predicted = np.where(silent, wordless, rows.baseline + rows.actual - rows.baseline)
    parts = vars(rows) | {"predicted": predicted, "wordless": wordless}
    metrics, _ = score_out_of_fold(OutOfFold(**parts))
    assert metrics["directional_accuracy"] == 1.0
