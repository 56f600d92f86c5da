"""A solver process that stays: ``python -m pipelines.bench.worker``.

Reads one order of JSON a line, answers each with one line. Several of them at work at once show
what they take from each other.
"""

import json
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from actors.lasso.engines import make_engine
from actors.lasso.problem import LassoProblem
from pipelines.bench.memory import peak_gib
from pipelines.bench.saved import load_problem, save_answers
from pipelines.bench.solvers import OWN, warm_up

_COPY_BYTES = 1 << 27  # well beyond any cache


def main() -> None:
    """Serve until standard input ends."""
    warnings.simplefilter("ignore")
    setup = json.loads(sys.argv[1])
    warm_up(OWN[setup["solver"]])
    problem = LassoProblem(*load_problem(Path(setup["problem"])))
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(_ORDERS[order["do"]](problem, setup["solver"], order)), flush=True)


def _solve(problem: LassoProblem, engine: str, order: Mapping[str, Any]) -> dict[str, Any]:
    """Solve the path once, from a problem of which nothing is known yet."""
    fresh = LassoProblem(problem.X, problem.y)
    started, cpu = time.perf_counter(), time.process_time()
    solution = make_engine(engine).solve_path(fresh, np.array(order["alphas"]), tol=order["tol"])
    cpu, wall = time.process_time() - cpu, time.perf_counter() - started
    if order["answers"]:
        save_answers(Path(order["answers"]), solution.coefs, solution.intercepts)
    return {
        "cpu_seconds": cpu,
        "wall_seconds": wall,
        "peak_gib": peak_gib(),
        "gap": float(solution.gaps.max()),
    }


def _screen(problem: LassoProblem, engine: str, order: Mapping[str, Any]) -> dict[str, Any]:
    """Repeat the screening product ``X' r``; its bytes are the matrix's, read once, and vectors."""
    del engine
    X, residual = problem.X, problem.y_centred
    size = X.data.nbytes + X.indices.nbytes + X.indptr.nbytes + 8 * sum(X.shape)
    return _rate(lambda: problem.correlations(residual), size, order["seconds"])


def _copy(problem: LassoProblem, engine: str, order: Mapping[str, Any]) -> dict[str, Any]:
    """Copy an array that no cache holds: what the memory can give, read and written."""
    del problem, engine
    source = np.ones(_COPY_BYTES // 8)
    copy = np.zeros_like(source)
    return _rate(lambda: np.copyto(copy, source), 2 * _COPY_BYTES, order["seconds"])


def _rate(once: Callable[[], object], size: int, seconds: float) -> dict[str, Any]:
    once()
    started, count = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - started) < seconds or not count:
        once()
        count += 1
    return {"gb_per_s": count * size / elapsed / 1e9}


_ORDERS = {"solve": _solve, "screen": _screen, "copy": _copy}

if __name__ == "__main__":
    main()
