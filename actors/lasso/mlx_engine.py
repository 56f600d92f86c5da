"""MLX: Metal on Apple silicon, CUDA, or its CPU build, behind the batched engine in float32.

MLX has Cholesky factors and triangular solves on the CPU alone; on Apple silicon it shares memory
with the GPU, which does the gathers and products. The CPU build for Linux is for proving the
engine correct: it is slow.
"""

# ruff: noqa: D102 - methods are documented where their protocol is defined

from typing import Any

import mlx.core as mx
import numpy as np

from actors.lasso.backend import ridge_of
from actors.lasso.batched import BatchedEngine


class MlxBackend:
    """Operations of :class:`actors.lasso.backend.Backend` on MLX's default device."""

    xp: Any = mx
    itemsize = 4
    ridge = ridge_of(4)

    def array(self, values: np.ndarray) -> mx.array:
        return mx.array(values.astype(np.float32))

    def index(self, values: np.ndarray) -> mx.array:
        return mx.array(values if values.dtype == bool else values.astype(np.int32))

    def host(self, array: mx.array) -> np.ndarray:
        values = np.array(array)
        return values.astype(np.float64) if values.dtype.kind == "f" else values

    def largest(self, array: mx.array) -> mx.array:
        return mx.max(array, axis=-1)

    def smallest_at(self, array: mx.array) -> mx.array:
        return mx.argmin(array, axis=-1)

    def first(self, mask: mx.array, count: int) -> mx.array:
        # Different keys: MLX does not promise a stable sort.
        width = mask.shape[-1]
        keys = mx.arange(width) + mx.where(mask, 0, width)
        return mx.argsort(keys, axis=-1)[:, :count]

    def take(self, array: mx.array, at: mx.array) -> mx.array:
        return mx.take_along_axis(array, at, axis=-1)

    def put(self, array: mx.array, at: mx.array, values: mx.array) -> mx.array:
        return mx.put_along_axis(array, at, values, axis=-1)

    def solve(self, matrices: mx.array, right: mx.array) -> tuple[mx.array, mx.array]:
        factors = mx.linalg.cholesky(matrices, stream=mx.cpu)
        # MLX leaves a factor that failed half done, with the pivot that was not positive; to solve
        # with a pivot of zero raises, or ends the process.
        pivots = mx.diagonal(factors, axis1=-2, axis2=-1)
        definite = mx.all((pivots > 0) & mx.isfinite(pivots), -1)
        factors = mx.where(definite[:, None, None], factors, mx.eye(right.shape[-1]))
        lower = mx.linalg.solve_triangular(factors, right[:, :, None], stream=mx.cpu)
        upper = mx.swapaxes(factors, -1, -2)
        solutions = mx.linalg.solve_triangular(upper, lower, upper=True, stream=mx.cpu)[:, :, 0]
        definite = definite & mx.all(mx.isfinite(solutions), -1)
        return mx.where(definite[:, None], solutions, 0.0), definite


class MlxEngine(BatchedEngine):
    """The batched engine on MLX's default device."""

    def __init__(self, budget_bytes: int = 2**30) -> None:
        super().__init__("mlx", MlxBackend(), budget_bytes)
