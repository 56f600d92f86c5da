"""Both passes over the texts against scikit-learn, whatever the shards, blocks and buckets."""

import tempfile
from collections import defaultdict

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer

from cluster.storage import Store
from pipelines.news.design import vocabulary
from pipelines.news.design.matrix import stack_counts, weigh
from pipelines.news.design.ngrams import NgramConfig, count_ngrams
from pipelines.news.design.vocabulary import (
    Bucket,
    _block_ends,
    assemble_shard,
    count_shard,
    merge_bucket,
    protected_columns,
    recover_names,
    write_texts,
    write_vocabulary,
)

QUICK = settings(deadline=None, max_examples=12)
SPOKEN = "up down Up $aapl don't é 한국 株価 rise fall the of 10 a b c d "
WORDS = SPOKEN.split()


def make_texts(seed, n=40):
    rng = np.random.default_rng(seed)
    share = 1.0 / np.arange(1, len(WORDS) + 1)
    lengths = rng.integers(0, 9, n)
    return [" ".join(rng.choice(WORDS, k, p=share / share.sum())) for k in lengths]


def run_passes(texts, config, n_shards, folder):
    """Return the count matrix, the vocabulary table (None with hashing) and the counted store."""
    store = Store(folder)
    shards = write_texts(store, pa.array(texts, pa.string()), -(-len(texts) // n_shards))
    counted, merged, rows = store / "counted", store / "merged", store / "rows"
    n_blocks = shards[-1].stop
    for shard in shards:
        summary = count_shard(shard, counted, texts=store, config=config)
        assert all(counted.exists(name) for name in summary["files"])
    table, n_columns = None, 1 << config.hash_bits
    if not config.hash_bits:
        n_buckets = shards[0].n_buckets
        for number in range(n_buckets):
            bucket = Bucket(number, n_blocks)
            merge_bucket(bucket, merged, counted=counted, config=config, n_texts=len(texts))
        table = write_vocabulary(merged, n_buckets)
        n_columns = table.num_rows
    files = []
    for shard in shards:
        known = None if config.hash_bits else merged
        summary = assemble_shard(shard, rows, counted=counted, vocabulary=known, config=config)
        files += summary["files"]
    matrix = stack_counts((rows.read_arrays(name) for name in files), n_columns)
    return matrix, table, counted, n_blocks


def scikit_learn(texts, config):
    model = CountVectorizer(
        token_pattern=r"[$#]?\w+(?:['’\-]\w+)*",
        ngram_range=(config.ngram_min, config.ngram_max),
        min_df=config.min_df,
        max_df=config.max_df,
        stop_words=list(config.stop_words) or None,
    )
    return model.fit_transform(texts), model.get_feature_names_out().tolist()


@QUICK
@given(
    seed=st.integers(0, 10**6),
    min_df=st.integers(1, 4),
    max_df=st.sampled_from([0.3, 0.5, 0.7, 1.0]),
    n_shards=st.integers(1, 9),
    stop_words=st.sampled_from([(), ("the", "of")]),
)
def test_matrix_and_vocabulary_equal_scikit_learns(seed, min_df, max_df, n_shards, stop_words):
    texts = make_texts(seed)
    config = NgramConfig(min_df=min_df, max_df=max_df, stop_words=stop_words)
    wanted, names = scikit_learn(texts, config)
    with tempfile.TemporaryDirectory() as folder:
        matrix, table, _, _ = run_passes(texts, config, n_shards, folder)
    assert table["ngram"].to_pylist() == names
    np.testing.assert_array_equal(matrix.toarray(), wanted.toarray())
    np.testing.assert_array_equal(table["df"].to_numpy(), (wanted > 0).sum(axis=0).A1)


@pytest.mark.parametrize("hash_bits", [0, 10])
def test_shards_and_blocks_change_no_byte(tmp_path, monkeypatch, hash_bits):
    texts = make_texts(1, 43)
    config = NgramConfig(hash_bits=hash_bits)
    results = []
    for n_shards, block_rows in ((1, 20_000), (2, 20_000), (7, 20_000), (1, 5), (3, 4), (43, 1)):
        monkeypatch.setattr(vocabulary, "BLOCK_ROWS", block_rows)
        folder = tmp_path / f"{n_shards}-{block_rows}"
        results.append(run_passes(texts, config, n_shards, folder)[:2])
    matrix, table = results[0]
    assert matrix.nnz > 100
    for other, other_table in results[1:]:
        for part in ("data", "indices", "indptr"):
            ours, theirs = getattr(matrix, part), getattr(other, part)
            assert ours.dtype == theirs.dtype
            assert ours.tobytes() == theirs.tobytes()
        assert other_table == table


def test_more_blocks_than_buckets_agree(tmp_path, monkeypatch):
    monkeypatch.setattr(vocabulary, "MAX_BUCKETS", 3)
    texts = make_texts(2)
    config = NgramConfig()
    wanted, names = scikit_learn(texts, config)
    matrix, table, _, n_blocks = run_passes(texts, config, 11, tmp_path)
    assert n_blocks > 3
    assert table["ngram"].to_pylist() == names
    np.testing.assert_array_equal(matrix.toarray(), wanted.toarray())


def test_a_shard_of_empty_texts_is_rows_of_zeros(tmp_path):
    texts = ["up down", "up down", "", " … ", "the", "the of", "up", "down"]
    matrix, table, _, _ = run_passes(texts, NgramConfig(stop_words=("the", "of")), 4, tmp_path)
    assert table["ngram"].to_pylist() == ["down", "up", "up down"]
    assert matrix.shape == (8, 3)
    assert matrix.toarray().sum(axis=1).tolist() == [3, 3, 0, 0, 0, 0, 1, 1]


def test_nothing_left_is_an_empty_vocabulary(tmp_path):
    matrix, table, _, _ = run_passes(["a", "b", "c", "d"], NgramConfig(min_df=2), 2, tmp_path)
    assert table.num_rows == 0
    assert matrix.shape == (4, 0)


def test_protected_ngrams_survive_min_df_and_max_df(tmp_path):
    texts = ["the end"] * 9 + ["the Profit Warning"]
    config = NgramConfig(
        min_df=5, max_df=0.95, protected=("THE", "profit  warning", "never seen"), ngram_max=2
    )
    _, table, _, _ = run_passes(texts, config, 3, tmp_path)
    assert table["ngram"].to_pylist() == ["end", "profit warning", "the", "the end"]
    assert table["df"].to_pylist() == [9, 1, 10, 9]


@QUICK
@given(seed=st.integers(0, 10**6), n_shards=st.integers(1, 5))
def test_hashed_matrix_is_the_exact_one_folded_by_the_hash(seed, n_shards):
    texts = make_texts(seed)
    everything = count_ngrams(texts, NgramConfig(ngram_max=3))
    exact = sp.csr_matrix(
        (everything.counts, everything.ids, everything.indptr), (len(texts), len(everything.names))
    ).toarray()
    wanted = np.zeros((len(texts), 256))
    for j, value in enumerate(everything.hashes.tolist()):
        wanted[:, value % 256] += exact[:, j]
    with tempfile.TemporaryDirectory() as folder:
        matrix, _, _, _ = run_passes(texts, NgramConfig(hash_bits=8), n_shards, folder)
    np.testing.assert_array_equal(matrix.toarray(), wanted)
    assert matrix.has_canonical_format


@pytest.mark.parametrize("n_shards", [1, 2, 7])
def test_recovered_names_are_the_ngrams_of_the_columns_by_frequency(tmp_path, n_shards):
    texts = [text.replace("rise", "\n") for text in make_texts(3)]
    config = NgramConfig(hash_bits=8)
    everything = count_ngrams(texts, config)
    df = dict(zip(everything.names.to_pylist(), everything.document_frequencies(), strict=True))
    wanted = defaultdict(list)
    for name, value in zip(everything.names.to_pylist(), everything.hashes.tolist(), strict=True):
        wanted[value % 256].append((name, int(df[name])))
    _, _, counted, n_blocks = run_passes(texts, config, n_shards, tmp_path)
    columns = np.array(sorted(wanted))[::2]
    found = recover_names(counted, n_blocks, columns, 8)
    assert sorted(found) == columns.tolist()
    for column in columns:
        assert found[column] == sorted(wanted[column], key=lambda pair: (-pair[1], pair[0]))
    assert max(map(len, found.values())) > 1


def test_protected_ngrams_survive_min_df_and_max_df_when_hashed(tmp_path):
    texts = ["the end"] * 9 + ["the Profit Warning"]
    config = NgramConfig(
        min_df=5, max_df=0.95, protected=("THE", "profit  warning", "never seen"), ngram_max=2,
        hash_bits=16,
    )  # fmt: skip
    matrix, _, counted, n_blocks = run_passes(texts, config, 3, tmp_path)
    design = weigh(
        matrix, weighting="counts", min_df=config.min_df, max_df=config.max_df, scaling="none",
        protected=protected_columns(config),
    )  # fmt: skip
    names = recover_names(counted, n_blocks, design.columns, 16)
    assert sorted(pairs[0][0] for pairs in names.values()) == [
        "end", "profit warning", "the", "the end",
    ]  # fmt: skip
    assert sorted(design.df.tolist()) == [1, 9, 9, 10]


@QUICK
@given(
    lengths=st.lists(st.integers(0, 60), min_size=1, max_size=40),
    rows=st.integers(1, 12),
    size=st.integers(1, 150),
)
def test_blocks_are_cut_by_rows_and_by_bytes(lengths, rows, size):
    texts = pa.array(["x" * length for length in lengths])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.news.design.vocabulary.BLOCK_BYTES", size)
        ends = _block_ends(texts, rows)
    starts = np.concatenate(([0], ends[:-1]))
    assert ends[-1] == len(lengths)
    for start, end in zip(starts, ends, strict=True):
        assert 1 <= end - start <= rows
        assert end - start == 1 or sum(lengths[start:end]) <= size


def test_shards_cover_the_blocks_once_in_order(tmp_path):
    texts = pa.array([f"text {i}" for i in range(95)])
    shards = write_texts(Store(tmp_path), texts, 10)
    assert [shard.first for shard in shards] == list(range(10))
    assert [shard.stop for shard in shards] == list(range(1, 11))
