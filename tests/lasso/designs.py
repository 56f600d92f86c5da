"""Small problems and slow, plain answers to them; nothing here calls a solver of ours."""

import itertools

import numpy as np
import scipy.sparse as sp
from hypothesis import settings
from sklearn.linear_model import Lasso

from actors.lasso.problem import LassoProblem

QUICK = settings(deadline=None, max_examples=30)


def counts_like(seed, n, p, density=0.15):
    """Sparse columns of small positive values, some empty by chance."""
    rng = np.random.default_rng(seed)
    X = rng.integers(1, 4, (n, p)) * (rng.random((n, p)) < density) * rng.uniform(0.5, 1.0, (n, 1))
    return sp.csc_matrix(X)


def make_problem(seed=0, n=60, p=40, density=0.15, noise=0.5, train=None):
    """A response with a non-zero mean that some columns explain."""
    rng = np.random.default_rng(seed + 1000)
    X = counts_like(seed, n, p, density)
    w = rng.standard_normal(p) * (rng.random(p) < 0.2)
    y = X @ w + noise * rng.standard_normal(n) + 3.0
    return LassoProblem(X, y, train)


def path(problem, ratio=50.0, count=8):
    return np.geomspace(problem.alpha_max(), problem.alpha_max() / ratio, count)


def reference(problem, alpha, tol=1e-14):
    """Coefficients and intercept by scikit-learn's dense coordinate descent on the rows alone."""
    X = problem.X.toarray()[problem.rows]
    model = Lasso(alpha=alpha, tol=tol, max_iter=1_000_000).fit(X, problem.y[problem.rows])
    return model.coef_, float(model.intercept_)


def objective(problem, coef, intercept, alpha):
    """The primal of the definition, dense, row by row."""
    X = problem.X.toarray()[problem.rows]
    residual = problem.y[problem.rows] - X @ np.asarray(coef).ravel() - intercept
    return np.mean(residual**2) / 2 + alpha * np.abs(coef).sum()


def best_by_enumeration(gram, target, bound):
    """Minimise v'Gv/2 - g'v + bound |v|_1 over all 3^k sign patterns; the best consistent one."""
    best, best_value = np.zeros(len(target)), 0.0
    for signs in itertools.product((-1, 0, 1), repeat=len(target)):
        s = np.array(signs, dtype=float)
        on = np.flatnonzero(s)
        if not on.size:
            continue
        v = np.zeros(len(target))
        v[on] = np.linalg.lstsq(gram[np.ix_(on, on)], target[on] - bound * s[on], rcond=None)[0]
        value = v @ gram @ v / 2 - target @ v + bound * np.abs(v).sum()
        if (v[on] * s[on] > 0).all() and value < best_value:
            best, best_value = v, value
    return best, best_value
