"""Paths on blocks of columns against the newton engine and the certificate on the whole matrix."""

from itertools import pairwise

import numpy as np
import pytest
import ray
import scipy.sparse as sp
from designs import counts_like, make_problem, path
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.lasso import column_shards
from actors.lasso.certificate import certify
from actors.lasso.column_blocks import (
    ColumnBlock,
    LocalBlocks,
    block_files,
    memory_needed,
    write_blocks,
)
from actors.lasso.column_shards import Target, alpha_maxima, solve_columns
from actors.lasso.newton import NewtonEngine
from actors.lasso.problem import LassoProblem
from actors.lasso.sharded.actor import column_actors, solve_column_sharded
from actors.lasso.solution import ConvergenceWarning
from cluster.storage import Store

QUICK = settings(deadline=None, max_examples=12)


def cut(store, X, n_blocks):
    edges = np.linspace(0, X.shape[1], n_blocks + 1).astype(int)
    write_blocks(store, (X[:, a:b] for a, b in pairwise(edges)))


def targets_of(seed, n=60, p=50):
    rng = np.random.default_rng(seed)
    X = counts_like(seed, n, p)
    w = rng.standard_normal((p, 2)) * (rng.random((p, 2)) < 0.2)
    Y = X @ w + 0.5 * rng.standard_normal((n, 2)) + 2.0
    folds = [None, rng.random(n) < 0.6]
    return X, [Target(np.ascontiguousarray(y), fold) for y in Y.T for fold in folds]


def assert_same_as_whole(X, targets, alphas, found, tol=1e-10):
    for target, grid, ours in zip(targets, alphas, found, strict=True):
        problem = LassoProblem(X, target.y, target.train)
        whole = NewtonEngine().solve_path(problem, grid, tol=tol)
        largest = np.abs(whole.coefs.data).max(initial=0.0)
        assert abs(ours.coefs - whole.coefs).max() <= 1e-4 * largest
        for k, alpha in enumerate(grid):
            proof = certify(problem, ours.coefs[:, [k]], ours.intercepts[k], alpha)
            assert proof.relative_gap <= tol * 1.01
            assert ours.gaps[k] == pytest.approx(proof.relative_gap, abs=1e-13)


@QUICK
@given(seed=st.integers(0, 10**6), n_blocks=st.integers(1, 6), limit=st.sampled_from([1, 5, 200]))
def test_answers_are_certified_and_equal_the_whole_matrixs(tmp_path_factory, seed, n_blocks, limit):
    store = Store(tmp_path_factory.mktemp("blocks"))
    X, targets = targets_of(seed)
    cut(store, X, n_blocks)
    blocks = LocalBlocks(store)
    assert blocks.shape == X.shape
    highest = alpha_maxima(blocks, targets)
    wanted = [LassoProblem(X, t.y, t.train).alpha_max() for t in targets]
    np.testing.assert_allclose(highest, wanted, rtol=1e-12)
    alphas = [np.geomspace(top, top / 20, 4) for top in highest]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(column_shards, "LIMIT", limit)
        patch.setattr(column_shards, "MIN_GATHERED", 5)
        found = solve_columns(blocks, targets, alphas, tol=1e-10)
    assert_same_as_whole(X, targets, alphas, found)


def test_screen_sends_the_strongest_columns_that_are_not_held(tmp_path):
    X = counts_like(1, 40, 30, 0.3)
    cut(Store(tmp_path), X, 2)
    _, files = block_files(Store(tmp_path))
    residuals = np.random.default_rng(0).standard_normal((40, 11))
    strength = np.abs(X.T @ residuals)
    bounds = np.median(strength, axis=0)
    held = np.array([2, 20])
    found = ColumnBlock(Store(tmp_path), files).screen(residuals, bounds, 3, held)
    np.testing.assert_allclose(found.largest, strength.max(axis=0))
    wanted = set()
    for block in (range(15), range(15, 30)):
        for own, bound in zip(strength.T, bounds, strict=True):
            order = sorted(
                (j for j in block if own[j] > bound and j not in held), key=own.__getitem__
            )
            wanted |= set(order[-3:])
    assert found.columns.tolist() == sorted(wanted)
    np.testing.assert_array_equal(found.X.toarray(), X[:, found.columns].toarray())


def test_an_answer_that_misses_the_tolerance_is_returned_with_a_warning(tmp_path, monkeypatch):
    problem = make_problem(3)
    cut(Store(tmp_path), problem.X, 3)
    monkeypatch.setattr(column_shards, "MAX_ROUNDS", 1)
    monkeypatch.setattr(column_shards, "LIMIT", 1)
    alphas = [path(problem)[1:]]
    with pytest.warns(ConvergenceWarning, match="above tol"):
        (found,) = solve_columns(LocalBlocks(Store(tmp_path)), [Target(problem.y)], alphas)
    k = int(np.argmax(found.gaps))
    proof = certify(problem, found.coefs[:, [k]], found.intercepts[k], alphas[0][k])
    assert found.gaps[k] == pytest.approx(proof.relative_gap, rel=1e-6)


def test_bad_shapes_are_refused(tmp_path):
    problem = make_problem(1)
    cut(Store(tmp_path), problem.X, 2)
    with pytest.raises(ValueError, match="one grid a target"):
        solve_columns(LocalBlocks(Store(tmp_path)), [Target(problem.y)], [])
    with pytest.raises(ValueError, match="one number of rows"):
        write_blocks(Store(tmp_path), [sp.csc_matrix((3, 1)), sp.csc_matrix((4, 1))])


def test_actors_give_the_same_answer_also_when_one_is_killed(cluster, tmp_path):
    X, targets = targets_of(7)
    store = Store(tmp_path)
    cut(store, X, 5)
    alphas = [path(LassoProblem(X, t.y, t.train), 20.0, 4) for t in targets]
    with column_actors(cluster, store, 2) as blocks:
        found = solve_columns(blocks, targets, alphas, tol=1e-10)
        assert_same_as_whole(X, targets, alphas, found)
        ray.kill(blocks.actors[1], no_restart=False)
        again = solve_columns(blocks, targets, alphas, tol=1e-10)
    for one, other in zip(found, again, strict=True):
        assert (one.coefs != other.coefs).nnz == 0
        np.testing.assert_array_equal(one.gaps, other.gaps)


def test_columns_beyond_an_actors_budget_are_refused_and_spread_over_more(cluster, tmp_path):
    X, targets = targets_of(5)
    store = Store(tmp_path)
    cut(store, X, 10)
    _, files = block_files(store)
    budget = memory_needed(store, files) - 1
    alphas = [path(LassoProblem(X, t.y, t.train), 3.0, 2) for t in targets]
    with pytest.raises(ValueError, match="use more actors"):
        solve_column_sharded(cluster, store, targets, alphas, actors=1, budget_bytes=budget)
    found = solve_column_sharded(cluster, store, targets, alphas, actors=2, budget_bytes=budget)
    assert_same_as_whole(X, targets, alphas, found, tol=1e-6)
