"""`tenfold bench lasso`: every solver on the same paths, at the same certified gap."""

import os
import platform
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from cluster.errors import InputError
from cluster.fingerprint import fingerprint
from cluster.storage import Store
from pipelines.bench.config import LassoBenchConfig, Work
from pipelines.bench.measure import Judge, Try, is_installed
from pipelines.bench.plot import time_against_gap
from pipelines.bench.problems import SavedProblem, save
from pipelines.bench.search import best_try, next_tol
from pipelines.bench.solvers import OWN, PEERS, Solver
from pipelines.bench.table import as_csv, as_markdown
from pipelines.news.fitting.solve import solver_code
from pipelines.news.prepare import say

_PACKAGES = ("numpy", "scipy", "scikit-learn", "celer", "skglm", "numba")


@dataclass(frozen=True)
class Row:
    """One solver on one work: what its loosest answer that meets the gap took.

    Attributes
    ----------
    status : str
        ``met``; or ``missed``, ``timed out``, ``failed`` with a ``reason``.
    cpu_seconds, wall_seconds, peak_gib : float or None
        Medians of ``runs`` runs; where the gap was not met, of the last try.
    ratio : float or None
        CPU seconds over those of the first engine; None where that has none to compare with.
    at_least : bool
        Whether a solve was ended early, so that its seconds and ratio are lower bounds.
    tries : list of Try, in the order made: the points of the plot
    """

    work: str
    solver: str
    status: str
    reason: str
    tol: float
    gap: float | None
    nonzeros: int | None
    cpu_seconds: float
    wall_seconds: float
    peak_gib: float | None
    runs: int
    ratio: float | None
    at_least: bool
    tries: list[Try]


def bench_lasso(config: LassoBenchConfig) -> dict[str, Any]:
    """Measure, write ``results.json``, ``table.md``, ``table.csv`` and ``plot.html``, return all.

    A solver that fails or runs out of time has its row like every other. Rows that an interrupted
    run of the same measurement left in ``results.json`` are taken over.
    """
    out = Store(config.out)
    rows: list[Row] = []
    Path(config.out).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=config.out, prefix="problem-") as folder:
        problem = save(config.problem, Path(folder))
        present, missing = _choose(config, problem.n_targets)
        for line in missing.values():
            say(line)
        judge = Judge(problem, config.timeout, config.threads)
        key = _key(config, problem)
        earlier = _earlier(out, key)
        for row in _measure(config, judge, present, earlier):
            rows.append(row)
            known = " (from an earlier run)" if (row.work, row.solver) in earlier else ""
            say(f"{row.work} · {row.solver}: {row.status} · {row.cpu_seconds:.3g} CPU s{known}")
            # Written after each row, so that an hour's work outlives an interruption.
            results = {"key": key, **_results(config, problem, rows, missing)}
            results["finished"] = len(rows) == len(present) * len(config.works)
            out.write_json("results.json", results)
            out.write_bytes("table.md", as_markdown(results).encode())
            out.write_bytes("table.csv", as_csv(results).encode())
            out.write_bytes("plot.html", time_against_gap(results).encode())
    return results


def _choose(config: LassoBenchConfig, n_targets: int) -> tuple[list[Solver], dict[str, str]]:
    """Return the solvers that can run, and a line for each that cannot."""
    names = () if config.peers == ("none",) else config.peers or tuple(PEERS)
    present, missing = [], {}
    for solver in (*(OWN[name] for name in config.engines), *(PEERS[name] for name in names)):
        if n_targets > 1 and solver.multitask is None:
            missing[solver.name] = f"{solver.name} has no multi-task Lasso on a sparse matrix"
        elif solver.name in config.pythons or is_installed(solver):
            present.append(solver)
        else:
            missing[solver.name] = f"{solver.name} is not installed: {solver.remedy}"
    if not present:
        raise InputError("--engines, --peers", "; ".join(missing.values()), fix="Pass newton.")
    return present, missing


def _key(config: LassoBenchConfig, problem: SavedProblem) -> str:
    """Fingerprint all that a row depends on, but for the solvers asked for."""
    return fingerprint(
        [config.tol, config.curve, config.runs, config.timeout, config.threads, config.pythons],
        [problem.title, problem.n_samples, problem.n_features, problem.nonzeros],
        np.asarray(problem.alpha_max),
        machine(),
    )


def _earlier(out: Store, key: str) -> dict[tuple[str, str], Row]:
    """Return the rows that an interrupted run of the same measurement left."""
    if not out.exists("results.json"):
        return {}
    left = out.read_json("results.json")
    if left.get("key") != key or left.get("finished", True):
        return {}
    rows = [Row(**{**row, "tries": [Try(**t) for t in row["tries"]]}) for row in left["rows"]]
    return {(row.work, row.solver): row for row in rows}


def _measure(
    config: LassoBenchConfig,
    judge: Judge,
    solvers: Sequence[Solver],
    earlier: Mapping[tuple[str, str], Row],
) -> Iterator[Row]:
    for work in config.works:
        yardstick: float | None = None
        for number, solver in enumerate(solvers):
            row = earlier.get((work.title, solver.name)) or _solver_row(config, judge, work, solver)
            if number == 0 and row.status == "met":
                yardstick = row.cpu_seconds
            if yardstick and (row.status == "met" or row.at_least):
                row = replace(row, ratio=row.cpu_seconds / yardstick)
            yield row


def _solver_row(config: LassoBenchConfig, judge: Judge, work: Work, solver: Solver) -> Row:
    alphas = work.alphas(judge.problem.alpha_max)
    python = config.pythons.get(solver.name)
    tries: list[Try] = []
    while True:
        tol = next_tol(
            tries,
            config.tol,
            stops_on_gap=solver.stops_on_gap,
            curve=config.curve,
            smallest_alpha=float(alphas[-1]),
        )
        if tol is None:
            break
        tries.append(judge.attempt(solver, alphas, tol, python))
        say(f"{work.title} · {solver.name}: {_describe(tries[-1])}")
    best = best_try(tries, config.tol, stops_on_gap=solver.stops_on_gap)
    if best is None:
        last = tries[-1]
        reason = last.reason or f"gap {last.gap:.1e} at its tightest"
        status = last.status if last.status != "solved" else "missed"
        return _row(work, solver, status, reason, last, [last], tries)
    runs = [best]
    for _ in range(config.runs - 1):
        runs.append(judge.attempt(solver, alphas, best.tol, python))
    solved = [run for run in runs if run.status == "solved"]
    reason = "" if len(solved) == len(runs) else f"{len(runs) - len(solved)} of the runs failed"
    worst = max(solved, key=lambda run: run.gap or 0.0)
    return _row(work, solver, "met", reason, worst, solved, tries)


def _row(
    work: Work,
    solver: Solver,
    status: str,
    reason: str,
    shown: Try,
    runs: Sequence[Try],
    tries: list[Try],
) -> Row:
    peaks = [run.peak_gib for run in runs if run.peak_gib is not None]
    return Row(
        work=work.title,
        solver=solver.name,
        status=status,
        reason=reason,
        tol=shown.tol,
        gap=shown.gap,
        nonzeros=shown.nonzeros,
        cpu_seconds=statistics.median(run.cpu_seconds for run in runs),
        wall_seconds=statistics.median(run.wall_seconds for run in runs),
        peak_gib=statistics.median(peaks) if peaks else None,
        runs=len(runs),
        ratio=None,
        at_least=shown.status == "timed out",
        tries=tries,
    )


def _describe(found: Try) -> str:
    took = f"{found.cpu_seconds:.3g} CPU s, {found.wall_seconds:.3g} s"
    if found.status != "solved":
        return f"tol {found.tol:.1e}: {found.status} ({found.reason}), {took}"
    return f"tol {found.tol:.1e}: gap {found.gap:.1e}, {found.nonzeros:,} words, {took}"


def _results(
    config: LassoBenchConfig, problem: SavedProblem, rows: Sequence[Row], missing: dict[str, str]
) -> dict[str, Any]:
    return {
        "problem": {
            "title": problem.title,
            "rows": problem.n_samples,
            "columns": problem.n_features,
            "nonzeros": problem.nonzeros,
            "targets": problem.n_targets,
            "alpha_max": problem.alpha_max,
        },
        "asked_gap": config.tol,
        "threads": config.threads,
        "machine": machine(),
        "missing": missing,
        "rows": [asdict(row) for row in rows],
        "out": config.out,
    }


def machine() -> dict[str, Any]:
    """Say what was measured, and on what."""
    versions: dict[str, str | None] = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {
        "system": platform.platform(terse=True),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "solver_code": solver_code(),
        "packages": versions,
    }
