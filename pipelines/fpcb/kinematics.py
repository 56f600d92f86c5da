"""Motion of places: velocity, acceleration, impact, and changes of a series in time.

Whole pixels at 30 frames a second leave second differences of ±900 px/s² where nothing moves, so
derivatives are those of a parabola fitted to a few frames (Savitzky–Golay); near the first and
last frame, of the parabola through the first and last few frames.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.signal import savgol_coeffs

Floats = npt.NDArray[np.float32]

_ORDER = 2


def derivatives(values: Floats, fps: Floats, window: int) -> tuple[Floats, Floats]:
    """First and second derivative in time, as ``scipy.signal.savgol_filter`` (mode "interp").

    Parameters
    ----------
    values : ndarray (..., n, n_frames, k), float32
    fps : ndarray (n,), 1/s
    window : int
        Frames in a fit; all frames where there are fewer. Two frames have no second derivative:
        it is 0 there.

    Returns
    -------
    first, second : ndarray, shape of ``values``
        In units of ``values`` per s and per s².
    """
    n_frames = values.shape[-2]
    window = min(window, n_frames)
    half = window // 2
    first, second = np.empty_like(values), np.empty_like(values)
    rate = fps.astype(np.float32)[:, None, None]
    if window % 2:
        inner = slice(half, n_frames - half)
        _inner(values, window, first[..., inner, :], second[..., inner, :])
        edges = half
    else:  # all frames are in the one window
        edges = n_frames // 2
    for frames, source in (
        (slice(0, edges), values[..., :window, :]),
        (slice(n_frames - edges, n_frames), values[..., n_frames - window :, :]),
    ):
        offset = 0 if frames.start == 0 else window - edges
        for order, out in ((1, first), (2, second)):
            weights = np.stack([_weights(window, order, offset + e) for e in range(edges)], axis=1)
            _fill(source, weights, out[..., frames, :])
    first *= rate
    second *= rate * rate
    return first, second


def impacts(means: Floats, fps: Floats) -> Floats:
    """Change of velocity from one frame to the next, |a|·dt (n, n_frames, places), px/s.

    From the raw second difference, which no smoothing has spread: the shock of a crack. The first
    and last frame repeat their neighbour; with two frames all are 0.
    """
    _, n, n_frames, places = means.shape
    impact = np.zeros((n, n_frames, places), np.float32)
    if n_frames < 3:
        return impact
    change = means[..., 1:-1, :] * np.float32(-2)
    change += means[..., 2:, :]
    change += means[..., :-2, :]
    np.multiply(norm(change), fps[:, None, None], out=impact[:, 1:-1])
    impact[:, 0], impact[:, -1] = impact[:, 1], impact[:, -2]
    return impact


def steps(values: Floats, window: int) -> Floats:
    """Mean of this and the next frames less the mean of the frames before, at every frame.

    With ``window`` frames either side, fewer at the ends, where the difference is scaled down to
    the noise of full windows; frame 0 has none before it and gets 0. A lasting change that begins
    with frame f peaks at f.

    Parameters
    ----------
    values : ndarray (n, n_frames, k), float32
    """
    n_frames = values.shape[1]
    total = np.zeros((values.shape[0], n_frames + 1, values.shape[2]), np.float32)
    np.cumsum(values, axis=1, out=total[:, 1:])
    at = np.arange(n_frames)
    start, stop = np.maximum(at - window, 0), np.minimum(at + window, n_frames)
    before, after = np.maximum(at - start, 1), stop - at
    scale = np.sqrt(2 * before * after / ((before + after) * window))
    scale[0] = 0
    late = total[:, stop] - total[:, :-1]
    late *= (scale / after).astype(np.float32)[:, None]
    early = total[:, :-1] - total[:, start]
    early *= (scale / before).astype(np.float32)[:, None]
    late -= early
    return late


def norm(vectors: Floats) -> Floats:
    """Length of vectors (2, ...)."""
    x, y = vectors
    squared = x * x
    squared += y * y
    return np.sqrt(squared, out=squared)


@lru_cache(maxsize=1024)
def _weights(window: int, derivative: int, position: int) -> npt.NDArray[np.float32]:
    order = min(_ORDER, window - 1)
    weights = savgol_coeffs(window, order, deriv=derivative, pos=position, use="dot")
    return weights.astype(np.float32)


def _inner(values: Floats, window: int, first: Floats, second: Floats) -> None:
    """Frames with a full window around them: weights are odd for the first, even for the second."""
    half = window // 2
    size = values.shape[-2] - 2 * half
    odd, even = _weights(window, 1, half), _weights(window, 2, half)
    np.multiply(values[..., half : half + size, :], even[half], out=second)
    first[...] = 0
    scratch = np.empty_like(values[..., :size, :])
    for j in range(1, half + 1):
        before = values[..., half - j : half - j + size, :]
        after = values[..., half + j : half + j + size, :]
        np.subtract(after, before, out=scratch)
        scratch *= odd[half + j]
        first += scratch
        np.add(after, before, out=scratch)
        scratch *= even[half + j]
        second += scratch


def _fill(source: Floats, weights: npt.NDArray[np.float32], out: Floats) -> None:
    """Write Σ_t weights[t, e] · source[t] to frame e of ``out``."""
    out[...] = 0
    for t in range(weights.shape[0]):
        out += weights[t][:, None] * source[..., t : t + 1, :]
