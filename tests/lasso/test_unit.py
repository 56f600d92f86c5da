"""A unit of work: errors measured by hand, chained stretches, roles and missing targets."""

import numpy as np
import pytest
from designs import make_problem, path

from actors.lasso.actor import LassoWorker
from actors.lasso.engines import make_engine
from actors.lasso.problem import LassoProblem
from actors.lasso.unit import TRAIN, UNUSED, VALIDATION, coefficients, solve_unit


@pytest.fixture
def case():
    problem = make_problem(1, n=90, p=60)
    rng = np.random.default_rng(0)
    roles = rng.choice([UNUSED, TRAIN, VALIDATION], 90, p=[0.2, 0.5, 0.3]).astype(np.int8)
    y = np.where(rng.random(90) < 0.15, np.nan, problem.y)
    trained = LassoProblem(problem.X, y, (roles == TRAIN) & np.isfinite(y))
    return problem.X, y, roles, path(trained)


def test_errors_are_those_of_the_defined_rows_of_each_role(case):
    X, y, roles, alphas = case
    result = solve_unit(make_engine("newton"), X, y, roles, alphas, tol=1e-10)
    coefs, dense = coefficients(result, 60).toarray(), X.toarray()
    for i in range(alphas.size):
        predicted = dense @ coefs[:, i] + result["intercepts"][i]
        for role, name in ((TRAIN, "train_mse"), (VALIDATION, "validation_mse")):
            squares = [
                (y[row] - predicted[row]) ** 2
                for row in range(90)
                if roles[row] == role and not np.isnan(y[row])
            ]
            assert result[name][i] == pytest.approx(sum(squares) / len(squares), rel=1e-12)
        assert result["nonzeros"][i] == np.count_nonzero(coefs[:, i])
    assert int(result["n_train"]) == np.sum((roles == TRAIN) & ~np.isnan(y))
    assert int(result["n_validation"]) == np.sum((roles == VALIDATION) & ~np.isnan(y))
    assert (np.diff(result["train_mse"]) <= 1e-12).all()


def test_validation_error_is_nan_without_validation_rows(case):
    X, y, _, alphas = case
    roles = np.full(90, TRAIN, dtype=np.int8)
    result = solve_unit(make_engine("newton"), X, y, roles, alphas[:2], tol=1e-6)
    assert np.isnan(result["validation_mse"]).all()
    assert int(result["n_validation"]) == 0


@pytest.mark.parametrize("engine", ["newton", "celer", "sklearn"])
def test_a_worker_chains_stretches_from_the_results_it_is_handed(case, engine):
    X, y, roles, alphas = case
    parts = {"data": X.data, "indices": X.indices, "indptr": X.indptr, "shape": np.array(X.shape)}
    frozen = {name: part.copy() for name, part in parts.items()}
    targets = np.column_stack([np.full(90, np.nan), y])
    for array in (*frozen.values(), targets):
        array.flags.writeable = False
    whole = solve_unit(make_engine(engine), X, y, roles, alphas, tol=1e-11)
    previous, stretches = None, []
    for start in range(0, 8, 3):
        # A new worker each time: nothing but the result is carried over.
        worker = LassoWorker(frozen, targets, roles[None], engine)
        payload = {"target": 1, "fold": 0, "alphas": alphas[start : start + 3], "tol": 1e-11}
        previous = worker.solve(payload, previous)
        stretches.append(previous)
    for name in ("alphas", "intercepts", "train_mse", "validation_mse"):
        joined = np.concatenate([stretch[name] for stretch in stretches])
        np.testing.assert_allclose(joined, whole[name], rtol=1e-4)
    assert all((stretch["gaps"] <= 1e-11).all() for stretch in stretches)


def test_a_stretch_starts_from_the_last_answer_before_it(case):
    X, y, roles, alphas = case
    first = solve_unit(make_engine("newton"), X, y, roles, alphas[:4], tol=1e-8)
    again = [alphas[3], alphas[0]]
    second = solve_unit(make_engine("newton"), X, y, roles, again, tol=1e-8, previous=first)
    assert second["n_iter"][0] == 0
    assert second["n_iter"][1] > 0


def test_the_same_unit_gives_the_same_bytes_on_another_worker(case):
    X, y, roles, alphas = case
    design = {"data": X.data, "indices": X.indices, "indptr": X.indptr, "shape": np.array(X.shape)}
    payload = {"target": 0, "fold": 0, "alphas": alphas[:4], "tol": 1e-6}
    later = {**payload, "alphas": alphas[4:]}
    results = []
    for warm_up in (False, True):
        worker = LassoWorker(design, y[:, None], roles[None], "newton")
        if warm_up:  # what a worker did before must not matter
            worker.solve({**payload, "alphas": alphas}, None)
        first = worker.solve(payload, None)
        results.append((first, worker.solve(later, first)))
    for ours, theirs in zip(*results, strict=True):
        for name in set(ours) - {"seconds"}:
            assert ours[name].tobytes() == theirs[name].tobytes(), name
