"""One answer from several: the k nearest of a bank whose rows are spread over parts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


def merge_nearest(
    distances: Sequence[FloatArray], indices: Sequence[IntArray], k: int
) -> tuple[FloatArray, IntArray]:
    """Return the k nearest (n, k) of the nearest (n, k_i) of each part.

    Exact where the parts are: a row among the k nearest of all is among the k nearest of its part.

    Parameters
    ----------
    distances : sequence of arrays (n, k_i)
    indices : sequence of arrays (n, k_i)
        Rows of the whole bank; of equal distances the lowest row goes first.
    """
    distance, index = np.concatenate(distances, axis=1), np.concatenate(indices, axis=1)
    order = np.lexsort((index, distance), axis=1)[:, :k]
    return np.take_along_axis(distance, order, axis=1), np.take_along_axis(index, order, axis=1)
