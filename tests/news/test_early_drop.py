"""N-grams dropped before the matrix: sums, twins, and answers against those on every n-gram."""

import re

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.lasso.certificate import certify
from cluster.meter import Meter
from cluster.storage import Store
from pipelines.news.config import DesignConfig, NewsConfig, RunConfig
from pipelines.news.design import early_drop
from pipelines.news.design.early_drop import Block, CountedRows, sum_block, with_twins
from pipelines.news.design.matrix import make_weighting, weigh
from pipelines.news.design.ngrams import NgramConfig
from pipelines.news.design.twins import find_twins
from pipelines.news.fitting.drop_proof import solve_and_prove
from pipelines.news.fitting.folds import FoldConfig
from pipelines.news.fitting.path import PathConfig, solution_at
from pipelines.news.fitting.solve import on_fold
from pipelines.news.market.targets import TargetConfig
from pipelines.news.prepare import load, prepare
from pipelines.news.reading.ingest import InputConfig
from pipelines.news.synthetic import SyntheticConfig, write_market

QUICK = settings(deadline=None, max_examples=40)
MARKET = SyntheticConfig(
    documents=500, tickers=8, sessions=50, words=3, planted_per_text=2.0, noise=0.5
)


def counted(folder, seed, n=40, p=25, scaling="none"):
    """Random counts in three blocks on disk, and the same in one piece."""
    rng = np.random.default_rng(seed)
    dense = rng.integers(1, 4, (n, p)) * (rng.random((n, p)) < rng.uniform(0.0, 0.4, p))
    store, blocks = Store(folder), []
    for start, stop in ((0, 11), (11, 12), (12, n)):
        part = sp.csr_matrix(dense[start:stop])
        blocks.append(Block(f"rows-{start}.npz", start))
        store.write_arrays(
            blocks[-1].name, indptr=part.indptr, indices=part.indices, counts=part.data
        )
    df = (dense > 0).sum(axis=0)
    how = make_weighting(df, n, weighting="tfidf", min_df=2, max_df=1.0)
    return CountedRows(store, blocks, n, p, how, scaling, "key"), sp.csr_matrix(dense.astype(float))


@QUICK
@given(seed=st.integers(0, 10**6))
def test_block_sums_add_up_to_products_with_the_whole_matrix(tmp_path_factory, seed):
    rows, counts = counted(tmp_path_factory.mktemp("rows"), seed)
    X = weigh(counts, weighting="tfidf", min_df=2, max_df=1.0, scaling="none").X.toarray()
    rng = np.random.default_rng(seed)
    against = rng.standard_normal((40, 3))
    codes = rng.integers(0, 2**63, (40, 2), dtype=np.uint64)
    total = np.zeros((X.shape[1], 3))
    patterns = np.zeros((X.shape[1], 2), dtype=np.uint64)
    squares, largest = np.zeros(X.shape[1]), np.zeros(X.shape[1])
    for block in rows.blocks:
        (name,) = sum_block(block, rows.store, rows=rows, against=against, codes=codes)["files"]
        part = rows.store.read_arrays(name)
        total[part["ngrams"]] += part["products"]
        squares[part["ngrams"]] += part["squares"]
        patterns[part["ngrams"]] += part["patterns"]
        largest[part["ngrams"]] = np.maximum(largest[part["ngrams"]], part["largest"])
    np.testing.assert_allclose(total, X.T @ against, atol=1e-12)
    np.testing.assert_allclose(squares, (X**2).sum(axis=0), rtol=1e-12)
    np.testing.assert_array_equal(largest, X.max(axis=0))
    wanted = [[codes[X[:, j] > 0, m].sum(dtype=np.uint64) for m in (0, 1)] for j in range(len(X.T))]
    np.testing.assert_array_equal(patterns, np.array(wanted, dtype=np.uint64).reshape(-1, 2))


@pytest.mark.parametrize("scaling", ["none", "std", "max"])
def test_kept_columns_are_those_of_the_whole_matrix_bit_by_bit(tmp_path, scaling):
    rows, counts = counted(tmp_path, 3, scaling=scaling)
    whole = weigh(counts, weighting="tfidf", min_df=2, max_df=1.0, scaling=scaling)
    kept = np.random.default_rng(0).random(whole.X.shape[1]) < 0.5
    part = rows.design(kept)
    np.testing.assert_array_equal(part.X.toarray(), whole.X.toarray()[:, kept])
    for name in ("columns", "idf", "scale", "df"):
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[kept])
    assert part.X.has_sorted_indices


@QUICK
@given(seed=st.integers(0, 10**6))
def test_aliases_of_kept_columns_do_not_depend_on_what_was_dropped(seed):
    rng = np.random.default_rng(seed)
    base = (rng.random((14, 5)) < 0.3) * rng.integers(1, 4, (14, 5))
    X = sp.csc_matrix(base[:, rng.integers(0, 5, 16)] * rng.choice([1.0, 0.5, 2.0], 16))
    defined = np.column_stack((np.ones(14, dtype=bool), rng.random(14) < 0.8))
    code = rng.integers(1, 2**63, 14, dtype=np.uint64)[:, None] * defined
    present = X.toarray() != 0
    patterns = np.array([[code[on, m].sum(dtype=np.uint64) for m in (0, 1)] for on in present.T])
    kept = with_twins(rng.random(16) < 0.3, patterns.astype(np.uint64))
    for rows in defined.T:
        whole = find_twins(sp.csc_matrix(X[np.flatnonzero(rows)]))
        part = find_twins(sp.csc_matrix(X[np.flatnonzero(rows)][:, kept]))
        names = np.flatnonzero(kept)
        of_part = {names[j]: set(names[a]) for j, a in part.aliases_by_column.items()}
        of_whole = {j: set(a) for j, a in whole.aliases_by_column.items()}
        if rows.all():
            assert of_part == {j: a for j, a in of_whole.items() if kept[j]}
        for owner, aliases in of_part.items():
            assert aliases <= of_whole[owner]


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    folder = tmp_path_factory.mktemp("market")
    write_market(MARKET, folder)
    return folder


def solve(cluster, market, folder, drop, **parts):
    files = {name: str(market / f"{name}.parquet") for name in ("news", "prices")}
    config = NewsConfig(
        input=InputConfig(**files),
        target=TargetConfig(targets=("excess_return", "volume_change")),
        folds=FoldConfig(folds=2),
        path=PathConfig(alphas=6, alpha_ratio=10.0, tol=1e-9),
        ngrams=parts.get("ngrams", NgramConfig(ngram_max=2)),
        design=DesignConfig(
            early_drop="on" if drop else "off", scale=parts.get("scale", "none"), shard_rows=200
        ),
        run=RunConfig(workers=1),
    )
    run = Store(folder)
    with Meter() as meter:
        problem = prepare(config, load(config, meter), cluster, run, meter)
    return solve_and_prove(problem, config, cluster, run)


def answers(problem, grids, results):
    """Coefficients of each target, fold and alpha by vocabulary row, per unscaled n-gram."""
    columns = problem.columns
    found = {}
    for target, grid in enumerate(grids):
        for fold in range(problem.n_folds + 1):
            for k in range(grid.size):
                support, values, _, _ = solution_at(results, target, fold, k, 10)
                ids = columns.design.columns[columns.solved[support]]
                found[target, fold, k] = dict(zip(ids.tolist(), values, strict=True))
    return found


@pytest.mark.parametrize(
    ("share", "returns", "parts"),
    [
        (1.4, True, {}),
        (0.5, False, {"scale": "max", "ngrams": NgramConfig(ngram_max=2, hash_bits=14)}),
    ],
)
def test_answers_are_those_on_every_ngram(
    cluster, market, tmp_path, monkeypatch, capfd, share, returns, parts
):
    monkeypatch.setattr(early_drop, "SHARE", share)
    whole, whole_grids, whole_results = solve(cluster, market, tmp_path / "all", False, **parts)
    small, grids, results = solve(cluster, market, tmp_path / "few", True, **parts)
    assert small.X.shape[1] < whole.X.shape[1]
    said = capfd.readouterr().err
    assert "proved: none" in said
    # What comes back is solved where it may enter alone; other fits are carried over.
    assert bool(re.search("in [1-5] of 6 fits: solving with them", said)) == returns
    assert small.columns.known.columns.tolist() == whole.columns.known.columns.tolist()
    for ours, theirs in zip(grids, whole_grids, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    expected = answers(whole, whole_grids, whole_results)
    for case, coefs in answers(small, grids, results).items():
        assert set(coefs) == set(expected[case])
        largest = max(map(abs, expected[case].values()), default=0.0)
        assert all(abs(coefs[j] - expected[case][j]) <= 1e-6 * largest for j in coefs)
    certify_over_every_column(small, grids, results, whole)


def certify_over_every_column(small, grids, results, whole):
    """The gap of the smallest alpha's answers, measured with the dropped columns too."""
    place = {int(whole.columns.design.columns[j]): i for i, j in enumerate(whole.columns.solved)}
    for target, grid in enumerate(grids):
        for fold in range(small.n_folds + 1):
            support, values, intercept, gap = solution_at(results, target, fold, grid.size - 1, 10)
            ids = small.columns.design.columns[small.columns.solved[support]]
            coef = np.zeros(whole.X.shape[1])
            coef[[place[int(j)] for j in ids]] = values
            proof = certify(on_fold(whole, target, fold), coef, intercept, grid[-1])
            assert proof.relative_gap <= gap + 1e-12
