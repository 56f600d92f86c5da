"""N-grams against scikit-learn's counting, and against plain loops where lines break."""

import re
import unicodedata
from collections import Counter

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer

from cluster.errors import InputError
from pipelines.news.design.ngrams import NgramConfig, count_ngrams
from pipelines.news.design.tokenizer import BREAK, make_tokenizer

QUICK = settings(deadline=None, max_examples=40)
SPOKEN = (
    "Apple apple APPLE $AAPL #up don't don’t follow-up é É e\u0301 ﬁne "
    "fine 한국 주가 株価 ａｂｃ Straße STRASSE 3.5 10 _x -- … "
    "🙂 the The of "
)
WORDS = SPOKEN.split()
texts_without_breaks = st.lists(
    st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join), min_size=1, max_size=15
)
any_texts = st.lists(
    st.lists(st.sampled_from([*WORDS, "\n", "\n\n", "\t"]), max_size=12).map(" ".join)
    | st.text(max_size=20),
    min_size=1,
    max_size=12,
)


def normalise(text):
    return unicodedata.normalize("NFKC", text).casefold().replace("’", "'")


def words_of(line):
    return re.findall(r"[$#]?\w+(?:['\-]\w+)*", line)


def plain_counts(text, config, split=words_of):
    """Count the n-grams of one text with loops over its lines."""
    counts = Counter()
    for line in normalise(text).split("\n"):
        words = [word for word in split(line) if word not in config.stop_words]
        for n in range(config.ngram_min, config.ngram_max + 1):
            counts.update(" ".join(words[i : i + n]) for i in range(len(words) - n + 1))
    return counts


def as_matrix(counts):
    shape = (counts.indptr.size - 1, len(counts.names))
    return sp.csr_matrix((counts.counts, counts.ids, counts.indptr), shape=shape)


@QUICK
@given(
    texts=texts_without_breaks,
    orders=st.sampled_from([(1, 1), (1, 2), (1, 3), (2, 2), (2, 4), (3, 3)]),
    stop_words=st.sampled_from([(), ("the", "of"), ("apple",)]),
)
def test_counts_equal_scikit_learns(texts, orders, stop_words):
    config = NgramConfig(ngram_min=orders[0], ngram_max=orders[1], stop_words=stop_words)
    counts = count_ngrams(texts, config)
    names = counts.names.to_pylist()
    oracle = CountVectorizer(
        preprocessor=normalise,
        tokenizer=words_of,
        token_pattern=None,
        ngram_range=orders,
        stop_words=list(stop_words) or None,
    )
    try:
        wanted = oracle.fit_transform(texts)
    except ValueError:  # it refuses texts without any n-gram
        assert names == []
        assert counts.indptr.tolist() == [0] * (len(texts) + 1)
        return
    order = np.argsort(np.array(names, dtype=object))
    assert [names[j] for j in order] == oracle.get_feature_names_out().tolist()
    np.testing.assert_array_equal(as_matrix(counts)[:, order].toarray(), wanted.toarray())
    np.testing.assert_array_equal(counts.document_frequencies()[order], (wanted > 0).sum(axis=0).A1)


@QUICK
@given(texts=any_texts, tokenizer=st.sampled_from(["word", "whitespace"]))
def test_ngrams_do_not_cross_line_breaks_or_texts(texts, tokenizer):
    config = NgramConfig(tokenizer=tokenizer, ngram_max=3)
    counts = count_ngrams(texts, config)
    names = counts.names.to_pylist()
    assert len(set(names)) == len(names)
    split = words_of if tokenizer == "word" else lambda line: re.findall(r"[^\s]+", line)
    found = as_matrix(counts)
    for row, text in enumerate(texts):
        line = found[[row]]
        ours = {names[j]: int(n) for j, n in zip(line.indices, line.data, strict=True)}
        assert ours == plain_counts(text, config, split)


@QUICK
@given(texts=any_texts)
def test_every_name_occurs_and_ids_rise(texts):
    counts = count_ngrams(texts, NgramConfig(ngram_max=2))
    assert (counts.document_frequencies() > 0).all()
    assert (counts.counts > 0).all()
    for start, end in zip(counts.indptr[:-1], counts.indptr[1:], strict=True):
        assert (np.diff(counts.ids[start:end]) > 0).all()


@QUICK
@given(texts=any_texts, extra=any_texts)
def test_hashes_depend_on_the_ngram_alone(texts, extra):
    config = NgramConfig(ngram_max=3)
    one, other = count_ngrams(texts, config), count_ngrams([*extra, *texts], config)
    hash_of = dict(zip(other.names.to_pylist(), other.hashes.tolist(), strict=True))
    assert len(set(hash_of.values())) == len(hash_of)
    for name, value in zip(one.names.to_pylist(), one.hashes.tolist(), strict=True):
        assert hash_of[name] == value


def test_hashes_are_spread_over_buckets():
    names = " ".join(f"w{i}" for i in range(20_000))
    hashes = count_ngrams([names], NgramConfig(ngram_max=1)).hashes
    loads = np.bincount((hashes & np.uint64(255)).astype(int), minlength=256)
    assert loads.min() > 40
    assert loads.max() < 130


@pytest.mark.parametrize("texts", [[], [""], ["", "", ""], ["\n\n"], [" … "], ["the of", "THE"]])
def test_texts_without_words_are_rows_of_nothing(texts):
    counts = count_ngrams(texts, NgramConfig(stop_words=("the", "of")))
    assert counts.indptr.tolist() == [0] * (len(texts) + 1)
    assert counts.ids.size == counts.counts.size == len(counts.names) == counts.hashes.size == 0


def test_stop_words_are_matched_as_the_tokenizer_writes_words():
    config = NgramConfig(ngram_max=1, stop_words=("The", "ＯＦ", "É"))
    assert count_ngrams(["the of THE e\u0301 stays"], config).names.to_pylist() == ["stays"]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Don't  PANIC!", ["don't", "panic"]),
        ("$AAPL, #earnings: +3.5%", ["$aapl", "#earnings", "3", "5"]),
        ("follow-up - re--do", ["follow-up", "re", "do"]),
        ("ＦＵＬＬ ﬁt", ["full", "fit"]),
        ("삼성전자 주가", ["삼성전자", "주가"]),
        ("a\nb\n\nc", ["a", BREAK, "b", BREAK, BREAK, "c"]),
        ("", []),
    ],
)
def test_word_tokenizer(text, tokens):
    assert make_tokenizer("word")(text) == tokens


def test_korean_tokenizer_gives_content_morphemes_line_by_line():
    pytest.importorskip("kiwipiepy", reason="the korean extra is not installed")
    tokenize = make_tokenizer("korean")
    assert tokenize("주가가 올랐다") == ["주가", "오르다"]
    assert tokenize("주가가 올랐다\n실적이 좋다") == ["주가", "오르다", BREAK, "실적", "좋다"]
    assert tokenize("") == []
    names = count_ngrams(
        ["주가가 올랐다\n실적이 좋다"], NgramConfig(tokenizer="korean", ngram_max=2)
    ).names.to_pylist()
    assert set(names) == {"주가", "오르다", "실적", "좋다", "주가 오르다", "실적 좋다"}


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"ngram_min": 3, "ngram_max": 2}, "--ngram-min"),
        ({"ngram_min": 0}, "--ngram-min"),
        ({"ngram_max": 9}, "--ngram-max"),
        ({"min_df": 0}, "--min-df"),
        ({"max_df": 0.0}, "--max-df"),
        ({"max_df": 1.5}, "--max-df"),
        ({"max_df": float("nan")}, "--max-df"),
        ({"weighting": "bm25"}, "--weighting"),
        ({"hash_bits": 7}, "--hash-bits"),
        ({"hash_bits": 31}, "--hash-bits"),
        ({"tokenizer": "letters"}, "--tokenizer"),
    ],
)
def test_options_that_cannot_be_are_refused(options, flag):
    with pytest.raises(InputError, match=flag):
        NgramConfig(**options)
