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
        pixels = np.ascontiguousarray(points[panel, :, :, :count])
        origin = pixels[:, :1, :1].astype(np.float32)
        own = np.subtract(_clipped(pixels), origin, dtype=np.float32)
        # A product a panel, of one shape whatever the batch.
        np.matmul(own, _shares(int(count), places), out=means[:, panel])
    return means


def _clipped(points: npt.NDArray[np.signedinteger]) -> npt.NDArray[np.signedinteger]:
    """Bring points back that jump out of the range of their neighbours; the ends stay."""
    count = points.shape[-1]
    # A board bent to a U of length L rises about π L / n² / 2 between neighbours; a chord of the
    # first frame is no longer than L.
    chord_px = np.hypot(*(points[:, 0, -1].astype(float) - points[:, 0, 0]))
    limit = np.int16(_LIMIT_PX + 0.5 * np.pi * chord_px / count**2)
    if points.min() < _RANGE.min + limit or points.max() > _RANGE.max - limit:
        points = points.astype(np.int32)  # or a pixel at the limit of int16 would wrap around
    # One flat pass instead of a short one a row; what it mixes across rows are the ends.
    flat = points.reshape(-1)
    low, high = np.minimum(flat[:-2], flat[2:]), np.maximum(flat[:-2], flat[2:])
    low -= limit
    high += limit
    clipped = np.empty_like(points)
    inner = clipped.reshape(-1)[1:-1]
    np.maximum(flat[1:-1], low, out=inner)
    np.minimum(inner, high, out=inner)
    clipped[..., 0], clipped[..., -1] = points[..., 0], points[..., -1]
    return clipped


@lru_cache(maxsize=256)
def _shares(count: int, places: int) -> Floats:
    """Weight of each point in the mean of each share: (count, places).

    The integral of the point's hat function (1 at the point, 0 at its neighbours) over the share,
    divided by the width of the share.
    """
    bounds = np.linspace(0, count - 1, places + 1) - np.arange(count)[:, None]
    weights = np.diff(_hat_integral(bounds), axis=1) * places / (count - 1)
    return weights.astype(np.float32)


def _hat_integral(z: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    z = np.clip(z, -1, 1)
    return np.where(z < 0, 0.5 * (1 + z) ** 2, 1 - 0.5 * (1 - z) ** 2)
