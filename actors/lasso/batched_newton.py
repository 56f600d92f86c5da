"""Many small Lassos on Gram matrices at once, by projected Newton steps over masked active sets.

    minimise  v' G v / 2 - g' v + sum_j bound_j |v_j|      (v >= 0 on request)

for every cell (problem, alpha) of a batch; the cells of a problem share its ``G``. The step is that
of :mod:`actors.lasso.active_set`. Instead of a factor that is extended, all active submatrices of
about one size are gathered and factored together; instead of step lengths tried one after another,
all are tried in one product. The host learns the sizes and gaps once a step.

What is unknown is the change ``d`` from a start ``v0``, around gradients that were measured in
float64 at ``v0``. They are handed over less and plus ``bound``, rounded only then: near the optimum
that difference is the whole matter, and in float32 it keeps all its digits. Each call so refines
the last one, and float32 limits the number of rounds, not the accuracy.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from actors.lasso.backend import Backend
from actors.lasso.problem import BoolArray, FloatArray, IntArray

MAX_STEPS = 200
# A cell whose gap does not halve in so many moves is left to the next round's measure.
PATIENCE = 10
# Step lengths that are tried at once, none below the first zero crossing; 0 stands for that.
LENGTHS = np.append(0.5 ** np.array([0, 1, 2, 3, 5, 8, 12, 16]), 0.0)
# Factored together are active sets down to this share of the largest; short ones cost nothing.
SIMILAR, SHORT = 0.75, 32
# A submatrix is there four times: gathered, masked, with its ridge, factored.
COPIES = 4
RIDGE_GROWTH = 100.0
MAX_RIDGE = 1e-2


@dataclass(frozen=True, eq=False)
class Cells:
    """A batch of inner problems; ``P`` problems of ``A`` alphas each, ``k`` columns, on the host.

    Problems of fewer columns or alphas are padded: with zeros in the Gram matrix, and with
    ``upper = -1``, ``lower = bound = 1`` where nothing may move.

    Attributes
    ----------
    start : ndarray (P, A, k), ``v0``
    upper, lower : ndarray (P, A, k)
        Gradient ``g - G v0`` less and plus ``bound``.
    bound : ndarray (P, A, k), positive
    residual2 : ndarray (P, A), squared norm of the residual at the start
    stop_gap : ndarray (P, A), duality gap, times n, at which to stop
    positive : ndarray (P,), bool
    """

    start: FloatArray
    upper: FloatArray
    lower: FloatArray
    bound: FloatArray
    residual2: FloatArray
    stop_gap: FloatArray
    positive: BoolArray


def minimise_cells(
    backend: Backend, gram: Any, cells: Cells, *, budget_bytes: int
) -> tuple[FloatArray, IntArray]:
    """Return the minimisers (P, A, k) in float64 and the Newton steps of each cell (P, A).

    Parameters
    ----------
    gram : array of the backend (P, k, k)
    budget_bytes : int
        Bounds the memory of the submatrices that are factored together.
    """
    return _Batch(backend, gram, cells, budget_bytes).run()


class _Batch:
    """State of one call, cells in rows (P A, k)."""

    def __init__(self, backend: Backend, gram: Any, cells: Cells, budget_bytes: int) -> None:
        self._backend, self._gram, self._cells = backend, gram, cells
        self._budget = budget_bytes
        self._problems, self._alphas, self._k = cells.start.shape
        rows = self._problems * self._alphas

        def flat(values: FloatArray) -> Any:
            return backend.array(values.reshape(rows, *values.shape[2:]))

        self._start, self._bound = flat(cells.start), flat(cells.bound)
        self._upper, self._lower = flat(cells.upper), flat(cells.lower)
        # The same at the current point.
        self._up, self._low = flat(cells.upper), flat(cells.lower)
        self._residual2 = flat(cells.residual2)
        of_problem = np.repeat(np.arange(self._problems), self._alphas)
        self._problem = backend.index(of_problem)
        self._positive = backend.index(cells.positive[of_problem][:, None])
        self._ridge = backend.array(np.full((rows, 1), backend.ridge))
        self._v, self._d = flat(cells.start), flat(np.zeros_like(cells.start))
        # Cells whose point has not moved keep an active set from which coordinates were dropped.
        self._moved = backend.index(np.ones(rows, dtype=bool))
        self._stuck = backend.index(np.zeros(rows, dtype=bool))
        self._active: Any = None

    def run(self) -> tuple[FloatArray, IntArray]:
        stop_gap = self._cells.stop_gap.ravel()
        steps = np.zeros(stop_gap.size, dtype=np.int64)
        best, patience = np.full(stop_gap.size, np.inf), np.full(stop_gap.size, PATIENCE)
        host = self._backend.host
        for _ in range(MAX_STEPS):
            gaps = host(self._gaps())
            nearer, moved = gaps <= 0.5 * best, host(self._moved)
            best = np.where(nearer, gaps, best)
            patience = np.where(nearer, PATIENCE, patience - moved)
            signs = self._choose_active()
            sizes = host(self._backend.xp.sum(self._active, -1)).astype(np.int64)
            running = (gaps > stop_gap) & (patience > 0) & ~host(self._stuck) & (sizes > 0)
            if not running.any():
                break
            steps[running] += 1
            right = self._backend.xp.where(signs > 0, self._up, self._low)
            for rows, size in _groups(sizes, running, self._budget // (COPIES * self._itemsize)):
                self._newton_step(self._backend.index(rows), size, right, signs)
            self._update_gradients(running)
        return self._answer(), steps.reshape(self._problems, self._alphas)

    @property
    def _itemsize(self) -> int:
        return self._backend.itemsize

    def _answer(self) -> FloatArray:
        host = self._backend.host
        shape = self._cells.start.shape
        v = np.where(host(self._v).reshape(shape) != 0,
                     self._cells.start + host(self._d).reshape(shape), 0.0)  # fmt: skip
        return np.where(self._cells.positive[:, None, None], np.maximum(v, 0.0), v)

    def _update_gradients(self, running: BoolArray) -> None:
        """Measure the gradients at the points of the running rows, by one product a problem.

        Each problem takes as many rows as the one that has most of them running.
        """
        table = running.reshape(self._problems, self._alphas)
        count = int(table.sum(axis=1).max())
        chosen = np.argsort(~table, axis=1, kind="stable")[:, :count]
        offsets = self._alphas * np.arange(self._problems)[:, None]
        rows = self._backend.index((chosen + offsets).ravel())
        change = self._d[rows].reshape(self._problems, count, self._k) @ self._gram
        change = change.reshape(-1, self._k)
        self._up[rows] = self._upper[rows] - change
        self._low[rows] = self._lower[rows] - change

    def _gaps(self) -> Any:
        """Return n times the duality gap of each cell, in terms that do not cancel.

        With the dual point scaled by ``t = 1 / (1 + e)``, a non-zero coordinate contributes
        ``|v| (bound - t s gradient)``, where ``s gradient = bound + s r`` and ``r`` is ``upper`` or
        ``lower`` by its sign ``s``.
        """
        xp, largest = self._backend.xp, self._backend.largest
        upper, lower = self._up, self._low
        below = xp.where(self._positive, -self._bound, -lower)
        excess = largest(xp.where(upper > below, upper, below) / self._bound)
        excess = xp.where(excess > 0, excess, 0.0)
        short = excess / (1.0 + excess)
        moved = self._upper + self._lower + upper + lower
        residual2 = self._residual2 - 0.5 * xp.sum(self._d * moved, -1)
        residual2 = xp.where(residual2 > 0, residual2, 0.0)
        outward = xp.where(self._v > 0, upper, -lower)
        slack = short[:, None] * (self._bound + outward) - outward
        return 0.5 * residual2 * short**2 + xp.sum(xp.abs(self._v) * slack, -1)

    def _choose_active(self) -> Any:
        """Return the signs of the orthant; take violators in where the point has moved."""
        xp = self._backend.xp
        falls = (self._low < 0) & ~self._positive
        signs = xp.where(self._up > 0, 1.0, xp.where(falls, -1.0, 0.0))
        signs = xp.where(self._v != 0, xp.sign(self._v), signs)
        active = signs != 0
        if self._active is not None:
            active = active & (self._moved[:, None] | self._active)
        self._active = active
        return signs

    def _newton_step(self, rows: Any, size: int, right: Any, signs: Any) -> None:
        """Solve on the active sets of ``rows``, all of ``size`` or fewer; drop or move."""
        backend, xp = self._backend, self._backend.xp
        active = self._active[rows]
        at = backend.first(active, size)
        valid = backend.take(active, at)
        matrix = self._gram[self._problem[rows][:, None, None], at[:, :, None], at[:, None, :]]
        matrix = xp.where(valid[:, :, None] & valid[:, None, :], matrix, 0.0)
        one = backend.index(np.eye(size, dtype=bool))
        diagonal = xp.sum(xp.where(one, matrix, 0.0), -1)
        lift = xp.where(valid, self._ridge[rows] * diagonal, 1.0)
        right = xp.where(valid, backend.take(right[rows], at), 0.0)
        direction, definite = backend.solve(matrix + xp.where(one, lift[:, :, None], 0.0), right)
        direction = xp.where(valid & definite[:, None], direction, 0.0)
        v, signs = backend.take(self._v[rows], at), backend.take(signs[rows], at)
        astray = valid & (v == 0) & (direction * signs < 0)
        dropping = xp.any(astray, -1)
        step, descent = self._best_step(matrix, right, v, signs, direction)
        move = definite & ~dropping & (descent < 0)
        step = xp.where(move[:, None], step, 0.0)
        d, start = backend.take(self._d[rows], at), backend.take(self._start[rows], at)
        to_zero = v + step == 0
        d = xp.where(to_zero, -start, d + step)
        self._d[rows] = backend.put(self._d[rows], at, d)
        self._v[rows] = backend.put(self._v[rows], at, v + step)
        self._active[rows] = backend.put(active, at, valid & ~astray)
        self._moved[rows] = move
        ridge = self._ridge[rows]
        self._ridge[rows] = xp.where(definite[:, None], ridge, RIDGE_GROWTH * ridge)
        hopeless = self._ridge[rows][:, 0] > MAX_RIDGE
        self._stuck[rows] = (definite & ~dropping & ~move) | hopeless

    def _best_step(
        self, matrix: Any, right: Any, v: Any, signs: Any, direction: Any
    ) -> tuple[Any, Any]:
        """Return the step of the lowest objective, projected on the orthant, and its descent.

        Up to the first zero crossing nothing is projected, so that length is sure to descend.
        """
        backend, xp = self._backend, self._backend.xp
        far = 2.0
        falls = v * direction < 0
        crossing = xp.where(falls, -v / xp.where(falls, direction, 1.0), far)
        first = -backend.largest(-crossing)
        first = xp.where(first < 1.0, first, 1.0)[:, None]
        lengths = backend.array(LENGTHS)[None, :] + 0.0 * first
        lengths = xp.where(lengths > first, lengths, first)[:, :, None]
        steps = lengths * direction[:, None, :]
        outside = xp.sign(v[:, None, :] + steps) != signs[:, None, :]
        steps = xp.where(outside | (crossing[:, None, :] <= lengths), -v[:, None, :], steps)
        change = xp.sum(steps * (0.5 * (steps @ matrix) - right[:, None, :]), -1)
        best = backend.smallest_at(change)
        everyone = backend.index(np.arange(len(v)))
        return steps[everyone, best], change[everyone, best]


def _groups(sizes: IntArray, running: BoolArray, limit: int) -> Iterator[tuple[IntArray, int]]:
    """Cut the running rows into groups of similar size, largest first; yield rows and size.

    A group of ``c`` rows has ``c size^2 <= limit``, unless it is a single row.
    """
    rows = np.flatnonzero(running)
    rows = rows[np.argsort(-sizes[rows], kind="stable")]
    while rows.size:
        size = int(sizes[rows[0]])
        smallest = SIMILAR * size if size > SHORT else 0
        count = int(np.count_nonzero(sizes[rows] >= smallest))
        count = max(1, min(count, limit // size**2))
        yield np.sort(rows[:count]), size
        rows = rows[count:]
