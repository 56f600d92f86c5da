"""Random problems of every awkward kind: an answer is certified, or says that it is not.

``TENFOLD_RANDOM_CASES=10000 pytest tests/lasso/test_random_problems.py`` draws more of them.
"""

import os
import warnings
from collections import Counter

import numpy as np
import pytest
import scipy.sparse as sp

from actors.lasso.certificate import certify
from actors.lasso.newton import NewtonEngine
from actors.lasso.problem import LassoProblem
from actors.lasso.solution import ConvergenceWarning

CASES = int(os.environ.get("TENFOLD_RANDOM_CASES", "400"))
TOL = 1e-6
KINDS = ("certified", "not reached", "rounding")


def draw(seed):
    """A problem and its alphas: shapes, scales, duplicates and weights by chance."""
    rng = np.random.default_rng(seed)
    n, p = int(rng.integers(1, 60)), int(rng.integers(1, 90))
    dense = rng.random() < 0.3
    X = rng.standard_normal((n, p)) if dense else rng.integers(0, 3, (n, p)) * 1.0
    if not dense:
        X *= rng.random((n, p)) < rng.choice([0.05, 0.2, 0.5])
    X *= 10.0 ** rng.uniform(-1, 1, p) if rng.random() < 0.5 else 1.0
    if rng.random() < 0.3:
        X *= 10.0 ** rng.choice([-8, -4, 4, 8])
    if rng.random() < 0.4:
        X[:, rng.integers(0, p, p // 3)] = X[:, rng.integers(0, p, p // 3)]
    if rng.random() < 0.3:
        X[:, rng.integers(0, p)] = rng.choice([0.0, 1.0, 7.5])
    if rng.random() < 0.3:
        X[rng.integers(0, n, n // 4)] = 0.0
    if rng.random() < 0.2:
        X[:, rng.integers(0, p)] += 1e3
    y = X @ (rng.standard_normal(p) * (rng.random(p) < 0.2))
    y += rng.choice([0.0, 0.1, 1.0]) * rng.standard_normal(n) * (np.abs(y).max() + 1e-3)
    y = y * 10.0 ** rng.choice([-8, 0, 0, 0, 8]) + rng.choice([0.0, 0.0, 3.0])
    if rng.random() < 0.05:
        y[:] = rng.choice([0.0, 0.1, 1e8])
    train = rng.random(n) < 0.7 if rng.random() < 0.3 else None
    weight = rng.random(n) * (rng.random(n) < 0.8) if rng.random() < 0.3 else None
    taking_part = np.ones(n) if weight is None else weight
    if not (taking_part * (1.0 if train is None else train)).any():
        train = weight = None
    u = None
    if rng.random() < 0.4:
        u = rng.choice([0.0, 0.3, 1.0, 2.5, np.inf], p, p=[0.08, 0.2, 0.5, 0.12, 0.1])
    problem = LassoProblem(
        sp.csc_matrix(X),
        y,
        train,
        sample_weight=weight,
        penalty_weights=u,
        positive=bool(rng.random() < 0.3),
        fit_intercept=bool(rng.random() < 0.7),
    )
    start = problem.alpha_max() or 1.0
    ratios = np.sort(rng.choice([0.9, 1.0, 2.0, 5.0, 30.0, 1e3, 1e6], 4, replace=False))
    return problem, start / ratios


def verdict(seed):
    """``certified``, ``not reached``, ``rounding``, or what is wrong."""
    problem, alphas = draw(seed)
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        solution = NewtonEngine().solve_path(problem, alphas, tol=TOL)
    warned = sum(issubclass(w.category, ConvergenceWarning) for w in raised)
    missed = int((solution.gaps > TOL).sum())
    if warned != missed:
        return f"{missed} answers miss tol, {warned} warnings"
    y = problem.y[problem.rows]
    longest = sp.linalg.norm(problem.X, axis=0).max()
    for i, alpha in enumerate(alphas):
        if not np.isfinite(solution.coefs[:, [i]].data).all():
            return f"alpha {i}: not finite"
        if solution.gaps[i] > TOL:
            continue
        proof = certify(problem, solution.coefs[:, [i]], solution.intercepts[i], alpha)
        if proof.relative_gap > 1.01 * TOL:
            # Correlations are known to within the rounding of the target.
            noise = 20 * np.finfo(float).eps * np.abs(y).max() * longest
            if noise > 1e-4 * alpha * problem.n:
                return "rounding"
            return f"alpha {i}: claims {solution.gaps[i]:.1e}, certified {proof.relative_gap:.1e}"
    return "not reached" if missed else "certified"


def test_every_answer_is_certified_or_says_that_it_is_not():
    verdicts = {seed: verdict(seed) for seed in range(CASES)}
    counts = Counter(verdicts.values())
    print(dict(counts))
    wrong = {s: v for s, v in verdicts.items() if v not in KINDS}
    assert not wrong
    assert counts["certified"] >= 0.97 * CASES


@pytest.mark.parametrize("seed", range(3))
def test_cases_differ(seed):
    first, second = draw(seed)[0], draw(seed + 1)[0]
    assert first.X.shape != second.X.shape or (first.X != second.X).nnz
