"""TenfoldLassoCV against scikit-learn's LassoCV: grid, errors, choice."""

import numpy as np
import pytest
from designs import make_problem
from joblib import parallel_config
from sklearn.linear_model import LassoCV
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    LeaveOneOut,
    PredefinedSplit,
    ShuffleSplit,
    TimeSeriesSplit,
)

from actors.lasso.estimators import TenfoldLasso, TenfoldLassoCV

N = 60


def data(seed=1):
    problem = make_problem(seed, N, 30)
    return problem.X, problem.y, np.random.default_rng(seed).uniform(0.2, 3.0, N)


def oracle(X, y, weights=None, *, dense=True, **parameters):
    model = LassoCV(tol=1e-12, max_iter=1_000_000, **parameters)
    return model.fit(X.toarray() if dense else X, y, sample_weight=weights)


def assert_same(ours, theirs):
    np.testing.assert_allclose(ours.alphas_, theirs.alphas_, rtol=1e-10)
    np.testing.assert_allclose(ours.mse_path_, theirs.mse_path_, rtol=1e-5)
    assert ours.alpha_ == pytest.approx(theirs.alpha_, rel=1e-10)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-5)
    assert ours.intercept_ == pytest.approx(theirs.intercept_, abs=1e-5)


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_validation_equals_scikit_learn(positive, fit_intercept, weighted):
    X, y, weights = data()
    weights = weights if weighted else None
    options = {"alphas": 12, "eps": 0.01, "cv": 4}
    options |= {"positive": positive, "fit_intercept": fit_intercept}
    ours = TenfoldLassoCV(tol=1e-12, **options).fit(X, y, weights)
    assert_same(ours, oracle(X, y, weights, **options))
    assert np.flatnonzero(ours.alphas_ == ours.alpha_)[0] > 0


def test_defaults_are_those_of_scikit_learn():
    X, y = data(2)[0][:, :5], data(2)[1]
    ours = TenfoldLassoCV(tol=1e-12).fit(X, y)
    assert ours.mse_path_.shape == (100, 5)
    assert_same(ours, oracle(X, y))


SPLITTERS = {
    "shuffled": KFold(3, shuffle=True, random_state=0),
    "overlapping": ShuffleSplit(3, random_state=0),
    "forward": TimeSeriesSplit(3),
    "predefined": PredefinedSplit(np.arange(N) % 4 - 1),
    "bootstrap": [
        (
            np.random.default_rng(k).integers(0, N, N),
            np.random.default_rng(-k + 9).integers(0, N, 9),
        )
        for k in range(3)
    ],
    "row numbers": [(np.arange(40), np.arange(40, N)), (np.arange(20, N), np.arange(20))],
    "masks": [(np.arange(N) < 40, np.arange(N) >= 40), (np.arange(N) > 9, np.arange(N) <= 9)],
}


@pytest.mark.parametrize("name", SPLITTERS)
@pytest.mark.parametrize("weighted", [False, True])
def test_any_splitter_equals_scikit_learn(name, weighted):
    X, y, weights = data(3)
    weights = weights if weighted else None
    options = {"alphas": 6, "eps": 0.02, "cv": SPLITTERS[name]}
    ours = TenfoldLassoCV(tol=1e-12, **options).fit(X, y, weights)
    assert_same(ours, oracle(X, y, weights, **options))


def test_leave_one_out_equals_scikit_learn():
    X, y = data(4)[0][:25], data(4)[1][:25]
    options = {"alphas": 3, "eps": 0.1, "cv": LeaveOneOut()}
    assert_same(TenfoldLassoCV(tol=1e-12, **options).fit(X, y), oracle(X, y, **options))


def test_groups_stay_together():
    X, y, _ = data(5)
    groups = np.random.default_rng(0).integers(0, 7, N)
    ours = TenfoldLassoCV(alphas=4, cv=GroupKFold(3), tol=1e-12).fit(X, y, groups=groups)
    splits = list(GroupKFold(3).split(X, y, groups))
    assert_same(ours, oracle(X, y, alphas=4, cv=splits))


def test_alphas_of_the_user_are_sorted():
    X, y, _ = data(6)
    alphas = [0.01, 0.3, 0.1]
    ours = TenfoldLassoCV(alphas=alphas, cv=3, tol=1e-12).fit(X, y)
    assert ours.alphas_.tolist() == [0.3, 0.1, 0.01]
    assert alphas == [0.01, 0.3, 0.1]
    assert_same(ours, oracle(X, y, alphas=alphas, cv=3))


def test_one_standard_error_rule_is_that_of_its_definition():
    X, y, _ = data(7)
    least = TenfoldLassoCV(alphas=15, eps=0.02, cv=5).fit(X, y)
    ruled = TenfoldLassoCV(alphas=15, eps=0.02, cv=5, rule="1se").fit(X, y)
    np.testing.assert_array_equal(least.mse_path_, ruled.mse_path_)
    means = [sum(row) / 5 for row in least.mse_path_]
    best = means.index(min(means))
    spread = sum((e - means[best]) ** 2 for e in least.mse_path_[best]) / 4
    within = [mean <= means[best] + (spread / 5) ** 0.5 for mean in means]
    assert ruled.alpha_ == least.alphas_[within.index(True)]
    assert ruled.alpha_ > least.alpha_
    at = np.flatnonzero(ruled.alphas_ == ruled.alpha_)[0]
    np.testing.assert_array_equal(ruled.coef_, ruled.path_.coefs[:, [at]].toarray().ravel())


def test_path_holds_the_model_of_every_alpha():
    X, y, _ = data(8)
    model = TenfoldLassoCV(alphas=5, eps=0.05, tol=1e-12).fit(X, y)
    for i, alpha in enumerate(model.alphas_[1:], start=1):
        alone = TenfoldLasso(alpha, tol=1e-12).fit(X, y)
        np.testing.assert_allclose(
            model.path_.coefs[:, [i]].toarray().ravel(), alone.coef_, atol=1e-6
        )
        assert model.path_.intercepts[i] == pytest.approx(alone.intercept_, abs=1e-6)
    assert (model.path_.gaps <= 1e-12).all()


def test_folds_solved_at_once_give_the_same_model():
    X, y, weights = data(9)
    one = TenfoldLassoCV(alphas=4, cv=3).fit(X, y, weights)
    with parallel_config(backend="threading"):  # processes take seconds to start
        two = TenfoldLassoCV(alphas=4, cv=3, n_jobs=2).fit(X, y, weights)
    np.testing.assert_array_equal(one.mse_path_, two.mse_path_)
    np.testing.assert_array_equal(one.coef_, two.coef_)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"alphas": 0}, "alphas: expected 1 or more, got 0"),
        ({"alphas": []}, "alphas: expected 1 or more in one dimension"),
        ({"alphas": [[0.1]]}, "one dimension"),
        ({"alphas": [0.1, -0.1]}, "alphas: expected finite numbers above 0"),
        ({"alphas": [0.1, 0.0]}, "above 0"),
        ({"alphas": [0.1, np.nan]}, "above 0"),
        ({"alphas": "auto"}, "alphas: expected an int or an array, got 'auto'"),
        ({"alphas": None}, "alphas: expected"),
        ({"eps": 1.0}, "eps: expected a finite number above 0 and below 1"),
        ({"rule": "best"}, "rule: expected one of min, 1se"),
        ({"cv": []}, "cv: expected 1 or more folds"),
        ({"cv": [(np.arange(5), [])]}, "fold 0: expected training and validation rows, got 5 and"),
        ({"cv": [(np.arange(5), [N])]}, "fold 0: expected a pair of row numbers below 60"),
        ({"cv": [(np.arange(5), np.ones(9, dtype=bool))]}, "or of masks of 60 rows"),
        ({"cv": [([0.5], [1.5])]}, "row numbers below 60"),
        ({"cv": N + 1}, "Cannot have number of splits"),
    ],
)
def test_bad_parameters_raise_and_say_what(parameters, message):
    X, y, _ = data()
    with pytest.raises(ValueError, match=message):
        TenfoldLassoCV(**parameters).fit(X, y)


def test_a_fold_without_weight_raises():
    X, y, _ = data()
    with pytest.raises(ValueError, match="cv: fold 0: sample weights are all zero"):
        TenfoldLassoCV(alphas=3, cv=3).fit(X, y, (np.arange(N) >= 20).astype(float))
