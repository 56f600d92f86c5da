"""Motion of places: velocity, acceleration, impact, and changes of a series in time.

Whole pixels at 30 frames a second leave second differences of ±900 px/s² where nothing moves, so
derivatives are those of a parabola fitted to a few frames (Savitzky–Golay); near the first and
last frame, of the parabola through the first and last few frames.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

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
    # One product a panel, of one shape whatever the batch: the bytes depend on the panel alone.
    both = _operator(n_frames, min(window, n_frames)) @ values
    rate = fps.astype(np.float32)[:, None, None]
    first, second = both[..., :n_frames, :], both[..., n_frames:, :]
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
    return _step_operator(values.shape[1], window) @ values


def norm(vectors: Floats) -> Floats:
    """Length of vectors (2, ...)."""
    x, y = vectors
    squared = x * x
    squared += y * y
    return np.sqrt(squared, out=squared)


@lru_cache(maxsize=64)
def _operator(n_frames: int, window: int) -> Floats:
    """First and second derivative of a panel a frame apart, as matrix (2 n_frames, n_frames)."""
    from scipy.signal import savgol_coeffs  # over a second to import: not for every command

    order = min(_ORDER, window - 1)
    half = window // 2
    operator = np.zeros((2, n_frames, n_frames))
    for f in range(n_frames):
        start = min(max(f - half, 0), n_frames - window)
        for derivative in (1, 2):
            operator[derivative - 1, f, start : start + window] = savgol_coeffs(
                window, order, deriv=derivative, pos=f - start, use="dot"
            )
    return operator.reshape(-1, n_frames).astype(np.float32)


@lru_cache(maxsize=64)
def _step_operator(n_frames: int, window: int) -> Floats:
    operator = np.zeros((n_frames, n_frames), np.float32)
    for f in range(1, n_frames):
        before, after = min(f, window), min(n_frames - f, window)
        scale = np.sqrt(2 * before * after / ((before + after) * window))
        operator[f, f : f + after] = scale / after
        operator[f, f - before : f] = -scale / before
    return operator
