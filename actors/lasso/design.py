"""What the batched engine asks of a design matrix: measures over all columns, and Gram matrices.

`HostDesign` answers in float64 with scipy, for devices that lack float64 or sparse products;
:mod:`actors.lasso.torch_design` answers on a CUDA device.
"""

# ruff: noqa: D102 - methods are documented where their protocol is defined

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from actors.lasso.backend import Backend
from actors.lasso.gram import GramCache
from actors.lasso.problem import FloatArray, IntArray, LassoProblem


@dataclass(frozen=True, eq=False)
class Measured:
    """The state of ``A`` alphas of one problem, in float64 over all columns.

    Attributes
    ----------
    gaps : ndarray (A,), relative
    residual2 : ndarray (A,), ``r' S r``
    score : ndarray (n_features,)
        Largest ``strength / (alpha n)`` over the alphas: above 1 a column is violated.
    gradients : callable
        Returns ``X' S r`` at some columns (A, k). Holds memory for each alpha and column: let go.
    """

    gaps: FloatArray
    residual2: FloatArray
    score: FloatArray
    gradients: Callable[[IntArray], FloatArray]


class Design(Protocol):
    """Problems over one matrix, numbered as they were given, each with a growing Gram matrix.

    Attributes
    ----------
    certifies : bool
        Whether what it measures was measured on the host.
    """

    certifies: bool

    def extend(self, problem: int, columns: IntArray) -> None:
        """Append new ``columns`` to the problem's Gram matrix, in this order."""

    def release(self, problem: int) -> None:
        """Forget the problem's Gram matrix."""

    def grams(self, problems: Sequence[int], size: int) -> Any:
        """Return the Gram matrices (P, size, size), padded with zeros, on the device."""

    def measure(
        self, problem: int, columns: IntArray, values: FloatArray, alphas: FloatArray
    ) -> Measured:
        """Measure coefficients ``values`` (A, k) of ``columns`` (k,) at ``alphas`` (A,)."""


class HostDesign:
    """scipy's sparse products in float64: what it measures is the certificate itself."""

    certifies = True

    def __init__(self, problems: Sequence[LassoProblem], backend: Backend) -> None:
        self._problems, self._backend = problems, backend
        self._caches: dict[int, GramCache] = {}

    def extend(self, problem: int, columns: IntArray) -> None:
        if problem not in self._caches:
            self._caches[problem] = GramCache(self._problems[problem])
        self._caches[problem].add(columns)

    def release(self, problem: int) -> None:
        self._caches.pop(problem, None)

    def grams(self, problems: Sequence[int], size: int) -> Any:
        padded = np.zeros((len(problems), size, size))
        for at, problem in enumerate(problems):
            matrix = self._caches[problem].matrix
            padded[at, : len(matrix), : len(matrix)] = matrix
        return self._backend.array(padded)

    def measure(
        self, problem: int, columns: IntArray, values: FloatArray, alphas: FloatArray
    ) -> Measured:
        return measure_on_host(self._problems[problem], columns, values, alphas)


def measure_on_host(
    problem: LassoProblem, columns: IntArray, values: FloatArray, alphas: FloatArray
) -> Measured:
    """Measure coefficients ``values`` (A, k) of ``columns`` (k,) at ``alphas`` (A,)."""
    used = np.flatnonzero(values.any(axis=0))
    used = used[np.argsort(columns[used])]
    residuals = np.empty((problem.y.size, alphas.size))
    for i, row in enumerate(values):
        residuals[:, i] = problem.residual(columns[used], row[used])
    weighted = residuals
    if problem.sample_weight is not None:
        weighted = problem.row_weights[:, None] * residuals
    correlations = np.asarray(problem.X.T @ weighted)
    gaps, residual2 = np.empty(alphas.size), np.empty(alphas.size)
    score = np.zeros(problem.X.shape[1])
    for i, alpha in enumerate(alphas):
        strength = problem.strength(np.ascontiguousarray(correlations[:, i]))
        residual = np.ascontiguousarray(residuals[:, i])
        largest = float(strength.max(initial=0.0))
        l1_norm = problem.l1_norm(columns[used], values[i, used])
        gaps[i] = problem.gap_from(residual, largest, l1_norm, float(alpha))
        residual2[i] = float(weighted[:, i] @ residual)
        np.maximum(score, strength / (alpha * problem.n), out=score)
    return Measured(gaps, residual2, score, lambda at: correlations[at].T.copy())
