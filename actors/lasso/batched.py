"""A grid of Lassos solved at once: working sets around batched Newton steps, on any backend.

All alphas of a problem share one working set and one Gram matrix; all problems (folds, targets) of
a round are one batch. A round measures every open cell in float64 over all columns, takes in the
columns that violate optimality most, and lets :mod:`actors.lasso.batched_newton` find the
correction on the device, in the device's own precision. A cell is finished when its float64 gap on
the host is within ``tol``: a device that rounds more needs more rounds, not a looser promise.
"""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import scipy.sparse as sp

from actors.lasso.backend import Backend
from actors.lasso.batched_newton import Cells, minimise_cells
from actors.lasso.cells import Path
from actors.lasso.design import Design, HostDesign, measure_on_host
from actors.lasso.problem import FloatArray, IntArray, LassoProblem
from actors.lasso.solution import PathRecorder, PathSolution

MAX_ROUNDS = 40
# The inner problem stops below the outer tolerance, so that its error does not cost a round.
INNER_SHARE = 0.3
# Shares of the memory budget: alphas measured at once, Gram matrices, submatrices factored at once.
MEASURE_SHARE, GRAM_SHARE, FACTOR_SHARE = 0.25, 0.25, 0.25

ADVICE = "Use the newton engine, loosen tol, or raise the smallest alpha."


class BatchedEngine:
    """The batched engine on one backend; see :class:`actors.lasso.solution.GridEngine`.

    Parameters
    ----------
    name : str
    backend : Backend
    budget_bytes : int
        Memory that the solver plans with. The answers depend on it in their last bits.
    threads : int
        Of the certificate on the host, where the device's own measure is no certificate.
    """

    def __init__(
        self, name: str, backend: Backend, budget_bytes: int = 2**30, threads: int = 1
    ) -> None:
        self.name = name
        self._backend, self._budget, self._threads = backend, budget_bytes, threads

    def solve_path(
        self,
        problem: LassoProblem,
        alphas: Sequence[float] | FloatArray,
        *,
        tol: float = 1e-6,
        start: sp.csc_matrix | None = None,
    ) -> PathSolution:
        """Solve a grid of one problem."""
        return self.solve_grid([problem], [np.asarray(alphas)], tol=tol, starts=[start])[0]

    def solve_grid(
        self,
        problems: Sequence[LassoProblem],
        alphas: Sequence[FloatArray],
        *,
        tol: float = 1e-6,
        starts: Sequence[sp.csc_matrix | None] | None = None,
    ) -> list[PathSolution]:
        """Solve ``alphas[i]``, decreasing, of ``problems[i]``, as one batch.

        Alphas are taken in blocks that fit the memory, the larger ones first; a block starts from
        the last answer of the block before. The seconds of a round are shared by its open cells.

        Raises
        ------
        ValueError
            When the problems are not over one design matrix.
        """
        if any(problem.X is not problems[0].X for problem in problems):
            raise ValueError("problems: expected one design matrix X, got several")
        starts = [None] * len(problems) if starts is None else starts
        paths = [
            Path(problem, grid, PathRecorder(self.name, problem, tol, ADVICE), start)
            for problem, grid, start in zip(problems, alphas, starts, strict=True)
        ]
        design = self._design(problems)
        longest = max((path.alphas.size for path in paths), default=0)
        # Residuals and correlations of an alpha, each of them plain and weighted or copied.
        column_bytes = 16 * sum(problems[0].X.shape) if problems else 1
        block = max(1, int(MEASURE_SHARE * self._budget / column_bytes))
        for first in range(0, longest, block):
            for path in paths:
                path.open(slice(first, first + block))
            _Rounds(self._backend, design, paths, tol, self._budget, self._threads).run()
            for path in paths:
                path.close()
        return [path.recorder.finish() for path in paths]

    def _design(self, problems: Sequence[LassoProblem]) -> Design:
        return HostDesign(problems, self._backend)


class _Rounds:
    """The rounds of one block of alphas."""

    def __init__(
        self,
        backend: Backend,
        design: Design,
        paths: Sequence[Path],
        tol: float,
        budget_bytes: int,
        threads: int,
    ) -> None:
        self._backend, self._design, self._paths = backend, design, paths
        self._tol, self._budget, self._threads = tol, budget_bytes, threads
        self._held: set[int] = set()

    def run(self) -> None:
        waiting = list(range(len(self._paths)))
        while waiting:
            started = time.perf_counter()
            in_flight = self._fitting(waiting)
            cells = [(self._paths[at], self._paths[at].open_cells) for at in in_flight]
            unsolved = [at for at in in_flight if self._measure(at)]
            for batch in self._batches(unsolved):
                self._correct(batch)
            share = (time.perf_counter() - started) / max(1, sum(c.size for _, c in cells))
            for path, numbers in cells:
                path.seconds[numbers] += share
            waiting = [at for at in waiting if at in unsolved or at not in in_flight]
        for at in tuple(self._held):
            self._release(at)

    def _fitting(self, waiting: Sequence[int]) -> list[int]:
        """Return the first problems whose Gram matrices fit their share of memory together.

        The others wait until these are solved; what they had is built again then.
        """
        room = GRAM_SHARE * self._budget / 8
        fitting: list[int] = []
        for at in waiting:
            room -= (self._paths[at].columns.size + self._paths[at].growth) ** 2
            if fitting and room < 0:
                self._release(at)
            else:
                fitting.append(at)
        return fitting

    def _release(self, at: int) -> None:
        self._design.release(at)
        self._held.discard(at)

    def _measure(self, at: int) -> bool:
        """Measure the open cells of a problem and extend its working set; False when all end."""
        path, design = self._paths[at], self._design
        cells = path.open_cells
        measured = design.measure(at, path.columns, path.values[cells], path.block[cells])
        gaps = measured.gaps.copy()
        near = np.flatnonzero(gaps <= self._tol)
        if near.size and not design.certifies:
            gaps[near] = self._certified(path, cells[near])
        path.rounds += 1
        stays = path.judge(gaps, self._tol, last=path.rounds > MAX_ROUNDS)
        if not stays.any():
            self._release(at)
            return False
        new = path.extend(measured.score)
        design.extend(at, new if at in self._held else path.columns)
        self._held.add(at)
        path.gradients = measured.gradients(path.columns)[stays]
        path.residual2 = measured.residual2[stays]
        return True

    def _certified(self, path: Path, cells: IntArray) -> FloatArray:
        """Return the gaps of some cells, measured on the host."""

        def measure(part: IntArray) -> FloatArray:
            values, alphas = path.values[part], path.block[part]
            return measure_on_host(path.problem, path.columns, values, alphas).gaps

        # scipy's sparse products let other threads run.
        with ThreadPoolExecutor(self._threads) as pool:
            parts = np.array_split(cells, min(self._threads, cells.size))
            return np.concatenate(list(pool.map(measure, parts)))

    def _batches(self, problems: Sequence[int]) -> list[list[int]]:
        """Cut the problems into batches whose padded Gram matrices fit their share of memory."""
        limit = GRAM_SHARE * self._budget / self._backend.itemsize
        batches: list[list[int]] = []
        largest = 0
        for at in problems:
            size = self._paths[at].columns.size
            largest = max(largest, size)
            if batches and (len(batches[-1]) + 1) * largest**2 <= limit:
                batches[-1].append(at)
            else:
                batches.append([at])
                largest = size
        return batches

    def _correct(self, batch: Sequence[int]) -> None:
        """Let the device minimise over the working sets of a batch of problems."""
        paths = [self._paths[at] for at in batch]
        size = max(path.columns.size for path in paths)
        shape = (len(paths), max(path.open_cells.size for path in paths))
        cells = Cells(
            start=np.zeros((*shape, size)),
            upper=np.full((*shape, size), -1.0),
            lower=np.ones((*shape, size)),
            bound=np.ones((*shape, size)),
            residual2=np.zeros(shape),
            stop_gap=np.full(shape, np.inf),
            positive=np.array([path.problem.positive for path in paths]),
        )
        for at, path in enumerate(paths):
            problem, numbers = path.problem, path.open_cells
            part = (at, slice(numbers.size), slice(path.columns.size))
            bound = np.outer(path.block[numbers] * problem.n, path.penalties)
            cells.start[part] = path.values[numbers]
            cells.bound[part] = bound
            cells.upper[part] = path.gradients - bound
            cells.lower[part] = path.gradients + bound
            cells.residual2[part[:2]] = path.residual2
            cells.stop_gap[part[:2]] = INNER_SHARE * self._tol * problem.y_norm2
        gram = self._design.grams(batch, size)
        budget = int(FACTOR_SHARE * self._budget)
        values, steps = minimise_cells(self._backend, gram, cells, budget_bytes=budget)
        for at, path in enumerate(paths):
            numbers = path.open_cells
            path.values[numbers] = values[at, : numbers.size, : path.columns.size]
            path.steps[numbers] += steps[at, : numbers.size]
