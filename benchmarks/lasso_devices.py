"""The grid folds x targets x alphas at once on a device, against newton on the same machine's CPU.

    python benchmarks/lasso_devices.py --device cuda --processes 16 --out devices.json
    python benchmarks/lasso_devices.py --device cpu --rows 4000 --columns 6000 --alphas 12

Both solve the same cells to the same certified gap; every answer is certified again, in float64,
by code that neither of them uses, and coefficients are compared. newton runs one path a process on
all cores; the device takes the whole grid in one call, after a small grid that loads its kernels.
The device's time is then split by what it did, and each part is set against a floor: the bytes that
it must move, or the operations that it must do, over what this device reached in a plain copy and a
plain matrix product of the same type.

Needs numpy, scipy, scikit-learn and torch alone; no Ray.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # newton: one path a process, one thread each
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import norm

from actors.lasso.certificate import certify
from actors.lasso.newton import NewtonEngine
from actors.lasso.problem import LassoProblem
from actors.lasso.solution import PathSolution
from actors.lasso.torch_engine import TorchEngine

_grid: dict[str, Any] = {}


def synthetic(rows: int, columns: int, targets: int, seed: int) -> tuple[sp.csc_matrix, np.ndarray]:
    """Word counts by Zipf's law with near-duplicate columns, and targets that some words move."""
    rng = np.random.default_rng(seed)
    base = columns // 2
    frequency = np.minimum(0.2, 1.0 / np.arange(1, base + 1) ** 0.9)
    counts = np.maximum(rng.binomial(rows, frequency), 3)
    indices = np.concatenate([rng.choice(rows, count, replace=False) for count in counts])
    indptr = np.concatenate(([0], np.cumsum(counts)))
    words = sp.csc_matrix((np.ones(indices.size), indices, indptr), shape=(rows, base))
    # A phrase stands where one of its words does, in most of the places.
    kept = rng.random(words.nnz) < 0.8
    phrases = sp.csc_matrix((words.data * kept, words.indices, words.indptr), shape=words.shape)
    phrases.eliminate_zeros()
    X = sp.csc_matrix(sp.hstack((words, phrases)))
    X = sp.csc_matrix(sp.diags(1.0 / np.sqrt(np.maximum(np.diff(X.tocsr().indptr), 1))) @ X)
    X.sort_indices()
    weights = rng.standard_normal((X.shape[1], targets)) * (rng.random((X.shape[1], 1)) < 0.02)
    norms = np.maximum(norm(X, axis=0), 1e-12)
    Y = X @ (weights / norms[:, None])  # rare words weigh as much as frequent ones
    Y += 2.0 * Y.std(axis=0) * rng.standard_normal(Y.shape)
    return X, (Y - Y.mean(axis=0)) / Y.std(axis=0)


def make_grid(arguments: argparse.Namespace) -> tuple[list[LassoProblem], list[np.ndarray]]:
    """Return the problems (all rows and each fold, for each target) and their alphas."""
    if arguments.matrix:
        X = sp.csc_matrix(sp.load_npz(arguments.matrix), dtype=np.float64)
        Y = np.load(arguments.target).reshape(X.shape[0], -1)
    else:
        X, Y = synthetic(arguments.rows, arguments.columns, arguments.targets, arguments.seed)
    fold = np.random.default_rng(arguments.seed).integers(0, arguments.folds, X.shape[0])
    problems, alphas = [], []
    for y in Y.T:
        y = np.ascontiguousarray(y)
        top = LassoProblem(X, y, np.isfinite(y)).alpha_max()
        grid = np.geomspace(top, top / arguments.ratio, arguments.alphas)
        for held_out in (*range(arguments.folds), -1):
            problems.append(LassoProblem(X, y, (fold != held_out) & np.isfinite(y)))
            alphas.append(grid)
    return problems, alphas


def newton_path(number: int) -> PathSolution:
    """Solve one path of the grid, in a process of its own."""
    problem, alphas = _grid["problems"][number], _grid["alphas"][number]
    return NewtonEngine().solve_path(problem, alphas, tol=_grid["tol"])


def time_newton(processes: int) -> tuple[list[PathSolution], float, float]:
    """Return solutions, wall seconds and solver seconds of newton, one path a process."""
    numbers = range(len(_grid["problems"]))
    with ProcessPoolExecutor(processes) as pool:
        list(pool.map(abs, range(processes)))  # the processes are there before the clock starts
        started = time.perf_counter()
        solutions = list(pool.map(newton_path, numbers))
        wall = time.perf_counter() - started
    return solutions, wall, sum(float(solution.seconds.sum()) for solution in solutions)


def synchronised(device: str) -> float:
    """Return the time once the device has done all it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()
    return time.perf_counter()


class Account:
    """Seconds and work of the device's parts, counted as they are called."""

    def __init__(self, device: str) -> None:
        self._device = device
        self.parts: dict[str, dict[str, float]] = {}

    def watch(
        self, owner: Any, name: str, part: str, work: Callable[..., tuple[float, float]]
    ) -> None:
        """Replace ``owner.name`` by itself with a clock around; ``work`` gives (bytes, flops)."""
        original = getattr(owner, name)

        def clocked(*args: Any, **kwargs: Any) -> Any:
            started = synchronised(self._device)
            result = original(*args, **kwargs)
            seconds = synchronised(self._device) - started
            moved, flops = work(*args)
            entry = self.parts.setdefault(
                part, dict.fromkeys(("calls", "seconds", "bytes", "flops"), 0.0)
            )
            for key, value in (
                ("calls", 1),
                ("seconds", seconds),
                ("bytes", moved),
                ("flops", flops),
            ):
                entry[key] += value
            return result

        setattr(owner, name, clocked)


def watch_parts(account: Account, itemsize: int) -> None:
    """Count the least that each part must move and compute."""
    from actors.lasso import batched, batched_newton, design, torch_design, torch_engine

    def measure(
        self: Any, problem: int, columns: Any, values: Any, alphas: Any
    ) -> tuple[float, float]:
        X, count = self._problems[problem].X, alphas.size
        # Two sparse products: the matrix once (value and index), its blocks read and written once.
        return 24.0 * X.nnz + 32.0 * count * sum(X.shape), 4.0 * X.nnz * count

    def measure_on_host(
        problem: Any, columns: Any, values: Any, alphas: Any
    ) -> tuple[float, float]:
        return 0.0, 2.0 * problem.X.nnz * alphas.size

    def gradients(self: Any, running: Any) -> tuple[float, float]:
        problems, k = self._problems, self._k
        cells = problems * running.reshape(problems, -1).sum(axis=1).max()
        return float(itemsize * k * (problems * k + 2 * cells)), 2.0 * cells * k * k

    def solve(self: Any, matrices: Any, right: Any) -> tuple[float, float]:
        cells, m = right.shape
        return float(itemsize * cells * m * m), cells * (m**3 / 3 + 2 * m * m)

    def step(self: Any, rows: Any, size: int, right: Any, signs: Any) -> tuple[float, float]:
        cells, lengths = len(rows), batched_newton.LENGTHS.size
        return 2.0 * itemsize * cells * size**2, 2.0 * lengths * cells * size**2

    def extend(self: Any, problem: int, columns: Any) -> tuple[float, float]:
        X = self._problems[problem].X
        k = self._columns[problem].size if hasattr(self, "_columns") else columns.size
        return 8.0 * (X.shape[0] * columns.size + k * columns.size), 0.0

    for kind in (design.HostDesign, torch_design.TorchDesign):
        account.watch(kind, "measure", "measure all columns", measure)
        account.watch(kind, "extend", "Gram matrices", extend)
    account.watch(batched, "measure_on_host", "certificate on the host", measure_on_host)
    account.watch(batched_newton._Batch, "_update_gradients", "gradients (batched GEMM)", gradients)
    account.watch(batched_newton._Batch, "_newton_step", "Newton steps, factors included", step)
    account.watch(torch_engine.TorchBackend, "solve", "of these: Cholesky and solves", solve)


def reached(device: str, dtype: torch.dtype) -> dict[str, float]:
    """Return bytes/s of a copy and flop/s of a matrix product on the device, the best of five."""
    size = 8192 if device == "cuda" else 1024
    a = torch.rand(size, size, dtype=dtype, device=device)
    big = torch.rand(
        (2**30 if device == "cuda" else 2**24) // a.element_size(), dtype=dtype, device=device
    )
    other = torch.empty_like(big)
    best = {"bytes": 0.0, "flops": 0.0}
    for _ in range(5):
        started = synchronised(device)
        other.copy_(big)
        best["bytes"] = max(best["bytes"], 2 * big.nbytes / (synchronised(device) - started))
        started = synchronised(device)
        _ = a @ a
        best["flops"] = max(best["flops"], 2.0 * size**3 / (synchronised(device) - started))
    return best


def audit(ours: list[PathSolution], theirs: list[PathSolution], threads: int) -> dict[str, float]:
    """Certify every answer of both, and compare coefficients on the scale of the largest."""
    worst = {"device": 0.0, "newton": 0.0}
    difference, supports, cells = 0.0, 0, 0
    for problem, one, other in zip(_grid["problems"], ours, theirs, strict=True):
        scale = float(np.abs(other.coefs).max())
        for i, alpha in enumerate(one.alphas):
            for name, answer in (("device", one), ("newton", other)):
                proof = certify(problem, answer.coefs[:, [i]], answer.intercepts[i], float(alpha))
                worst[name] = max(worst[name], proof.relative_gap)
            mine, yours = one.coefs[:, [i]], other.coefs[:, [i]]
            difference = max(difference, float(np.abs(mine - yours).max()) / max(scale, 1e-300))
            supports += int(set(mine.indices) == set(yours.indices))
            cells += 1
    return {
        "largest_gap_device": worst["device"],
        "largest_gap_newton": worst["newton"],
        "largest_coefficient_difference": difference,
        "cells": cells,
        "cells_with_equal_support": supports,
    }


def main() -> None:
    """Run the comparison and print it; write the figures as JSON on request."""
    arguments = parse()
    problems, alphas = make_grid(arguments)
    _grid.update(problems=problems, alphas=alphas, tol=arguments.tol)
    dtype = getattr(torch, arguments.dtype) if arguments.dtype else None
    budget = int(arguments.memory_gib * 2**30) if arguments.memory_gib else None
    # newton first: its processes are forked, which CUDA does not survive.
    theirs, newton_wall, newton_cpu = time_newton(arguments.processes)
    engine = TorchEngine(arguments.device, dtype, budget)
    dtype = engine._dtype
    small = [LassoProblem(problems[0].X, problems[0].y, problems[0].train)]
    engine.solve_grid(small, [alphas[0][:3]], tol=arguments.tol)
    seconds = []
    for _ in range(arguments.repeats):
        started = synchronised(arguments.device)
        ours = engine.solve_grid(fresh(problems), alphas, tol=arguments.tol)
        seconds.append(synchronised(arguments.device) - started)
    report = {
        "device": torch.cuda.get_device_name() if arguments.device == "cuda" else arguments.device,
        "torch": torch.__version__,
        "dtype": str(dtype).removeprefix("torch."),
        "rows, columns, non-zeros": [*problems[0].X.shape, int(problems[0].X.nnz)],
        "problems, alphas": [len(problems), int(alphas[0].size)],
        "tol": arguments.tol,
        "device_seconds": seconds,
        "newton_wall_seconds": newton_wall,
        "newton_solver_seconds": newton_cpu,
        "newton_processes": arguments.processes,
        "newton_over_device": newton_wall / float(np.median(seconds)),
        "largest_support": int(max(np.diff(solution.coefs.indptr).max() for solution in ours)),
        "reached": reached(arguments.device, dtype),
        **audit(ours, theirs, arguments.processes),
    }
    # Once more with a clock around each part: the clocks wait for the device, so the sum is longer.
    account = Account(arguments.device)
    watch_parts(account, dtype.itemsize)
    engine.solve_grid(fresh(problems), alphas, tol=arguments.tol)
    report["parts"] = account.parts
    if arguments.device == "cuda":
        report["peak_device_gib"] = torch.cuda.max_memory_allocated() / 2**30
    show(report)
    if arguments.out:
        Path(arguments.out).write_text(json.dumps(report, indent=1))


def fresh(problems: list[LassoProblem]) -> list[LassoProblem]:
    """Return the problems without what they have computed and kept."""
    return [LassoProblem(problem.X, problem.y, problem.train) for problem in problems]


def show(report: dict[str, Any]) -> None:
    """Print the figures, the parts with their distance to the floor."""
    best = report["reached"]
    for key, value in report.items():
        if key != "parts":
            print(f"{key:32} {value}")
    print(f"\n{'part':34}{'calls':>7}{'seconds':>9}{'floor s':>9}{'x floor':>9}  bound by")
    for name, part in report["parts"].items():
        moving, computing = part["bytes"] / best["bytes"], part["flops"] / best["flops"]
        floor, bound = max((moving, "bytes"), (computing, "flops"))
        ratio = part["seconds"] / floor if floor else float("nan")
        print(
            f"{name:34}{part['calls']:7.0f}{part['seconds']:9.3f}{floor:9.4f}{ratio:9.1f}  {bound}"
        )


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=("cuda", "mps", "cpu"))
    parser.add_argument("--dtype", choices=("float32", "float64"), help="default: by device")
    parser.add_argument("--memory-gib", type=float, help="budget on the device")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--matrix", help="X as scipy .npz; with --target, instead of a synthetic one"
    )
    parser.add_argument("--target", help="y or Y as .npy")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--columns", type=int, default=150_000)
    parser.add_argument("--targets", type=int, default=4)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--alphas", type=int, default=50)
    parser.add_argument("--ratio", type=float, default=30.0)
    parser.add_argument("--tol", type=float, default=1e-6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out")
    return parser.parse_args()


if __name__ == "__main__":
    main()
