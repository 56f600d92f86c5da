"""The batched engine on every backend, against the certificate, newton and brute force."""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from designs import QUICK, best_by_enumeration, counts_like, make_problem, path
from hypothesis import given
from hypothesis import strategies as st

from actors.lasso.backend import NumpyBackend
from actors.lasso.batched import BatchedEngine
from actors.lasso.batched_newton import Cells, minimise_cells
from actors.lasso.certificate import certify
from actors.lasso.engines import make_engine
from actors.lasso.problem import LassoProblem
from actors.lasso.solution import ConvergenceWarning
from actors.lasso.unit import (
    TRAIN,
    VALIDATION,
    cell_result,
    coefficients,
    solve_targets,
    solve_unit,
)

TOL = 1e-8


def make_numpy():
    return BatchedEngine("numpy", NumpyBackend())


def make_torch(dtype):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from actors.lasso.torch_engine import TorchEngine

    return TorchEngine("cpu", getattr(torch, dtype))


def make_torch_on_device():
    """The CUDA engine's sparse products, run on the CPU."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from actors.lasso.torch_design import DeviceMatrix, TorchDesign
    from actors.lasso.torch_engine import TorchBackend

    device = torch.device("cpu")

    class OnDevice(BatchedEngine):
        def _design(self, problems):
            return TorchDesign(problems, DeviceMatrix(problems[0].X, device), torch.float64)

    return OnDevice("torch", TorchBackend(device, torch.float64), threads=3)


def make_mlx():
    pytest.importorskip("mlx.core", reason="MLX is not installed")
    from actors.lasso.mlx_engine import MlxEngine

    return MlxEngine()


BACKENDS = {
    "numpy": make_numpy,
    "torch float64": lambda: make_torch("float64"),
    "torch float32": lambda: make_torch("float32"),
    "torch products": make_torch_on_device,
    "mlx float32": make_mlx,
}


@pytest.fixture(params=BACKENDS)
def engine(request):
    return BACKENDS[request.param]()


@pytest.fixture(autouse=True)
def missed_tolerance_is_an_error():
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        yield


def assert_certified(problem, solution, tol=TOL):
    for i, alpha in enumerate(solution.alphas):
        proof = certify(problem, solution.coefs[:, [i]], solution.intercepts[i], alpha)
        assert -1e-12 <= proof.relative_gap <= tol * (1 + 1e-6), f"alpha {i}: {proof}"
        assert solution.gaps[i] == pytest.approx(proof.relative_gap, abs=1e-11)


def column(values):
    return sp.csc_matrix(np.asarray(values, dtype=float).reshape(-1, 1))


def difficult(seed):
    """Duplicates, a sum of others, a constant, an empty column, scales from 1e-2 to 1e2."""
    base = make_problem(seed, n=50, p=60)
    X = base.X
    scaled = X[:, :20] @ sp.diags(np.logspace(-2, 2, 20))
    parts = [X, X[:, 5:15], column(X[:, :3].sum(axis=1)), -2 * X[:, [7]], column(np.ones(50)),
             column(np.zeros(50)), scaled]  # fmt: skip
    return LassoProblem(sp.hstack(parts, format="csc"), base.y)


def weighted(seed, positive=False):
    base = make_problem(seed, n=60, p=50)
    rng = np.random.default_rng(seed)
    u = rng.choice([0.0, 0.5, 1.0, 3.0, np.inf], size=50, p=[0.04, 0.3, 0.4, 0.2, 0.06])
    s = rng.uniform(0, 2, 60) * (rng.random(60) < 0.9)
    return LassoProblem(base.X, base.y, None, s, u, positive)


PROBLEMS = {
    "n > p": lambda: make_problem(1, n=80, p=25),
    "n < p": lambda: make_problem(2, n=40, p=150),
    "more columns than a round takes": lambda: make_problem(3, n=100, p=450, density=0.3),
    "difficult columns": lambda: difficult(4),
    "positive": lambda: LassoProblem(make_problem(5).X, make_problem(5).y, positive=True),
    "weights of rows and columns": lambda: weighted(6),
    "weights and positive": lambda: weighted(7, positive=True),
    "no intercept": lambda: LassoProblem(make_problem(8).X, make_problem(8).y, fit_intercept=False),
    "tiny target": lambda: LassoProblem(make_problem(9).X, make_problem(9).y * 1e-7),
    "target far from zero": lambda: LassoProblem(make_problem(10).X, make_problem(10).y + 1e4),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_grid_is_certified_at_every_alpha(engine, name):
    problem = PROBLEMS[name]()
    alphas = path(problem, ratio=30, count=6)
    solution = engine.solve_path(problem, alphas, tol=TOL)
    np.testing.assert_array_equal(solution.alphas, alphas)
    assert_certified(problem, solution)


def test_coefficients_equal_newtons(engine):
    problem = make_problem(20, n=70, p=60)
    alphas = path(problem, ratio=20, count=5)
    ours = engine.solve_path(problem, alphas, tol=1e-11).coefs.toarray()
    theirs = make_engine("newton").solve_path(problem, alphas, tol=1e-12).coefs.toarray()
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())
    np.testing.assert_array_equal(ours != 0, theirs != 0)


def folds_and_targets(seed=30):
    """Six problems over one matrix: three masks, two targets, one of them undefined in places."""
    X = counts_like(seed, 90, 70)
    rng = np.random.default_rng(seed)
    Y = X @ (rng.standard_normal((70, 2)) * (rng.random((70, 2)) < 0.2)) + rng.random((90, 2))
    Y[rng.random(90) < 0.1, 1] = np.nan
    masks = [np.arange(90) < 45, np.arange(90) % 3 > 0, np.ones(90, dtype=bool)]
    return [LassoProblem(X, y, mask & np.isfinite(y)) for y in Y.T for mask in masks]


def test_folds_and_targets_are_solved_as_one_batch(engine):
    problems = folds_and_targets()
    alphas = [path(problem, ratio=20, count=3 + i) for i, problem in enumerate(problems)]
    solutions = engine.solve_grid(problems, alphas, tol=TOL)
    for problem, grid, solution in zip(problems, alphas, solutions, strict=True):
        np.testing.assert_array_equal(solution.alphas, grid)
        assert_certified(problem, solution)
        alone = make_engine("newton").solve_path(problem, grid, tol=1e-12).coefs.toarray()
        np.testing.assert_allclose(solution.coefs.toarray(), alone, atol=1e-3)


def test_answers_are_the_same_bytes_twice(engine):
    problems = folds_and_targets()[:3]
    alphas = [path(problem, ratio=20, count=5) for problem in problems]
    first = engine.solve_grid(problems, alphas, tol=TOL)
    second = engine.solve_grid(problems, alphas, tol=TOL)
    for one, other in zip(first, second, strict=True):
        for part in ("data", "indices", "indptr"):
            mine, again = getattr(one.coefs, part), getattr(other.coefs, part)
            assert mine.tobytes() == again.tobytes()
        assert one.intercepts.tobytes() == other.intercepts.tobytes()


def test_little_memory_gives_the_same_answers(engine):
    problems = folds_and_targets()[1:4]
    alphas = [path(problem, ratio=20, count=4) for problem in problems]
    plenty = engine.solve_grid(problems, alphas, tol=1e-9)
    engine._budget = 30_000  # two alphas measured at once, one Gram matrix held
    tight = engine.solve_grid(problems, alphas, tol=1e-9)
    for problem, one, other in zip(problems, plenty, tight, strict=True):
        assert_certified(problem, other)
        np.testing.assert_allclose(one.coefs.toarray(), other.coefs.toarray(), atol=1e-3)


def test_a_warm_start_reaches_the_same_answer(engine):
    problem = make_problem(40, n=60, p=80)
    alphas = path(problem, count=5)
    whole = engine.solve_path(problem, alphas, tol=1e-10)
    first = engine.solve_path(problem, alphas[:3], tol=1e-10)
    second = engine.solve_path(problem, alphas[3:], tol=1e-10, start=first.coefs[:, [-1]])
    joined = sp.hstack([first.coefs, second.coefs]).toarray()
    np.testing.assert_allclose(joined, whole.coefs.toarray(), atol=1e-4)
    rng = np.random.default_rng(0)
    anything = sp.csc_matrix(rng.standard_normal((80, 1)) * (rng.random((80, 1)) < 0.7))
    assert_certified(problem, engine.solve_path(problem, alphas[2:], tol=TOL, start=anything))


def test_solution_is_zero_when_alpha_is_alpha_max_or_more(engine):
    problem = make_problem(41)
    top = problem.alpha_max()
    solution = engine.solve_path(problem, [10 * top, top * (1 + 1e-12), 0.99 * top], tol=TOL)
    assert solution.coefs[:, :2].nnz == 0
    assert solution.coefs[:, 2].nnz > 0
    np.testing.assert_allclose(solution.intercepts[:2], problem.y.mean(), rtol=1e-12)


def test_an_answer_above_tol_is_returned_with_its_gap_and_a_warning(engine, monkeypatch):
    monkeypatch.setattr("actors.lasso.batched.MAX_ROUNDS", 1)
    monkeypatch.setattr("actors.lasso.batched_newton.MAX_STEPS", 2)
    problem = make_problem(42, n=60, p=80)
    with pytest.warns(ConvergenceWarning, match=f"{engine.name}: alpha"):
        solution = engine.solve_path(problem, [problem.alpha_max() / 30], tol=1e-9)
    assert solution.gaps[0] > 1e-9
    assert_certified(problem, solution, tol=1.0)


def test_an_unreachable_tol_ends_with_an_honest_gap(engine):
    problem = make_problem(43)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        solution = engine.solve_path(problem, path(problem, count=4), tol=1e-30)
    assert_certified(problem, solution, tol=1e-9)


def test_matrices_that_are_not_definite_are_told_apart(engine):
    backend = engine._backend
    rng = np.random.default_rng(0)
    A = rng.standard_normal((4, 4))
    indefinite, zero_pivot = np.eye(4), np.eye(4)
    indefinite[2, 2], zero_pivot[1, 1] = -1.0, 0.0
    good = A @ A.T + np.eye(4)
    right = rng.standard_normal((5, 4))
    stack = np.stack([good, np.zeros((4, 4)), indefinite, zero_pivot, np.eye(4)])
    solutions, definite = backend.solve(backend.array(stack), backend.array(right))
    assert backend.host(definite).tolist() == [True, False, False, False, True]
    found = backend.host(solutions)
    np.testing.assert_allclose(found[0], np.linalg.solve(good, right[0]), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found[4], right[4], rtol=1e-6)


def test_problems_over_different_matrices_are_refused():
    problems = [make_problem(44), make_problem(45)]
    with pytest.raises(ValueError, match="one design matrix"):
        make_numpy().solve_grid(problems, [np.ones(1), np.ones(1)])


@QUICK
@given(seed=st.integers(0, 10_000), k=st.integers(1, 5), rank=st.integers(1, 5))
def test_minimisers_equal_the_best_of_all_sign_patterns(seed, k, rank):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((min(rank, k), k))
    y = rng.standard_normal(min(rank, k))
    gram, target = A.T @ A, A.T @ y
    bounds = np.abs(target).max() * np.array([1.1, 0.5, 0.1, 0.02])
    start = rng.standard_normal((1, 4, k)) * (rng.random((1, 4, k)) < 0.5)
    gradient, bound = target - start @ gram, np.tile(bounds[None, :, None], (1, 1, k))
    residual2 = np.square(y - start @ A.T).sum(axis=-1)
    cells = Cells(
        start, gradient - bound, gradient + bound, bound, residual2,
        np.full((1, 4), 1e-12), np.array([False]),
    )  # fmt: skip
    found, _ = minimise_cells(NumpyBackend(), gram[None], cells, budget_bytes=2**20)
    for v, b in zip(found[0], bounds, strict=True):
        _, best = best_by_enumeration(gram, target, b)
        value = v @ gram @ v / 2 - target @ v + b * np.abs(v).sum()
        assert value <= best + 1e-8 * max(1.0, abs(best))


def test_a_unit_of_all_targets_and_folds_equals_units_of_one(engine):
    X = counts_like(50, 80, 60)
    rng = np.random.default_rng(50)
    Y = X[:, :2].toarray() + 0.3 * rng.standard_normal((80, 2))
    Y[rng.random(80) < 0.1, 1] = np.nan
    roles = np.full((3, 80), TRAIN, dtype=np.int8)
    roles[0, ::2], roles[1, 1::2] = VALIDATION, VALIDATION
    grids = [np.geomspace(0.1, 0.01, 6), np.geomspace(0.2, 0.02, 6)]
    first = solve_targets(engine, X, Y, roles, [grid[:3] for grid in grids], tol=1e-9)
    rest = [grid[3:] for grid in grids]
    second = solve_targets(engine, X, Y, roles, rest, tol=1e-9, previous=first)
    for target in range(2):
        for fold in range(3):
            alone = solve_unit(
                make_engine("newton"), X, Y[:, target], roles[fold], grids[target], tol=1e-12
            )
            parts = [cell_result(result, target, fold) for result in (first, second)]
            ours = sp.hstack([coefficients(part, 60) for part in parts]).toarray()
            np.testing.assert_allclose(ours, coefficients(alone, 60).toarray(), atol=1e-4)
            for name in ("alphas", "validation_mse", "train_mse", "nonzeros"):
                joined = np.concatenate([part[name] for part in parts])
                np.testing.assert_allclose(joined, alone[name], rtol=1e-3)
            assert parts[0]["n_train"] == alone["n_train"]
    assert first["gap"] <= 1e-9
