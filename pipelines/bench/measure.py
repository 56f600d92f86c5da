"""Run one solver once on a saved problem, in a process of its own, and certify what it answers."""

import importlib.util
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

import pipelines
from actors.lasso.certificate import certify
from actors.lasso.multitask_certificate import certify_multitask
from actors.lasso.multitask_problem import MultiTaskProblem
from actors.lasso.problem import LassoProblem
from pipelines.bench.problems import SavedProblem, stated
from pipelines.bench.saved import load_answers, load_problem
from pipelines.bench.solvers import Solver

FloatArray = npt.NDArray[np.float64]

ROOT = str(Path(pipelines.__path__[0]).parent)
# A process that takes neither an answer nor its processor time to the end hangs: imports,
# compilation and reading have this much wall time, and a machine that is shared so much patience.
SETUP_S, PATIENCE = 600.0, 20.0
_THREAD_LIMITS = (
    *(f"{name}_NUM_THREADS" for name in ("OMP", "OPENBLAS", "MKL", "BLIS", "NUMBA")),
    "VECLIB_MAXIMUM_THREADS",
)


@dataclass(frozen=True)
class Try:
    """What one solve reached at one tol.

    Attributes
    ----------
    tol : float, the solver's own
    status : str
        ``solved``, ``timed out`` or ``failed``.
    reason : str
        Of a failure.
    cpu_seconds, wall_seconds : float
        Of the solve alone; of one that was ended, what it had taken until then.
    peak_gib : float or None
        Resident memory at its highest during the solve, the problem itself included.
    gap : float or None
        The largest relative gap of its answers, by our checker.
    nonzeros : int or None
        At the last alpha; of several targets, the rows of coefficients that are not zero.
    """

    tol: float
    status: str
    cpu_seconds: float
    wall_seconds: float
    reason: str = ""
    peak_gib: float | None = None
    gap: float | None = None
    nonzeros: int | None = None


@dataclass(frozen=True)
class Judge:
    """Runs solvers on one problem and certifies their answers in float64."""

    problem: SavedProblem
    timeout_s: float
    threads: int = 1

    @cached_property
    def exact(self) -> LassoProblem | MultiTaskProblem:
        """The problem as the checker sees it."""
        return stated(*load_problem(self.problem.folder))

    def attempt(
        self, solver: Solver, alphas: FloatArray, tol: float, python: str | None = None
    ) -> Try:
        """Solve once and certify every answer."""
        found = self.solve(solver, alphas, tol, python)
        if found.status != "solved":
            return found
        return self.certified(found, alphas)

    def solve(
        self, solver: Solver, alphas: FloatArray, tol: float, python: str | None = None
    ) -> Try:
        """Solve once; the answers are left in `answers`, not certified."""
        self.answers.unlink(missing_ok=True)
        started = time.perf_counter()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command, environment = process(
            "child",
            {
                "solver": solver.name,
                "problem": str(self.problem.folder),
                "answers": str(self.answers),
                "alphas": [float(alpha) for alpha in alphas],
                "tol": tol,
                "timeout": self.timeout_s * self.threads,
            },
            threads=self.threads,
            python=python,
        )
        try:
            done = subprocess.run(
                command,
                env=environment,
                capture_output=True,
                text=True,
                timeout=PATIENCE * self.timeout_s + SETUP_S,
            )
        except subprocess.TimeoutExpired:
            return Try(tol, "failed", 0.0, 0.0, reason="hangs: its processor stands idle")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        facts: dict[str, Any] = {key: value for line in lines for key, value in line.items()}
        if done.returncode == 0:
            facts.pop("cpu_before")
            return Try(tol, "solved", **facts)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        spent = max(spent - facts.get("cpu_before", spent), 0.0)
        if done.returncode == -signal.SIGPROF:
            wall = time.perf_counter() - started
            reason = f"no answer after {self.timeout_s:g} CPU s"
            return Try(tol, "timed out", spent, wall, reason=reason)
        return Try(tol, "failed", spent, 0.0, reason=_last_words(done))

    @property
    def answers(self) -> Path:
        """File of the last solve's answers."""
        return self.problem.folder / "answers.npz"

    def certified(self, found: Try, alphas: Sequence[float] | FloatArray) -> Try:
        """Return ``found`` with the largest gap of the answers that it left."""
        coefs, intercepts = load_answers(self.answers)
        each = coefs.shape[1] // len(alphas)
        parts = [coefs[:, i * each : (i + 1) * each] for i in range(len(alphas))]
        gaps = [
            _relative_gap(self.exact, part, intercept, float(alpha))
            for part, intercept, alpha in zip(parts, intercepts, alphas, strict=True)
        ]
        if not np.isfinite(gaps).all():
            return replace(found, status="failed", reason="its answers are not finite")
        # An answer at the optimum can fall below zero by rounding.
        return replace(found, gap=float(max(0.0, *gaps)), nonzeros=_words(parts[-1]))


def _relative_gap(
    problem: LassoProblem | MultiTaskProblem, coef: sp.csc_matrix, intercept: Any, alpha: float
) -> float:
    if isinstance(problem, MultiTaskProblem):
        return certify_multitask(problem, coef, intercept, alpha).relative_gap
    return certify(problem, coef, float(intercept), alpha).relative_gap


def _words(coef: sp.csc_matrix) -> int:
    """Count the columns of the design with a weight for any target."""
    return int(np.unique(coef.indices[coef.data != 0]).size)


def is_installed(solver: Solver) -> bool:
    """Whether this interpreter has what the solver needs."""
    return solver.package is None or importlib.util.find_spec(solver.package) is not None


def process(
    module: str, order: dict[str, Any], *, threads: int, python: str | None = None
) -> tuple[list[str], dict[str, str]]:
    """Return command and environment of a process of this package's ``module``."""
    limits = dict.fromkeys(_THREAD_LIMITS, str(threads))
    environment = os.environ | limits | {"PYTHONPATH": ROOT}
    command = [python or sys.executable, "-m", f"pipelines.bench.{module}", json.dumps(order)]
    return command, environment


def _last_words(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    if done.returncode < 0:
        return f"ended by {signal.Signals(-done.returncode).name}: memory may have run out"
    return lines[-1] if lines else f"exit code {done.returncode}"
