"""TenfoldLasso against scikit-learn: its own checks, its answers, its company."""

import doctest
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from designs import counts_like, make_problem
from sklearn.base import clone
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import Lasso
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from actors.lasso import estimators
from actors.lasso.certificate import certify
from actors.lasso.estimators import TenfoldLasso, TenfoldLassoCV, TenfoldMultiTaskLasso
from actors.lasso.problem import LassoProblem
from actors.lasso.solution import ConvergenceWarning

ALPHA = 0.05
ENGINES = ("newton", "celer", "sklearn")


def data(seed=1, n=60, p=40):
    problem = make_problem(seed, n, p)
    weights = np.random.default_rng(seed).integers(0, 4, n).astype(float)
    return problem.X, problem.y, weights


def oracle(X, y, sample_weight=None, **parameters):
    model = Lasso(tol=1e-14, max_iter=1_000_000, **parameters)
    return model.fit(np.asarray(X.toarray()), y, sample_weight=sample_weight)


@parametrize_with_checks([TenfoldLasso(), TenfoldLassoCV(alphas=5, eps=0.1, cv=3)])
def test_estimator_keeps_the_rules_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dense", [False, True])
def test_lasso_equals_scikit_learn(positive, fit_intercept, weighted, dense):
    X, y, weights = data()
    weights = weights if weighted else None
    options = {"alpha": ALPHA, "positive": positive, "fit_intercept": fit_intercept}
    ours = TenfoldLasso(tol=1e-12, **options).fit(X.toarray() if dense else X, y, weights)
    theirs = oracle(X, y, weights, **options)
    assert np.count_nonzero(theirs.coef_) > 3
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-6)
    assert ours.intercept_ == pytest.approx(theirs.intercept_, abs=1e-6)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X.toarray()), atol=1e-5)
    np.testing.assert_array_equal(ours.sparse_coef_.toarray().ravel(), ours.coef_)


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_gives_the_same_model(engine):
    X, y, _ = data(2)
    model = TenfoldLasso(ALPHA, tol=1e-12, engine=engine).fit(X, y)
    np.testing.assert_allclose(model.coef_, oracle(X, y, alpha=ALPHA).coef_, atol=1e-6)


def test_penalty_weights_equal_scaled_columns():
    X, y, _ = data(3)
    u = np.random.default_rng(0).uniform(0.3, 3.0, 40)
    u[[4, 9]] = np.inf
    model = TenfoldLasso(ALPHA, penalty_weights=u, tol=1e-12).fit(X, y)
    theirs = oracle(sp.csc_matrix(X @ sp.diags(1 / u)), y, alpha=ALPHA)
    np.testing.assert_allclose(model.coef_, theirs.coef_ / u, atol=1e-6)
    assert not model.coef_[[4, 9]].any()


def test_unpenalised_columns_equal_a_regression_of_residuals():
    X, y, _ = data(4)
    u = np.ones(40)
    u[0] = 0.0
    model = TenfoldLasso(ALPHA, penalty_weights=u, tol=1e-12).fit(X, y)
    # Frisch, Waugh, Lovell: take column 0 out of everything else first.
    dense = X.toarray() - X.toarray().mean(axis=0)
    out = dense[:, :1] / np.linalg.norm(dense[:, 0])
    rest = dense - out @ (out.T @ dense)
    theirs = oracle(sp.csc_matrix(rest[:, 1:]), y - out[:, 0] * (out[:, 0] @ y), alpha=ALPHA)
    np.testing.assert_allclose(model.coef_[1:], theirs.coef_, atol=1e-6)
    assert model.coef_[0] != 0


@pytest.mark.parametrize("weighted", [False, True])
def test_dual_gap_is_that_of_the_certificate(weighted):
    X, y, weights = data(5)
    weights = weights if weighted else None
    model = TenfoldLasso(ALPHA, tol=1e-2).fit(X, y, weights)
    proof = certify(LassoProblem(X, y, None, weights), model.coef_, model.intercept_, ALPHA)
    assert proof.gap > 1e-12
    assert model.dual_gap_ == pytest.approx(proof.gap, rel=1e-6)
    assert model.path_.gaps[0] == pytest.approx(proof.relative_gap, rel=1e-6)
    assert model.path_.gaps[0] <= 1e-2


def test_constant_target_gives_an_empty_model():
    X, _, _ = data()
    for model in (TenfoldLasso(), TenfoldLassoCV(alphas=5)):
        model.fit(X, np.full(60, 7.0))
        assert not model.coef_.any()
        assert model.intercept_ == pytest.approx(7.0)
        assert model.dual_gap_ == 0


def as_duplicates(X):
    """The same matrix with every entry in two halves, rows in falling order, 64-bit indices."""
    X = X.tocsc()
    indices = np.concatenate([
        np.repeat(X.indices[a:b][::-1], 2) for a, b in zip(X.indptr, X.indptr[1:], strict=False)
    ])  # fmt: skip
    values = np.concatenate([
        np.repeat(X.data[a:b][::-1] / 2, 2) for a, b in zip(X.indptr, X.indptr[1:], strict=False)
    ])  # fmt: skip
    parts = (values, indices.astype(np.int64), 2 * X.indptr.astype(np.int64))
    return sp.csc_matrix(parts, shape=X.shape, copy=False)


def frozen(X):
    for part in (X.data, X.indices, X.indptr) if sp.issparse(X) else (X,):
        part.flags.writeable = False
    return X


FORMS = {
    "csc array": sp.csc_array,
    "csr": sp.csr_matrix,
    "coo": sp.coo_matrix,
    "dok": sp.dok_array,
    "int64 indices": lambda X: sp.csc_matrix(
        (X.data, X.indices.astype(np.int64), X.indptr.astype(np.int64)), shape=X.shape
    ),
    "duplicate unsorted entries": as_duplicates,
    "stored zeros": lambda X: sp.csc_matrix(
        (np.append(X.data, 0.0), np.append(X.indices, 3), np.append(X.indptr[:-1], X.nnz + 1)),
        shape=X.shape,
    ),
    "read-only csc": lambda X: frozen(X.copy()),
    "read-only duplicates": lambda X: frozen(as_duplicates(X)),
    "dense": lambda X: X.toarray(),
    "read-only dense": lambda X: frozen(X.toarray()),
    "Fortran": lambda X: np.asfortranarray(X.toarray()),
    "strided": lambda X: np.repeat(X.toarray(), 2, axis=1)[:, ::2],
    "lists": lambda X: X.toarray().tolist(),
    "objects": lambda X: X.toarray().astype(object),
    "integers": lambda X: X.toarray().astype(np.int8),
    "float32": lambda X: X.astype(np.float32),
    "data frame": lambda X: pd.DataFrame(X.toarray(), columns=[f"w{j}" for j in range(40)]),
    "sparse data frame": lambda X: pd.DataFrame.sparse.from_spmatrix(X),
}


def whole_numbers():
    """A problem that every type holds exactly; its last column is not empty."""
    X = counts_like(6, 60, 40)
    X.data = np.ceil(X.data)
    X = sp.csc_matrix(X)
    assert X[:, -1].nnz
    return X, np.round(X[:, :5].sum(axis=1).A1 + np.arange(60) % 7)


@pytest.mark.parametrize("form", FORMS)
def test_the_form_of_the_matrix_does_not_change_the_answer(form):
    X, y = whole_numbers()
    given = FORMS[form](X)
    expected = TenfoldLasso(ALPHA).fit(X, y)
    model = TenfoldLasso(ALPHA).fit(given, y)
    np.testing.assert_allclose(model.coef_, expected.coef_, atol=1e-10)
    np.testing.assert_allclose(model.predict(given), expected.predict(X), atol=1e-9)
    assert np.count_nonzero(model.coef_) > 3


@pytest.mark.parametrize("kind", [np.float32, np.int64, object, list, pd.Series])
def test_the_form_of_the_target_does_not_change_the_answer(kind):
    X, y = whole_numbers()
    given = kind(y) if kind in (list, pd.Series) else y.astype(kind)
    model = TenfoldLasso(ALPHA).fit(X, given)
    np.testing.assert_array_equal(model.coef_, TenfoldLasso(ALPHA).fit(X, y).coef_)


@pytest.mark.parametrize("form", ["csr", "duplicate unsorted entries", "dense", "int64 indices"])
def test_arrays_of_the_user_are_never_written_to(form):
    X, y = whole_numbers()
    given = FORMS[form](X)
    weights, u = np.arange(60) % 3 * 1.0, np.linspace(0, 2, 40)
    parts = [given.data, given.indices, given.indptr] if sp.issparse(given) else [given]
    parts += [y, weights, u]
    before = [part.copy() for part in parts]
    TenfoldLasso(ALPHA, penalty_weights=u).fit(given, y, weights).predict(given)
    TenfoldLassoCV(alphas=3, penalty_weights=u).fit(given, y, weights)
    for part, old in zip(parts, before, strict=True):
        np.testing.assert_array_equal(part, old)
        assert part.dtype == old.dtype


def test_a_read_only_csc_matrix_is_used_without_a_copy():
    X, y, _ = data()
    X = frozen(X)
    held = TenfoldLasso()._checked(X, y, None).X
    assert np.shares_memory(held.data, X.data)
    assert np.shares_memory(held.indices, X.indices)
    assert np.shares_memory(held.indptr, X.indptr)


X0, Y0 = make_problem(7, 20, 6).X, make_problem(7, 20, 6).y


def spoilt(value):
    X = X0.toarray()
    X[3, 2] = value
    return X


BAD = {
    "X: NaN": (lambda m: m.fit(spoilt(np.nan), Y0), "NaN"),
    "X: inf": (lambda m: m.fit(sp.csc_matrix(spoilt(np.inf)), Y0), "infinity"),
    "X: too large": (lambda m: m.fit(spoilt(-1e200), Y0), "X: expected values up to 1e\\+140"),
    "X: text": (lambda m: m.fit(np.full((20, 6), "a"), Y0), "could not convert"),
    "X: one dimension": (lambda m: m.fit(Y0, Y0), "Expected 2D array"),
    "X: no column": (lambda m: m.fit(X0[:, :0], Y0), "0 feature"),
    "y: NaN": (lambda m: m.fit(X0, np.append(Y0[1:], np.nan)), "NaN"),
    "y: too large": (lambda m: m.fit(X0, Y0 * 1e200), "y: expected values up to"),
    "y: shape": (lambda m: m.fit(X0, Y0[1:]), "inconsistent numbers of samples"),
    "y: several": (lambda m: m.fit(X0, np.ones((20, 2))), "TenfoldMultiTaskLasso"),
    "weights: negative": (lambda m: m.fit(X0, Y0, -np.ones(20)), "[Nn]egative"),
    "weights: NaN": (lambda m: m.fit(X0, Y0, np.full(20, np.nan)), "NaN"),
    "weights: shape": (lambda m: m.fit(X0, Y0, np.ones(19)), "sample_weight"),
    "penalty: shape": (lambda m: m.set_params(penalty_weights=[1.0]).fit(X0, Y0), "shape \\(6,\\)"),
    "penalty: NaN": (
        lambda m: m.set_params(penalty_weights=[np.nan] * 6).fit(X0, Y0),
        "0 or more",
    ),
    "tol: zero": (lambda m: m.set_params(tol=0).fit(X0, Y0), "tol: expected a finite"),
    "engine": (lambda m: m.set_params(engine="abacus").fit(X0, Y0), "engine: expected one of"),
    "prediction: columns": (lambda m: m.fit(X0, Y0).predict(X0[:, 1:]), "5 features"),
}


@pytest.mark.parametrize("model", [TenfoldLasso(), TenfoldLassoCV(alphas=2)])
@pytest.mark.parametrize("name", BAD)
def test_bad_input_raises_and_says_what(model, name):
    act, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        act(clone(model))


@pytest.mark.parametrize("alpha", [0, -1.0, np.nan, np.inf, True, "1", None, [1.0]])
def test_bad_alpha_raises(alpha):
    with pytest.raises(ValueError, match="alpha: expected a finite number above 0"):
        TenfoldLasso(alpha).fit(X0, Y0)


def test_grid_search_chooses_as_with_scikit_learn():
    X, y, _ = data(8, n=90)
    grid = {"alpha": np.geomspace(0.5, 0.005, 7)}
    ours = GridSearchCV(TenfoldLasso(tol=1e-10), grid, cv=4).fit(X, y)
    theirs = GridSearchCV(Lasso(tol=1e-10, max_iter=100_000), grid, cv=4).fit(X, y)
    assert ours.best_params_ == theirs.best_params_
    scores = [search.cv_results_["mean_test_score"] for search in (ours, theirs)]
    np.testing.assert_allclose(*scores, atol=1e-5)


@pytest.mark.parametrize("vectorizer", [CountVectorizer, TfidfVectorizer])
def test_pipeline_of_texts_equals_scikit_learn(vectorizer):
    rng = np.random.default_rng(0)
    words = np.array(["profit", "loss", "rises", "falls", "again", "flat"])
    texts = [" ".join(rng.choice(words, 4)) for _ in range(80)]
    y = np.array([text.count("profit") - text.count("loss") for text in texts], dtype=float)
    ours = make_pipeline(vectorizer(), TenfoldLasso(0.01, tol=1e-10)).fit(texts, y)
    theirs = make_pipeline(vectorizer(), Lasso(alpha=0.01, tol=1e-12)).fit(texts, y)
    np.testing.assert_allclose(ours.predict(texts), theirs.predict(texts), atol=1e-5)
    assert ours.score(texts, y) > 0.9


def test_feature_names_of_a_data_frame_are_kept_and_checked():
    frame = pd.DataFrame(X0.toarray(), columns=list("abcdef"))
    model = TenfoldLasso(ALPHA).fit(frame, Y0)
    assert model.feature_names_in_.tolist() == list("abcdef")
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(frame.rename(columns={"a": "z"}))


def test_warm_start_needs_no_step_to_stay_where_it_is():
    X, y, _ = data(9)
    model = TenfoldLasso(ALPHA, warm_start=True).fit(X, y)
    first = model.coef_
    assert model.n_iter_ > 0
    assert model.fit(X, y).n_iter_ == 0
    np.testing.assert_array_equal(model.coef_, first)
    narrow = model.fit(X[:, :10], y)  # another shape: from zero
    cold = TenfoldLasso(ALPHA).fit(X[:, :10], y)
    np.testing.assert_array_equal(narrow.coef_, cold.coef_)


@pytest.mark.parametrize("kind", [TenfoldLasso, TenfoldMultiTaskLasso])
def test_warm_start_leaves_a_column_that_has_become_constant(kind):
    X, y, _ = data(11)
    y = np.column_stack([y, y[::-1]]) if kind is TenfoldMultiTaskLasso else y
    model = kind(ALPHA, warm_start=True).fit(X, y)
    strongest = int(np.abs(np.atleast_2d(model.coef_)).max(axis=0).argmax())
    flat = X.toarray()
    flat[:, strongest] = 2.0
    warm, cold = model.fit(flat, y), kind(ALPHA).fit(flat, y)
    np.testing.assert_allclose(warm.coef_, cold.coef_, atol=1e-3)
    assert not np.atleast_2d(warm.coef_)[:, strongest].any()


@pytest.mark.parametrize("model", [TenfoldLasso(0.01), TenfoldLassoCV(alphas=4)])
def test_one_warning_tells_of_answers_above_tol(model, monkeypatch):
    monkeypatch.setattr("actors.lasso.newton.MAX_ROUNDS", 1)
    monkeypatch.setattr("actors.lasso.active_set.MAX_STEPS", 1)
    X, y, _ = data(10)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.set_params(tol=1e-30).fit(X, y)
    ours = [w for w in caught if issubclass(w.category, ConvergenceWarning)]
    assert len(ours) == 1
    assert ours[0].filename == __file__
    assert "above tol 1.0e-30" in str(ours[0].message)
    assert model.dual_gap_ > 0


def test_estimators_fit_where_ray_is_missing():
    code = (
        "import sys; sys.modules['ray'] = None\n"
        "import numpy as np\n"
        "from actors.lasso.estimators import TenfoldLasso, TenfoldLassoCV\n"
        "X, y = np.eye(12), np.arange(12.0)\n"
        "print(TenfoldLasso(0.1).fit(X, y).path_.gaps[0] <= 1e-6)\n"
        "print(TenfoldLassoCV(alphas=3).fit(X, y).alphas_.size)\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split() == ["True", "3"], done.stderr


def test_the_example_of_the_module_is_true():
    result = doctest.testmod(estimators)
    assert result.attempted > 5
    assert result.failed == 0
