"""Scoring of files and of single texts: shares add up, rows keep their place."""

import numpy as np
import pandas as pd
import pytest
from finished_run import EXACT, finish_run

from cluster.errors import InputError
from cluster.storage import Store
from pipelines.news import score as module
from pipelines.news.score import ScoreConfig, explain_text, score_texts


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return finish_run(tmp_path_factory.mktemp("run"), ngrams=EXACT)


@pytest.mark.parametrize("block_rows", [20_000, 7])
def test_scores_and_shares_of_a_file_equal_the_predictions(run, tmp_path, monkeypatch, block_rows):
    monkeypatch.setattr(module, "BLOCK_ROWS", block_rows)
    texts = [text or "nothing" for text in run.texts]
    news = tmp_path / "news.parquet"
    pd.DataFrame({"text": texts}).to_parquet(news)
    summary = score_texts(run.folder, ScoreConfig(news=str(news), out=str(tmp_path / "out")))
    assert summary["texts"] == 120
    store = Store(tmp_path / "out")
    scores = store.read_table("scores.parquet").to_pandas()
    words = store.read_table("words.parquet").to_pandas()
    mean, std = run.problem.mean, run.problem.std
    for target, name in enumerate(("return", "log_range")):
        np.testing.assert_allclose(scores[name], run.predicted(target), atol=1e-12)
        np.testing.assert_allclose(scores[f"{name}_raw"], scores[name] * std[target] + mean[target])
        mine = words[words["target"] == name]
        sums = mine.groupby("row")["contribution"].sum()
        wanted = sums.reindex(scores["row"], fill_value=0.0) + run.chosen[target].intercept
        np.testing.assert_allclose(wanted, scores[name], atol=1e-12)
    for row in words.sample(50, random_state=0).itertuples():
        position = scores.index[scores["row"] == row.row][0]
        assert f" {row.ngram} " in f" {texts[position]} "


def test_explained_text_equals_its_row(run):
    text = run.texts[3]
    first, second = explain_text(run.folder, text)
    assert (first["target"], second["target"]) == ("return", "log_range")
    assert first["score"] == pytest.approx(run.predicted(0)[3])
    assert first["raw"] == pytest.approx(first["score"] * run.problem.std[0] + run.problem.mean[0])
    shares = [word["contribution"] for word in first["words"]]
    assert sum(shares) + run.chosen[0].intercept == pytest.approx(first["score"])
    assert shares == sorted(shares, key=abs, reverse=True)
    assert second["words"] == []


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({}, "--news, --text"),
        ({"news": "a", "text": "b"}, "--news, --text"),
        ({"text": "b", "bad_rows": "keep"}, "--bad-rows"),
    ],
)
def test_options_that_cannot_be_are_refused(options, flag):
    with pytest.raises(InputError, match=flag):
        ScoreConfig(**options)
