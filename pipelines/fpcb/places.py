"""From tracked points to places: means over equal shares of the board, frame by frame."""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

_RANGE = np.iinfo(np.int16)
_LIMIT_PX = 1  # how far a point may lie outside the range of its two neighbours


def place_means(
    points: npt.NDArray[np.int16], n_points: npt.NDArray[np.int32], places: int
) -> Floats:
    """Average the points of each frame over ``places`` equal shares of the board.

    The board is the broken line through its points; share g reaches from g/places to
    (g + 1)/places of the way from the first to the last index, so it is the same piece of copper
    in every frame. Averaging k points divides rounding and camera noise by √k. Before it, a point
    is clipped to the range of its two neighbours in the same frame, give or take 1 px (and the
    height of the arc between them, where points are sparse), so that a stray point moves a mean
    little and no other frame.

    Parameters
    ----------
    points : ndarray (n, 2, n_frames, n_places), int16, px
    n_points : ndarray (n,)
        Points of each panel; what lies beyond is never read.
    places : int

    Returns
    -------
    ndarray (2, n, n_frames, places), float32, px
        Relative to the panel's first point in its first frame, so that a panel elsewhere in the
        image gives the same bytes.
    """
    means = np.empty((2, len(n_points), points.shape[2], places), np.float32)
    for panel, count in enumerate(n_points):
        own = np.ascontiguousarray(points[panel, :, :, :count])
        origin = own[:, :1, :1].astype(np.float32)
        _average(np.subtract(_clipped(own), origin, dtype=np.float32), means[:, panel])
    return means


def _clipped(points: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    """Bring points back that jump out of the range of their neighbours; the ends stay."""
    count = points.shape[-1]
    # A board bent to a U of length L rises about π L / n² / 2 between neighbours; a chord of the
    # first frame is no longer than L.
    chord_px = np.hypot(*(points[:, 0, -1].astype(float) - points[:, 0, 0]))
    limit = np.int16(_LIMIT_PX + 0.5 * np.pi * chord_px / count**2)
    # One flat pass instead of a short one a row; what it mixes across rows are the ends.
    flat = points.reshape(-1)
    low, high = np.minimum(flat[:-2], flat[2:]), np.maximum(flat[:-2], flat[2:])
    np.maximum(low, _RANGE.min + limit, out=low)  # or the next line would wrap around
    low -= limit
    np.minimum(high, _RANGE.max - limit, out=high)
    high += limit
    clipped = np.empty_like(points)
    inner = clipped.reshape(-1)[1:-1]
    np.maximum(flat[1:-1], low, out=inner)
    np.minimum(inner, high, out=inner)
    clipped[..., 0], clipped[..., -1] = points[..., 0], points[..., -1]
    return clipped


def _average(points: Floats, out: Floats) -> None:
    """Sum the points of each share with their weights, first point first."""
    at, weights = _shares(points.shape[-1], out.shape[-1])
    np.multiply(points[..., at[0]], weights[0], out=out)
    for index, weight in zip(at[1:], weights[1:], strict=True):
        term = points[..., index]
        term *= weight
        out += term


@lru_cache(maxsize=1024)
def _shares(count: int, places: int) -> tuple[npt.NDArray[np.intp], Floats]:
    """Points that carry each share, and their weights in its mean: two arrays (k, places).

    A point's weight is the integral of its hat function (1 at the point, 0 at its neighbours)
    over the share, divided by the width of the share.
    """
    bounds = np.linspace(0, count - 1, places + 1)
    start, stop = bounds[:-1], bounds[1:]
    first = np.floor(start).astype(np.intp)
    most = int((np.ceil(stop).astype(np.intp) - first).max()) + 1
    at = np.minimum(first + np.arange(most)[:, None], count - 1)
    beyond = first + np.arange(most)[:, None] > at
    weights = (_hat_integral(stop - at) - _hat_integral(start - at)) / (stop - start)
    return at, np.where(beyond, 0, weights).astype(np.float32)


def _hat_integral(z: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    z = np.clip(z, -1, 1)
    return np.where(z < 0, 0.5 * (1 + z) ** 2, 1 - 0.5 * (1 - z) ** 2)
