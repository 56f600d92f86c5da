"""Five folds against one path: on their own, side by side, and with an early stop.

    python -m benchmarks.lasso_folds --data ../shared/data/stocknet --runs 3

CPU seconds of one thread, medians, and their ratio to the path on all rows. Folds are forward in
time (training on the first 1/6 ... 5/6 of the rows) or shuffled (training on 4/5); the early stop
counts the path on all rows in, since it ends with the folds.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import scipy.sparse as sp

from actors.lasso.newton import NewtonEngine
from actors.lasso.problem import LassoProblem
from actors.lasso.unit import TRAIN, UNUSED, VALIDATION, fold_result, solve_folds
from pipelines.bench.problems import ProblemConfig, save
from pipelines.bench.saved import load_problem

FOLDS = 5
MARGIN = 0.01


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="folder with news.parquet and prices.parquet")
    parser.add_argument("--target", default="volume_change")
    parser.add_argument("--alphas", type=int, default=43)
    parser.add_argument("--ratio", type=float, default=30.0)
    parser.add_argument("--tol", type=float, default=1e-6)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", help="also write the rows to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        save(ProblemConfig(data=options.data, target=options.target), Path(folder))
        X, y = load_problem(Path(folder))
    rows = [row for kind in ("time", "shuffled") for row in measure(kind, X, y, options)]
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=2) + "\n")


def measure(
    kind: str, X: sp.csc_matrix, y: np.ndarray, options: argparse.Namespace
) -> list[dict[str, object]]:
    """Time every way on folds of one kind, taking turns, and print a row each."""
    roles = make_roles(kind, y.size)
    alphas = LassoProblem(X, y).alpha_max() / np.geomspace(1.0, options.ratio, options.alphas)
    engine, tol = NewtonEngine(), options.tol

    def problems() -> list[LassoProblem]:
        return [LassoProblem(X, y, own == TRAIN) for own in roles[:FOLDS]]

    ways: dict[str, Callable[[], list[float]]] = {
        "one path, all rows": lambda: [
            float(engine.solve_path(LassoProblem(X, y), alphas, tol=tol).gaps.max())
        ],
        "5 folds, one by one": lambda: [
            float(engine.solve_path(p, alphas, tol=tol).gaps.max()) for p in problems()
        ],
        "5 folds, side by side": lambda: [
            float(s.gaps.max()) for s in engine.solve_paths(problems(), [alphas] * FOLDS, tol=tol)
        ],
        f"5 folds and all rows, early stop at {MARGIN:.0%}": lambda: stopped(
            X, y, roles, alphas, tol
        ),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    gaps: dict[str, float] = {}
    for _ in range(options.runs):
        for way, run in ways.items():
            since = time.process_time()
            gaps[way] = max(run())
            seconds[way].append(time.process_time() - since)
    one = statistics.median(seconds["one path, all rows"])
    rows = [
        {
            "folds": kind,
            "work": way,
            "cpu_seconds": round(statistics.median(taken), 2),
            "ratio": round(statistics.median(taken) / one, 2),
            "largest_gap": float(f"{gaps[way]:.1e}"),
        }
        for way, taken in seconds.items()
    ]
    for row in rows:
        print(row, flush=True)
    return rows


def stopped(
    X: sp.csc_matrix, y: np.ndarray, roles: np.ndarray, alphas: np.ndarray, tol: float
) -> list[float]:
    result = solve_folds(X, y, roles, alphas.tolist(), tol=tol, margin=MARGIN)
    return [float(fold_result(result, i)["gaps"].max(initial=0.0)) for i in range(len(roles))]


def make_roles(kind: str, n: int) -> np.ndarray:
    """Roles of the folds, and of all rows as the last."""
    if kind == "time":
        block = np.arange(n) * (FOLDS + 1) // n
        roles = [
            np.where(block <= k, TRAIN, np.where(block == k + 1, VALIDATION, UNUSED))
            for k in range(FOLDS)
        ]
    else:
        group = np.random.default_rng(0).integers(0, FOLDS, n)
        roles = [np.where(group == k, VALIDATION, TRAIN) for k in range(FOLDS)]
    return np.array([*roles, np.full(n, TRAIN)], dtype=np.int8)


if __name__ == "__main__":
    main()
