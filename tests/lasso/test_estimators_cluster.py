"""The estimators on Ray: the same models, by one argument."""

import warnings

import numpy as np
from designs import make_problem

from actors.lasso.estimators import TenfoldLasso, TenfoldLassoCV, TenfoldMultiTaskLasso
from actors.lasso.solution import ConvergenceWarning


def data():
    problem = make_problem(1, 60, 30)
    return problem.X, problem.y, np.random.default_rng(1).uniform(0.2, 3.0, 60)


def test_cross_validation_on_the_cluster_gives_the_same_model(cluster):
    X, y, weights = data()
    u = np.append(np.inf, np.linspace(0.0, 2.0, 29))
    options = {"alphas": 6, "eps": 0.05, "cv": 3, "penalty_weights": u, "positive": True}
    here = TenfoldLassoCV(**options).fit(X, y, weights)
    there = TenfoldLassoCV(**options, cluster=cluster).fit(X, y, weights)
    np.testing.assert_allclose(there.mse_path_, here.mse_path_, rtol=1e-9)
    np.testing.assert_allclose(there.coef_, here.coef_, atol=1e-9)
    assert there.alpha_ == here.alpha_
    assert there.coef_[1] != 0
    assert not there.coef_[0]


def test_a_fit_on_the_open_ray_leaves_it_open(cluster):
    X, y, _ = data()
    model = TenfoldLasso(0.05, cluster="auto").fit(X, y)
    np.testing.assert_allclose(model.coef_, TenfoldLasso(0.05).fit(X, y).coef_, atol=1e-9)
    assert cluster.nodes


def test_answers_above_tol_on_the_cluster_warn_here(cluster):
    X, y, _ = data()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        TenfoldLasso(0.001, tol=1e-40, engine="sklearn", cluster=cluster).fit(X, y)
    assert [w.filename for w in caught if w.category is ConvergenceWarning] == [__file__]


def test_a_multi_task_fit_on_the_cluster_gives_the_same_model(cluster):
    X, y, weights = data()
    Y = np.column_stack([y, np.random.default_rng(0).standard_normal(60)])
    here = TenfoldMultiTaskLasso(0.05).fit(X, Y, weights)
    there = TenfoldMultiTaskLasso(0.05, cluster=cluster).fit(X, Y, weights)
    assert here.coef_.any()
    np.testing.assert_allclose(there.coef_, here.coef_, atol=1e-9)
