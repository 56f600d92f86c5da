"""Multi-task Lasso paths on sparse X, side by side with scikit-learn.

    python -m benchmarks.multitask_lasso --data ../shared/data/stocknet --runs 3

Every solver gets one process and one thread, the same matrix, targets and alphas from alpha_max
down, each alpha warm-started by the one before. CPU seconds are those of the path, without loading;
gaps are certified afterwards, by one function. scikit-learn is timed as far down as --limit CPU
seconds reach, and the ratio is taken on the alphas that it finished: the time of our whole path up
to there. With an intercept its step on a sparse column costs as much as a dense one, so
`--no-intercept` times both without.
"""

import argparse
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import scipy.sparse as sp

from actors.lasso.multitask import row_sparse, solve_multitask_path
from actors.lasso.multitask_certificate import certify_multitask
from actors.lasso.multitask_problem import MultiTaskProblem

SOLVERS = ("tenfold", "scikit-learn")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="folder with news.parquet and prices.parquet")
    parser.add_argument("--matrix", help="or a sparse matrix (scipy .npz), with --responses")
    parser.add_argument("--responses", help="its targets (.npy), a column each")
    parser.add_argument("--alphas", type=int, default=20)
    parser.add_argument("--ratio", type=float, default=10.0)
    parser.add_argument("--tol", type=float, default=1e-6)
    parser.add_argument("--peer-tol", type=float, default=1e-6)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--limit", type=int, default=300, help="CPU seconds of one peer run")
    parser.add_argument("--no-intercept", action="store_true")
    parser.add_argument("--child", choices=SOLVERS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        _child(options)
        return
    with tempfile.TemporaryDirectory() as folder:
        _write(options, Path(folder))
        problem = _read(options, Path(folder))
        print(f"{problem.X.shape}, {problem.X.nnz:,} non-zeros, {problem.n_targets} targets")
        runs: dict[str, list[dict]] = {name: [] for name in SOLVERS}
        for _ in range(options.runs):
            for solver in SOLVERS:
                runs[solver].append(_run(solver, folder, problem))
    _report(runs)


def _write(options: argparse.Namespace, folder: Path) -> None:
    X, Y = _from_news(options.data) if options.data else _from_files(options)
    np.save(folder / "Y.npy", Y)
    sp.save_npz(folder / "X.npz", X, compressed=False)


def _from_files(options: argparse.Namespace) -> tuple[sp.csc_matrix, np.ndarray]:
    return sp.csc_matrix(sp.load_npz(options.matrix)), np.load(options.responses)


def _from_news(data: str) -> tuple[sp.csc_matrix, np.ndarray]:
    """Return the n-grams and the four targets of the news job; twins are merged."""
    from cluster.connect import ClusterConfig, connect
    from cluster.meter import Meter
    from cluster.storage import Store
    from pipelines.news.config import DesignConfig, NewsConfig
    from pipelines.news.fitting.multitask import common_rows
    from pipelines.news.prepare import load, prepare
    from pipelines.news.reading.ingest import InputConfig

    files = {name: str(Path(data) / f"{name}.parquet") for name in ("news", "prices")}
    config = NewsConfig(input=InputConfig(**files), design=DesignConfig(early_drop="off"))
    with tempfile.TemporaryDirectory() as folder, Meter() as meter:
        loaded = common_rows(load(config, meter))
        with connect(ClusterConfig(dashboard=False)) as cluster:
            problem = prepare(config, loaded, cluster, Store(folder), meter)
    return problem.X, problem.Y


def _read(options: argparse.Namespace, folder: Path) -> MultiTaskProblem:
    X, Y = sp.load_npz(folder / "X.npz"), np.load(folder / "Y.npy")
    return MultiTaskProblem(sp.csc_matrix(X), Y, fit_intercept=not options.no_intercept)


def _run(solver: str, folder: str, problem: MultiTaskProblem) -> dict:
    """Run one solver in a process of its own; certify what it finished."""
    command = [sys.executable, "-m", "benchmarks.multitask_lasso", *sys.argv[1:]]
    done = subprocess.run(
        [*command, "--child", solver, "--folder", folder], stdout=subprocess.PIPE, text=True
    )
    # Only the limit may end a solver early: a crash, or a kill from outside, is no measurement.
    if done.returncode not in (0, -signal.SIGXCPU):
        raise SystemExit(f"{solver}: ended with {done.returncode}, not by the limit of CPU seconds")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    seconds, gaps = [], []
    for row in rows:
        with np.load(Path(folder) / f"{solver}-{row['at']}.npz") as answer:
            W = row_sparse(answer["support"], answer["values"], problem.X.shape[1])
            proof = certify_multitask(problem, W, answer["intercepts"], row["alpha"])
        seconds.append(row["cpu_seconds"])
        gaps.append(proof.relative_gap)
    words = rows[-1]["words"] if rows else 0
    last = problem.alpha_max() / rows[-1]["alpha"] if rows else 1.0
    result = {"seconds": seconds, "gap": max(gaps, default=np.nan), "words": words, "down_to": last}
    ended = "done" if done.returncode == 0 else "stopped by the limit"
    print(solver, ended, f"{len(rows)} alphas", {k: v for k, v in result.items() if k != "seconds"},
          f"{sum(seconds):.2f} s", flush=True)  # fmt: skip
    return result


def _child(options: argparse.Namespace) -> None:
    """Solve one alpha after another, writing each answer before the next begins."""
    problem = _read(options, Path(options.folder))
    highest = problem.alpha_max()
    alphas = np.geomspace(highest, highest / options.ratio, options.alphas)
    warnings.simplefilter("ignore")
    if options.child == "tenfold":
        started = time.process_time()
        path = solve_multitask_path(_read(options, Path(options.folder)), alphas, tol=options.tol)
        shares = path.seconds / path.seconds.sum() * (time.process_time() - started)
        for at, alpha in enumerate(alphas):
            answer = (path.supports[at], path.values[at], path.intercepts[at])
            _keep(options, at, alpha, shares[at], answer)
        return
    from sklearn.linear_model import MultiTaskLasso

    # The limit is on CPU seconds, so that a busy machine ends nobody early.
    now = int(time.process_time())
    resource.setrlimit(resource.RLIMIT_CPU, (now + options.limit, now + options.limit + 5))
    Y = np.asfortranarray(problem.Y)
    model = MultiTaskLasso(
        fit_intercept=not options.no_intercept,
        tol=options.peer_tol,
        max_iter=100_000,
        warm_start=True,
    )
    for at, alpha in enumerate(alphas):
        started = time.process_time()
        model.set_params(alpha=alpha).fit(problem.X, Y)
        seconds = time.process_time() - started
        support = np.flatnonzero(model.coef_.any(axis=0))
        intercepts = np.broadcast_to(model.intercept_, problem.n_targets)
        _keep(options, at, alpha, seconds, (support, model.coef_[:, support].T, intercepts))


def _keep(
    options: argparse.Namespace, at: int, alpha: float, seconds: float, answer: tuple
) -> None:
    support, values, intercepts = answer
    file = Path(options.folder) / f"{options.child}-{at}.npz"
    np.savez(file, support=support, values=values, intercepts=intercepts)
    row = {"at": at, "alpha": float(alpha), "cpu_seconds": float(seconds), "words": len(support)}
    print(json.dumps(row), flush=True)
    print(options.child, row, file=sys.stderr, flush=True)


def _report(runs: dict[str, list[dict]]) -> None:
    reached = min(len(run["seconds"]) for several in runs.values() for run in several)
    print(f"\n| solver | alphas | CPU s, median of {len(runs['tenfold'])} | largest gap |")
    print("| --- | --- | --- | --- |")
    medians = {}
    for solver, several in runs.items():
        for count in sorted({reached, *(len(run["seconds"]) for run in several)}):
            times = [sum(run["seconds"][:count]) for run in several if len(run["seconds"]) >= count]
            middle = statistics.median(times)
            medians[solver, count] = middle
            gap = max(run["gap"] for run in several)
            print(f"| {solver} | {count} | {middle:.2f} | {gap:.1e} |")
    if reached:
        ratio = medians["scikit-learn", reached] / medians["tenfold", reached]
        print(f"\nscikit-learn / tenfold on the first {reached} alphas: {ratio:.0f} x")


if __name__ == "__main__":
    main()
