"""Engines side by side on stocknet's n-grams: CPU seconds, memory, and the certified gap of each.

Run: ``python -m benchmarks.lasso_engines --data ../shared/data/stocknet --runs 3``

Every solver runs in a process of its own with one thread, on the same matrix (twins merged) and
target, and its answers are certified by one independent function in float64 over all columns.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from benchmarks.memory import peak_gib

THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
# engine, alpha_max / alpha of the alphas it solves; slow peers get fewer and easier ones.
CASES = (
    ("newton", "one", (5.0,)),
    ("celer", "one", (5.0,)),
    ("sklearn", "one", (5.0,)),
    ("newton", "three", (5.0, 10.0, 20.0)),
    ("celer", "three", (5.0, 10.0, 20.0)),
    ("newton", "path", tuple(np.geomspace(1.0, 30.0, 50))),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="../shared/data/stocknet")
    parser.add_argument("--target", default="volume_change")
    parser.add_argument("--tol", type=float, default=1e-6)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", help="also write the rows to this file")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--problem", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        print(json.dumps(_solve(options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        shape = _write_problem(options, Path(folder))
        print(f"{options.target}: {shape[0]:,} x {shape[1]:,}, {shape[2]:,} non-zeros")
        rows = [_median(options, folder, case) for case in range(len(CASES))]
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=2) + "\n")


def _median(options: argparse.Namespace, folder: str, case: int) -> dict:
    command = [sys.executable, "-m", "benchmarks.lasso_engines", "--problem", folder]
    command += ["--child", str(case), "--tol", str(options.tol)]
    outputs = [
        json.loads(
            subprocess.run(
                command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | THREADS
            ).stdout
        )
        for _ in range(options.runs)
    ]
    row = outputs[0] | {
        key: round(statistics.median(output[key] for output in outputs), 3)
        for key in ("cpu_seconds", "wall_seconds", "peak_gib")
    }
    print(row, flush=True)
    return row


def _write_problem(options: argparse.Namespace, folder: Path) -> tuple[int, int, int]:
    """Build the matrix by the stages of the news job, without Ray."""
    from cluster.meter import Meter
    from cluster.storage import Store
    from pipelines.news import vocabulary
    from pipelines.news.config import NewsConfig
    from pipelines.news.ingest import InputConfig
    from pipelines.news.matrix import stack_counts, weigh
    from pipelines.news.prepare import load, standardise
    from pipelines.news.targets import TargetConfig
    from pipelines.news.twins import find_twins

    data = Path(options.data)
    config = NewsConfig(
        input=InputConfig(news=str(data / "news.parquet"), prices=str(data / "prices.parquet")),
        target=TargetConfig(targets=(options.target,)),
    )
    loaded = load(config, Meter())
    texts, ngrams = loaded.observations.text, config.ngrams
    store = Store(folder / "work")
    (shard,) = vocabulary.write_texts(store, texts, len(texts))
    vocabulary.count_shard(shard, store, texts=store, config=ngrams)
    for number in range(shard.n_buckets):
        bucket = vocabulary.Bucket(number, shard.stop)
        vocabulary.merge_bucket(bucket, store, counted=store, config=ngrams, n_texts=len(texts))
    known = vocabulary.write_vocabulary(store, shard.n_buckets)
    files = vocabulary.assemble_shard(shard, store, counted=store, vocabulary=store, config=ngrams)[
        "files"
    ]
    counts = stack_counts((store.read_arrays(name) for name in files), known.num_rows)
    design = weigh(counts, weighting="tfidf", min_df=1, max_df=1.0, scaling="none")
    X = design.X[:, find_twins(design.X).kept]
    sp.save_npz(folder / "X.npz", X)
    np.save(folder / "y.npy", standardise(loaded.observations.Y)[0][:, 0])
    return (*X.shape, X.nnz)


def _solve(options: argparse.Namespace) -> dict:
    from actors.lasso.certificate import certify
    from actors.lasso.engines import make_engine
    from actors.lasso.problem import LassoProblem

    engine_name, work, ratios = CASES[options.child]
    folder = Path(options.problem)
    X, y = sp.csc_matrix(sp.load_npz(folder / "X.npz")), np.load(folder / "y.npy")
    problem = LassoProblem(X, y, np.isfinite(y))
    alphas = problem.alpha_max() / np.array(ratios)
    engine = make_engine(engine_name)
    started, cpu = time.perf_counter(), time.process_time()
    solution = engine.solve_path(problem, alphas, tol=options.tol)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - started
    gaps = [
        certify(problem, solution.coefs[:, [i]], solution.intercepts[i], alpha).relative_gap
        for i, alpha in enumerate(alphas)
    ]
    return {
        "engine": engine_name,
        "work": work,
        "alphas": len(alphas),
        "smallest": f"alpha_max/{max(ratios):g}",
        "cpu_seconds": cpu,
        "wall_seconds": wall,
        "peak_gib": peak_gib(),
        "largest_gap": float(f"{max(gaps):.2g}"),
        "words": int(solution.coefs[:, [-1]].nnz),
    }


if __name__ == "__main__":
    main()
