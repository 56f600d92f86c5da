"""The few array operations that the batched engine needs, and numpy's version of them.

Arrays are numpy's, PyTorch's or MLX's own; what the three spell alike (operators, indexing by
arrays, ``reshape``) is used as it is, and functions of one name come from ``xp``.
"""

# ruff: noqa: D102 - methods are documented where their protocol is defined

from typing import Any, Protocol

import numpy as np
import scipy.linalg as sl


class Backend(Protocol):
    """One device of one array library, in one floating-point type.

    Attributes
    ----------
    xp : module
        Has ``abs, any, sign, sum, where`` (with the axis as second argument where there is one).
    ridge : float
        Relative ridge with which a singular Gram matrix can still be factored in this type.
    """

    xp: Any
    ridge: float
    itemsize: int

    def array(self, values: np.ndarray) -> Any:
        """Copy floats of the host to the device, rounded to its type."""

    def index(self, values: np.ndarray) -> Any:
        """Copy integers or truth values of the host to the device."""

    def host(self, array: Any) -> np.ndarray:
        """Copy to the host: floats as float64."""

    def largest(self, array: Any) -> Any:
        """Return the maximum over the last axis."""

    def smallest_at(self, array: Any) -> Any:
        """Return where the minimum over the last axis stands."""

    def first(self, mask: Any, count: int) -> Any:
        """Return ``count`` different positions for each row, those of true entries first."""

    def take(self, array: Any, at: Any) -> Any:
        """Return the entries at positions ``at`` along the last axis."""

    def put(self, array: Any, at: Any, values: Any) -> Any:
        """Return the array with entries replaced at positions ``at`` along the last axis."""

    def solve(self, matrices: Any, right: Any) -> tuple[Any, Any]:
        """Solve symmetric systems (c, m, m), (c, m) by Cholesky factors.

        Returns
        -------
        solutions (c, m), and a mask (c,) of the matrices that were positive definite. Other
        solutions are arbitrary.
        """


class NumpyBackend:
    """numpy on the host, in float64."""

    xp: Any = np
    itemsize = 8

    def __init__(self) -> None:
        self.ridge = ridge_of(self.itemsize)

    def array(self, values: np.ndarray) -> np.ndarray:
        return values.astype(np.float64)

    def index(self, values: np.ndarray) -> np.ndarray:
        return values

    def host(self, array: np.ndarray) -> np.ndarray:
        return array

    def largest(self, array: np.ndarray) -> np.ndarray:
        return array.max(axis=-1)

    def smallest_at(self, array: np.ndarray) -> np.ndarray:
        return array.argmin(axis=-1)

    def first(self, mask: np.ndarray, count: int) -> np.ndarray:
        return np.argsort(~mask, axis=-1, kind="stable")[:, :count]

    def take(self, array: np.ndarray, at: np.ndarray) -> np.ndarray:
        return np.take_along_axis(array, at, axis=-1)

    def put(self, array: np.ndarray, at: np.ndarray, values: np.ndarray) -> np.ndarray:
        changed = array.copy()
        np.put_along_axis(changed, at, values, axis=-1)
        return changed

    def solve(self, matrices: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        solutions, definite = np.zeros_like(right), np.ones(len(right), dtype=bool)
        for i, matrix in enumerate(matrices):
            try:
                factor = sl.cho_factor(matrix, check_finite=False)
                solutions[i] = sl.cho_solve(factor, right[i], check_finite=False)
            except sl.LinAlgError:
                definite[i] = False
        return solutions, definite


def ridge_of(itemsize: int) -> float:
    """Return the ridge for floats of that many bytes."""
    return 1e-9 if itemsize == 8 else 1e-6
