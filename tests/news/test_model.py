"""The kept model scores the training texts as the solution predicted them."""

import numpy as np
import pytest
from finished_run import EXACT, finish_run

from cluster.errors import InputError
from cluster.storage import Store
from pipelines.news.design.ngrams import NgramConfig
from pipelines.news.model import read_model

CASES = {
    "tf-idf": {"ngrams": EXACT},
    "counts": {"ngrams": NgramConfig(ngram_max=2, weighting="counts")},
    "deviation": {"ngrams": EXACT, "scale": "std"},
    "largest": {"ngrams": NgramConfig(ngram_max=2, weighting="counts"), "scale": "max"},
    "hashed": {"ngrams": NgramConfig(ngram_max=2, hash_bits=8, min_df=3, max_df=0.5)},
    "hashed deviation": {"ngrams": NgramConfig(ngram_max=2, hash_bits=12), "scale": "std"},
    "stop words": {"ngrams": NgramConfig(stop_words=("the", "of", "a"), min_df=3, max_df=0.4)},
}


@pytest.mark.parametrize("name", CASES)
def test_training_texts_are_scored_as_they_were_predicted(tmp_path, name):
    run = finish_run(tmp_path, **CASES[name])
    model = read_model(Store(run.folder))
    assert run.chosen[0].support.size > 3
    for target, title in enumerate(("return", "log_range")):
        shares, words = model.contributions(run.texts)[title]
        assert shares.shape == (120, len(words)) == (120, run.chosen[target].support.size)
        score = model.standardised(title, shares)
        np.testing.assert_allclose(score, run.predicted(target), rtol=1e-9, atol=1e-12)


def test_features_stand_at_their_mean(tmp_path):
    run = finish_run(tmp_path, ngrams=EXACT, features=("per", "pbr"), share=0.02)
    model = read_model(Store(run.folder))
    support = run.chosen[0].support
    words = run.problem.columns.solved[support] >= 0
    assert not words.all()
    assert len(model.contributions(run.texts)["return"][1]) == words.sum()
    wanted = (
        run.problem.X[:, support[words]] @ run.chosen[0].values[words] + run.chosen[0].intercept
    )
    shares, _ = model.contributions(run.texts)["return"]
    np.testing.assert_allclose(model.standardised("return", shares), wanted, rtol=1e-9)


@pytest.mark.parametrize("hash_bits", [0, 10])
def test_texts_without_a_known_ngram_score_the_intercept(tmp_path, hash_bits):
    run = finish_run(tmp_path, ngrams=NgramConfig(ngram_max=2, hash_bits=hash_bits))
    model = read_model(Store(run.folder))
    texts = ["", " … "] + (["never seen words"] if not hash_bits else [])
    shares, _ = model.contributions(texts)["return"]
    np.testing.assert_array_equal(model.standardised("return", shares), run.chosen[0].intercept)
    assert model.contributions([])["return"][0].shape[0] == 0


def test_a_texts_score_does_not_depend_on_its_company(tmp_path):
    run = finish_run(tmp_path, ngrams=EXACT)
    model = read_model(Store(run.folder))
    together = model.weigh(run.texts[:10]).toarray()
    for row, text in enumerate(run.texts[:10]):
        np.testing.assert_array_equal(model.weigh([text]).toarray()[0], together[row])


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="no finished news run"):
        read_model(Store(tmp_path))
