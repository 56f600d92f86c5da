"""One solver on one saved problem, in a process of its own: ``python -m pipelines.bench.child``.

Takes its orders as JSON in the first argument, prints two lines of JSON (ready, done) and leaves
the answers in a file. The clock runs around the solve alone. One that takes too much processor
time is ended by the profiling timer's signal, which stops compiled code as well.
"""

import json
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.bench.memory import forget_peak, peak_gib
from pipelines.bench.saved import load_problem, save_answers
from pipelines.bench.solvers import SOLVERS, warm_up


def main() -> None:
    """Solve what the first argument describes."""
    order = json.loads(sys.argv[1])
    solver = SOLVERS[order["solver"]]
    X, y = load_problem(Path(order["problem"]))
    warm_up(solver, None if y.ndim == 1 else y.shape[1])
    alphas, solve = np.array(order["alphas"]), solver.on(y)
    warnings.simplefilter("ignore")  # what is reached is certified, whatever a solver says of it
    _report({"cpu_before": time.process_time()})
    forget_peak()
    signal.setitimer(signal.ITIMER_PROF, order["timeout"])
    started, cpu = time.perf_counter(), time.process_time()
    answers = solve(X, y, alphas, order["tol"])
    cpu, wall = time.process_time() - cpu, time.perf_counter() - started
    signal.setitimer(signal.ITIMER_PROF, 0)
    peak = peak_gib()
    save_answers(Path(order["answers"]), *answers)
    _report({"cpu_seconds": cpu, "wall_seconds": wall, "peak_gib": peak})


def _report(facts: dict[str, Any]) -> None:
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
