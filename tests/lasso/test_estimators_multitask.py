"""TenfoldMultiTaskLasso against scikit-learn: its own checks and its answers."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from designs import make_problem
from sklearn.linear_model import MultiTaskLasso
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import parametrize_with_checks

from actors.lasso.estimators import TenfoldMultiTaskLasso
from actors.lasso.multitask_certificate import certify_multitask
from actors.lasso.multitask_problem import MultiTaskProblem

ALPHA = 0.1


def data(seed=1):
    problem = make_problem(seed, 60, 40)
    rng = np.random.default_rng(seed)
    other = problem.X @ (rng.standard_normal(40) * (rng.random(40) < 0.2))
    noise = rng.standard_normal(60)
    Y = np.column_stack([problem.y, other + 0.3 * noise - 2.0, 5.0 * noise])
    return problem.X, Y, rng.integers(0, 4, 60).astype(float)


def oracle(X, Y, **parameters):
    return MultiTaskLasso(tol=1e-13, max_iter=1_000_000, **parameters).fit(X.toarray(), Y)


@parametrize_with_checks([TenfoldMultiTaskLasso()])
def test_multi_task_estimator_keeps_the_rules_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("form", [sp.csc_matrix.toarray, sp.csr_matrix, sp.csc_matrix])
def test_multi_task_equals_scikit_learn(fit_intercept, form):
    X, Y, _ = data()
    options = {"alpha": ALPHA, "fit_intercept": fit_intercept}
    ours = TenfoldMultiTaskLasso(tol=1e-12, **options).fit(form(X), Y)
    theirs = oracle(X, Y, **options)
    assert 3 < np.count_nonzero(theirs.coef_.any(axis=0)) < 40
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-5)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, atol=1e-5)
    np.testing.assert_allclose(ours.predict(form(X)), theirs.predict(X.toarray()), atol=1e-4)
    np.testing.assert_array_equal(ours.sparse_coef_.toarray(), ours.coef_)
    np.testing.assert_array_equal(ours.path_.coef(0).toarray().T, ours.coef_)


def test_multi_task_sample_weights_equal_repeated_rows():
    X, Y, s = data(2)
    ours = TenfoldMultiTaskLasso(ALPHA, tol=1e-12).fit(X, Y, s)
    times = s.astype(int)
    theirs = oracle(X[np.repeat(np.arange(60), times)], Y.repeat(times, axis=0), alpha=ALPHA)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-5)


def test_multi_task_penalty_weights_equal_scaled_columns():
    X, Y, _ = data(3)
    u = np.where(np.arange(40) % 9 == 0, np.inf, np.linspace(0.5, 2.0, 40))
    ours = TenfoldMultiTaskLasso(ALPHA, penalty_weights=u, tol=1e-12).fit(X, Y)
    theirs = oracle(sp.csc_matrix(X @ sp.diags(1 / u)), Y, alpha=ALPHA)
    np.testing.assert_allclose(ours.coef_, theirs.coef_ / u, atol=1e-5)


def test_multi_task_dual_gap_is_that_of_the_certificate():
    X, Y, s = data(4)
    model = TenfoldMultiTaskLasso(ALPHA, tol=1e-2).fit(X, Y, s)
    problem = MultiTaskProblem(X, Y, sample_weight=s)
    proof = certify_multitask(problem, model.coef_.T, model.intercept_, ALPHA)
    assert proof.gap > 1e-12
    assert model.dual_gap_ == pytest.approx(proof.gap, rel=1e-6)
    assert model.path_.gaps[0] <= 1e-2


def test_multi_task_warm_start_needs_no_step_to_stay():
    X, Y, _ = data(5)
    model = TenfoldMultiTaskLasso(ALPHA, warm_start=True).fit(X, Y)
    first = model.coef_
    assert model.n_iter_ > 0
    assert model.fit(X, Y).n_iter_ == 0
    np.testing.assert_allclose(model.coef_, first, atol=1e-12)
    assert model.fit(X, Y[:, :2]).coef_.shape == (2, 40)


def test_multi_task_grid_search_chooses_as_with_scikit_learn():
    X, Y, _ = data(6)
    grid = {"alpha": np.geomspace(1.0, 0.01, 5)}
    ours = GridSearchCV(TenfoldMultiTaskLasso(tol=1e-10), grid, cv=3).fit(X, Y)
    theirs = GridSearchCV(MultiTaskLasso(tol=1e-10, max_iter=100_000), grid, cv=3)
    assert ours.best_params_ == theirs.fit(X.toarray(), Y).best_params_


def test_multi_task_takes_data_frames():
    X, Y, _ = data(7)
    frame = pd.DataFrame(X.toarray(), columns=[f"w{j}" for j in range(40)])
    model = TenfoldMultiTaskLasso(ALPHA).fit(frame, pd.DataFrame(Y))
    np.testing.assert_allclose(
        model.coef_, TenfoldMultiTaskLasso(ALPHA).fit(X, Y).coef_, atol=1e-10
    )
    assert model.feature_names_in_[0] == "w0"


@pytest.mark.parametrize(
    ("parameters", "spoil", "message"),
    [
        ({"alpha": 0.0}, {}, "alpha: expected a finite number above 0"),
        ({"tol": -1.0}, {}, "tol: expected a finite number above 0"),
        ({"penalty_weights": [1.0]}, {}, r"penalty_weights: expected shape \(40,\)"),
        ({}, {"y": np.ones(60)}, "TenfoldLasso takes one target"),
        ({}, {"y": np.full((60, 2), np.nan)}, "NaN"),
        ({}, {"y": np.ones((59, 2))}, "inconsistent numbers of samples"),
        ({}, {"sample_weight": -np.ones(60)}, "[Nn]egative"),
    ],
)
def test_multi_task_bad_input_raises_and_says_what(parameters, spoil, message):
    X, Y, _ = data()
    with pytest.raises(ValueError, match=message):
        TenfoldMultiTaskLasso(**parameters).fit(**{"X": X, "y": Y, **spoil})
