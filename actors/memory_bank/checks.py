"""What patches and queries must be, and the format of a saved bank; FAISS is not loaded."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cluster.errors import InputError

FORMAT = 1
"""Of a saved bank; raise it when banks saved before can no longer be read."""

_ROWS = 65_536


def checked_patches(
    values: npt.ArrayLike, dim: int | None = None, where: str = "patches"
) -> npt.NDArray[np.float32]:
    """Return ``values`` as a contiguous float32 array (n, d).

    Raises
    ------
    InputError
        When there are no rows, some are not finite (the first is named), or d is not ``dim``.
    """
    X = np.ascontiguousarray(values, dtype=np.float32)
    if X.ndim != 2 or 0 in X.shape:
        raise InputError(
            where, "shape", "at least one row of numbers", X.shape, "Give an array (rows, numbers)."
        )
    if dim is not None and X.shape[1] != dim:
        raise InputError(
            where,
            "numbers a row",
            f"{dim}, as in the memory bank",
            X.shape[1],
            "Use features of the version that the bank was built on, or build it anew.",
        )
    for start in range(0, len(X), _ROWS):
        whole = np.isfinite(X[start : start + _ROWS]).all(axis=1)
        if not whole.all():
            row = start + int(np.argmin(whole))
            raise InputError(
                where,
                f"row {row}",
                "finite numbers",
                "NaN or infinity",
                "Mend or drop that row.",
            )
    return X
