"""A matrix larger than any actor's memory: column actors against one machine that holds it all.

Run: ``python -m benchmarks.column_shards --columns 300000 --budget-mib 128 --actors 4``

Columns are made and written block by block. The columns of an actor may take ``--budget-mib``; the
matrix takes more. What each actor was seen to take is printed. The one-machine answer is computed
last, in this process, and the actors' answer is certified over all columns.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp

from pipelines.bench.memory import peak_gib

BLOCK = 10_000
PLANTED = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--columns", type=int, default=300_000)
    parser.add_argument("--actors", type=int, default=4)
    parser.add_argument("--budget-mib", type=int, default=128)
    parser.add_argument("--ratio", type=float, default=5.0)
    parser.add_argument("--alphas", type=int, default=10)
    parser.add_argument("--tol", type=float, default=1e-8)
    options = parser.parse_args()
    print(json.dumps(measure(options), indent=2))


def measure(options: argparse.Namespace) -> dict:
    from actors.lasso.column_blocks import write_blocks
    from actors.lasso.column_shards import Target, alpha_maxima, solve_columns
    from actors.lasso.sharded.actor import column_actors
    from cluster.connect import ClusterConfig, connect
    from cluster.storage import Store

    y = response(options)
    budget = options.budget_mib << 20
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        write_blocks(store, blocks(options))
        with connect(ClusterConfig(dashboard=False, object_store_gib=0.5)) as cluster:
            since = time.perf_counter()
            with column_actors(cluster, store, options.actors, budget) as shards:
                (highest,) = alpha_maxima(shards, [Target(y)])
                alphas = np.geomspace(highest, highest / options.ratio, options.alphas)
                (sharded,) = solve_columns(shards, [Target(y)], [alphas], tol=options.tol)
                used = [round(size / 2**20, 1) for size in shards.used_bytes()]
            seconds = time.perf_counter() - since
    return {
        "seconds": round(seconds, 1),
        "driver_peak_gib": round(peak_gib(), 2),
        "used_mib_by_actor": used,
        **_against_one_machine(options, y, sharded, budget),
    }


def _against_one_machine(options: argparse.Namespace, y: np.ndarray, sharded, budget: int) -> dict:  # noqa: ANN001
    from actors.lasso.certificate import certify
    from actors.lasso.newton import NewtonEngine
    from actors.lasso.problem import LassoProblem

    X = sp.hstack(list(blocks(options)), format="csc")
    problem = LassoProblem(X, y)
    whole = NewtonEngine().solve_path(problem, sharded.alphas, tol=options.tol)
    gaps = [
        certify(problem, sharded.coefs[:, [k]], sharded.intercepts[k], alpha).relative_gap
        for k, alpha in enumerate(sharded.alphas)
    ]
    largest = abs(whole.coefs).max()
    size = X.data.nbytes + X.indices.nbytes + X.indptr.nbytes
    return {
        "matrix": f"{X.shape[0]:,} x {X.shape[1]:,}, {X.nnz:,} non-zeros",
        "matrix_mib": round(size / 2**20, 1),
        "budget_mib_an_actor": budget >> 20,
        "actors": options.actors,
        "words": np.diff(sharded.coefs.indptr).tolist(),
        "largest_certified_gap": max(gaps),
        "same_words": bool(((sharded.coefs != 0) != (whole.coefs != 0)).nnz == 0),
        "largest_difference": float(abs(sharded.coefs - whole.coefs).max() / largest),
    }


def blocks(options: argparse.Namespace) -> Iterator[sp.csc_matrix]:
    """Make the columns block by block: sparse rows of heavy-tailed document frequencies."""
    for number, first in enumerate(range(0, options.columns, BLOCK)):
        rng = np.random.default_rng([1, number])
        p = min(BLOCK, options.columns - first)
        df = np.minimum(3 + (30 * rng.pareto(1.2, p)).astype(int), options.rows // 10)
        indptr = np.concatenate(([0], np.cumsum(df)))
        rows = rng.integers(0, options.rows, indptr[-1])
        values = rng.uniform(0.05, 0.3, indptr[-1])
        X = sp.csc_matrix(
            (values, rows.astype(np.int32), indptr.astype(np.int32)), (options.rows, p)
        )
        X.sum_duplicates()
        yield X


def response(options: argparse.Namespace) -> np.ndarray:
    """Return what the heaviest columns of the first block explain, with noise."""
    X = next(blocks(options))
    heavy = np.argsort(np.diff(X.indptr))[-PLANTED:]
    rng = np.random.default_rng(0)
    signal = X[:, heavy] @ rng.standard_normal(PLANTED)
    return np.asarray(signal + signal.std() * rng.standard_normal(options.rows))


if __name__ == "__main__":
    main()
