"""The shape of a board, frame by frame: length, tangent, curvature, and where it is concentrated.

Places run along the last axis, frames along the one before. A tangent is the slope of a straight
line fitted to a window of places (a Savitzky–Golay derivative), the curvature the slope of the
tangent angle over another such window, divided by the length of a place. Places too near an end
for a window continue the nearest one that has it. Nothing here looks at any other frame.

Sums over neighbouring places are products with a small matrix, a panel at a time: always of one
shape, so that the bytes do not depend on the batch.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

TINY = np.float32(1e-30)
"""Stands in for a length of 0 under a numerator that is 0 as well."""
_LEAST_STEP = 0.1  # of the frame's mean: a shorter one, where points coincide, counts as this long
_END = 4  # tangents averaged at either end for the bend angle
KINK_PLACES = 7
"""Places over which a kink's turn is summed: the windows above spread a sharp one that wide."""


@dataclass(frozen=True, eq=False)
class Shape:
    """What the places of a chunk of panels look like in each frame.

    Attributes
    ----------
    tangent : ndarray (2, n, n_frames, places), px a place
    step_px : ndarray (n, n_frames, places)
        Length of a place.
    length_px : ndarray (n, n_frames)
    bend_rad : ndarray (n, n_frames)
        Angle from the first to the last tangent; positive from the image's x axis to its y axis.
    turn : ndarray (n, n_frames, places), rad
        Curvature times length: what the whole board would turn, were it bent like this place.
    """

    tangent: Floats
    step_px: Floats
    length_px: Floats
    bend_rad: Floats
    turn: Floats

    @property
    def curvature_per_px(self) -> Floats:
        """Signed curvature (n, n_frames, places), 1/px; 0 where the board has no length."""
        return self.turn * np.reciprocal(np.maximum(self.length_px, TINY))[..., None]


def measure_shape(means: Floats, window: int) -> Shape:
    """Tangents, length and curvature of places.

    κ = dφ/ds, with φ the tangent angle: the angle between neighbouring tangents from their cross
    and dot product (so that no turn of 2π need be unwrapped), summed with the weights that make it
    the slope of φ. Reference: Savitzky and Golay, Anal. Chem. 36 (1964) 1627.

    Parameters
    ----------
    means : ndarray (2, n, n_frames, places), float32, px
    window : int
        Odd number of places in a fit.
    """
    places, half = means.shape[-1], window // 2
    to_tangent, to_turn = _tangent_operator(places, window), _turn_operator(places, window)
    tangent = means @ to_tangent
    x, y = tangent
    step = np.sqrt(x * x + y * y)
    mean_step = step.sum(axis=-1) * np.float32(1 / places)
    angle = _angles(x, y)

    turn = angle @ to_turn
    least = np.maximum(np.float32(_LEAST_STEP) * mean_step, TINY)
    turn *= (np.float32(places) * mean_step)[..., None]
    turn /= np.maximum(step, least[..., None])
    turn[..., : 2 * half] = turn[..., 2 * half, None]
    turn[..., -2 * half :] = turn[..., -2 * half - 1, None]
    bend = np.vecdot(angle, _end_to_end(places, half))
    return Shape(tangent, step, mean_step * np.float32(places), bend, turn)


def excess(turn: Floats) -> Floats:
    """Turn of a place less the median along the board: what a smooth bend leaves unexplained."""
    ordered = np.sort(turn, axis=-1)
    count = turn.shape[-1]
    middle = ordered[..., (count - 1) // 2] + ordered[..., count // 2]
    return turn - np.float32(0.5) * middle[..., None]


def kinks(excess_rad: Floats, window: int) -> Floats:
    """Angle of a kink centred on each place (n, n_frames, places): its excess turn summed, rad.

    Sums that would reach places without a ``window`` of their own continue the nearest that does
    not: there one value repeats, and its noise would add up.
    """
    return excess_rad @ _kink_operator(excess_rad.shape[-1], window)


def strain(curvature_per_m: Floats, thickness_um: float) -> Floats:
    """Strain t κ / 2 at the outer face of a board whose middle keeps its length."""
    return curvature_per_m * np.float32(0.5e-6 * thickness_um)


def roughness_px(means: Floats) -> Floats:
    """Noise of the places (n, n_frames): their third differences, of which a bend leaves none."""
    third = means @ _third_difference(means.shape[-1])
    # Var(Δ³x) = 20 σ², for x and y together.
    squares = np.vecdot(third, third).sum(axis=0)
    return np.sqrt(squares * np.float32(1 / (40 * third.shape[-1])))


@lru_cache(maxsize=64)
def _tangent_operator(places: int, window: int) -> Floats:
    return _banded(places, window // 2, _slope(window))


@lru_cache(maxsize=64)
def _turn_operator(places: int, window: int) -> Floats:
    """Slope of φ from the angles between tangents: Σ w_j φ_j = Σ v_i (φ_{i+1} − φ_i)."""
    return _banded(places, 2 * (window // 2), -np.cumsum(_slope(window))[:-1])


@lru_cache(maxsize=64)
def _kink_operator(places: int, window: int) -> Floats:
    reach = 2 * (window // 2) + KINK_PLACES // 2
    return _banded(places, reach, np.full(KINK_PLACES, 1 / places))


@lru_cache(maxsize=64)
def _third_difference(places: int) -> Floats:
    return np.ascontiguousarray(np.diff(np.eye(places, dtype=np.float32), n=3, axis=0).T)


def _banded(places: int, margin: int, weights: npt.NDArray[np.float64]) -> Floats:
    """Operator (places, places) that puts ``weights`` around each place; the margins continue."""
    operator = np.zeros((places, places), np.float32)
    for place in range(places):
        start = min(max(place, margin), places - 1 - margin) - weights.size // 2
        operator[start : start + weights.size, place] = weights
    return operator


def _slope(window: int) -> npt.NDArray[np.float64]:
    from scipy.signal import savgol_coeffs  # over a second to import: not for every command

    return np.asarray(savgol_coeffs(window, 1, deriv=1, use="dot"))


@lru_cache(maxsize=64)
def _end_to_end(places: int, half: int) -> Floats:
    """Weights of the angles between tangents: mean of the last few tangents less the first few.

    The two means lie so many places apart as the weights sum to; the bend is continued to the ends.
    """
    count = places - 2 * half - 1
    ramp = np.minimum(np.arange(1, count + 1), _END) / _END
    inner = np.minimum(ramp, ramp[::-1])
    weights = np.zeros(places, np.float32)
    weights[half : half + count] = inner * (places / inner.sum())
    return weights


def _angles(x: Floats, y: Floats) -> Floats:
    """Angle from each tangent to the next, rad; the last of a row means nothing."""
    # One flat pass over all rows takes half the time of a short one a row.
    x0, x1, y0, y1 = x.reshape(-1)[:-1], x.reshape(-1)[1:], y.reshape(-1)[:-1], y.reshape(-1)[1:]
    angle = np.zeros_like(x)
    cross = x0 * y1
    cross -= y0 * x1
    dot = x0 * x1
    dot += y0 * y1
    np.arctan2(cross, dot, out=angle.reshape(-1)[:-1])
    return angle
