"""Units on several targets: their errors, stretches and rows, against dense arithmetic."""

import numpy as np
import pytest
import scipy.sparse as sp
from designs import counts_like
from sklearn.linear_model import MultiTaskLasso

from actors.lasso.multitask_problem import MultiTaskProblem
from actors.lasso.multitask_unit import solve_multitask_unit, target_result
from actors.lasso.unit import TRAIN, UNUSED, VALIDATION, coefficients


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = counts_like(0, 90, 40)
    W = rng.standard_normal((40, 3)) * (rng.random((40, 1)) < 0.3)
    Y = X @ W + rng.standard_normal((90, 3)) + [1.0, -2.0, 0.0]
    Y[5, 0] = Y[70, 2] = np.nan
    roles = np.full(90, TRAIN, dtype=np.int8)
    roles[60:80], roles[80:] = VALIDATION, UNUSED
    train = (roles == TRAIN) & np.isfinite(Y).all(axis=1)
    alphas = MultiTaskProblem(X, Y, train).alpha_max() / np.array([2.0, 4.0, 8.0, 16.0])
    return X, Y, roles, alphas


def test_multitask_unit_has_the_errors_of_sklearn_on_rows_with_every_target(data):
    X, Y, roles, alphas = data
    result = solve_multitask_unit(X, Y, roles, alphas, tol=1e-12)
    whole = np.isfinite(Y).all(axis=1)
    train, validation = (np.flatnonzero((roles == r) & whole) for r in (TRAIN, VALIDATION))
    assert result["n_train"] == train.size == 59
    assert result["n_validation"] == validation.size == 19
    for at, alpha in enumerate(alphas):
        model = MultiTaskLasso(alpha=alpha, tol=1e-13, max_iter=100_000)
        model.fit(X[train].toarray(), Y[train])
        for name, rows in (("train_mse", train), ("validation_mse", validation)):
            expected = np.mean((Y[rows] - model.predict(X[rows].toarray())) ** 2, axis=0)
            np.testing.assert_allclose(result[name][at], expected, rtol=1e-5)
        assert result["nonzeros"][at] == np.count_nonzero(model.coef_.any(axis=0))


def test_multitask_unit_splits_into_results_of_single_targets(data):
    X, Y, roles, alphas = data
    result = solve_multitask_unit(X, Y, roles, alphas, tol=1e-10)
    parts = [target_result(result, target) for target in range(3)]
    for target, part in enumerate(parts):
        coefs = coefficients(part, 40)
        assert coefs.shape == (40, 4)
        held_out = np.flatnonzero((roles == VALIDATION) & np.isfinite(Y).all(axis=1))
        predicted = X[held_out] @ coefs.toarray() + part["intercepts"]
        residual = Y[held_out][:, [target]] - predicted
        np.testing.assert_allclose((residual**2).mean(axis=0), part["validation_mse"])
    np.testing.assert_array_equal(parts[0]["indices"], parts[2]["indices"])
    assert not np.array_equal(parts[0]["data"], parts[2]["data"])


def test_multitask_unit_goes_on_from_the_stretch_before(data):
    X, Y, roles, alphas = data
    whole = solve_multitask_unit(X, Y, roles, alphas, tol=1e-12)
    first = solve_multitask_unit(X, Y, roles, alphas[:2], tol=1e-12)
    rest = solve_multitask_unit(X, Y, roles, alphas[2:], tol=1e-12, previous=first)
    np.testing.assert_allclose(rest["validation_mse"], whole["validation_mse"][2:], rtol=1e-6)
    again = solve_multitask_unit(X, Y, roles, alphas[1:2], tol=1e-9, previous=first)
    assert again["n_iter"][0] == 0


def test_multitask_unit_has_no_validation_error_when_no_row_is_held_out(data):
    X, Y, _, alphas = data
    everyone = np.full(90, TRAIN, dtype=np.int8)
    result = solve_multitask_unit(sp.csc_matrix(X), Y, everyone, alphas[:1], tol=1e-8)
    assert np.isnan(result["validation_mse"]).all()
    assert np.isfinite(result["train_mse"]).all()
