"""The shape of a board, frame by frame: length, tangent, curvature, and where it is concentrated.

Places run along the last axis, frames along the one before. A tangent is the slope of a straight
line fitted to a window of places (a Savitzky–Golay derivative), the curvature the slope of the
tangent angle over another such window, divided by the length of a place. Places too near an end
for a window continue the nearest one that has it. Nothing here looks at any other frame.

Neighbouring places are combined in one flat pass over all rows, which is twice as fast as a short
pass a row; what it mixes across rows falls on the ends, which are then overwritten.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.signal import savgol_coeffs

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
    slope, running = _slope(window)
    tangent = _slopes(means, slope)
    _continue_ends(tangent, half)
    x, y = tangent
    step = np.sqrt(x * x + y * y)
    mean_step = step.sum(axis=-1) * np.float32(1 / places)
    angle = _angles(x, y)

    turn = _weighted(angle, running)
    least = np.maximum(np.float32(_LEAST_STEP) * mean_step, TINY)
    turn *= (np.float32(places) * mean_step)[..., None]
    turn /= np.maximum(step, least[..., None])
    _continue_ends(turn, 2 * half)
    bend = np.vecdot(angle, _end_to_end(places, half))
    return Shape(tangent, step, mean_step * np.float32(places), bend, turn)


def excess(turn: Floats) -> Floats:
    """Turn of a place less the median along the board: what a smooth bend leaves unexplained."""
    ordered = np.sort(turn, axis=-1)
    count = turn.shape[-1]
    middle = ordered[..., (count - 1) // 2] + ordered[..., count // 2]
    return turn - np.float32(0.5) * middle[..., None]


def kinks(excess_rad: Floats, window: int) -> Floats:
    """Angle of a kink centred on each place: the excess turn summed over a few places, rad.

    Sums that would reach places without a ``window`` of their own continue the nearest that does
    not: there one value repeats, and its noise would add up.
    """
    total = _weighted(excess_rad, np.ones(KINK_PLACES, np.float32))
    total *= np.float32(1 / excess_rad.shape[-1])
    _continue_ends(total, 2 * (window // 2) + KINK_PLACES // 2)
    return total


def strain(curvature_per_m: Floats, thickness_um: float) -> Floats:
    """Strain t κ / 2 at the outer face of a board whose middle keeps its length."""
    return curvature_per_m * np.float32(0.5e-6 * thickness_um)


def roughness_px(means: Floats) -> Floats:
    """Noise of the places (n, n_frames): their third differences, of which a bend leaves none."""
    third = np.zeros_like(means)
    source, flat = means.reshape(-1), third.reshape(-1)
    np.subtract(source[1:-2], source[2:-1], out=flat[:-3])
    flat *= 3
    flat[:-3] += source[3:]
    flat[:-3] -= source[:-3]
    third = third[..., :-3]
    # Var(Δ³x) = 20 σ², for x and y together.
    squares = np.vecdot(third, third).sum(axis=0)
    return np.sqrt(squares * np.float32(1 / (40 * third.shape[-1])))


@lru_cache(maxsize=64)
def _slope(window: int) -> tuple[Floats, Floats]:
    """Weights w of a fitted slope, and v with Σ w_j φ_j = Σ v_i (φ_{i+1} − φ_i)."""
    weights = savgol_coeffs(window, 1, deriv=1, use="dot")
    return weights.astype(np.float32), -np.cumsum(weights)[:-1].astype(np.float32)


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
    x0, x1, y0, y1 = x.reshape(-1)[:-1], x.reshape(-1)[1:], y.reshape(-1)[:-1], y.reshape(-1)[1:]
    angle = np.zeros_like(x)
    cross = x0 * y1
    cross -= y0 * x1
    dot = x0 * x1
    dot += y0 * y1
    np.arctan2(cross, dot, out=angle.reshape(-1)[:-1])
    return angle


def _slopes(values: Floats, weights: Floats) -> Floats:
    """Σ_j weights[j] · values[g + j − half], for odd weights; the ends mean nothing."""
    half = weights.size // 2
    source, total = values.reshape(-1), np.zeros_like(values)
    inner = total.reshape(-1)[half:-half]
    for j in range(1, half + 1):
        last = source.size - half + j
        difference = source[half + j : last] - source[half - j : source.size - half - j]
        difference *= weights[half + j]
        inner += difference
    return total


def _weighted(values: Floats, weights: Floats) -> Floats:
    """Σ_j weights[j] · values[g + j − half], for even weights; the ends mean nothing."""
    half, size = weights.size // 2, values.size - weights.size + 1
    source, total = values.reshape(-1), np.zeros_like(values)
    inner = total.reshape(-1)[half : half + size]
    for j in range(half):
        mirrored = weights.size - 1 - j
        pair = source[j : j + size] + source[mirrored : mirrored + size]
        pair *= weights[j]
        inner += pair
    if weights.size % 2:
        inner += weights[half] * source[half : half + size]
    return total


def _continue_ends(values: Floats, margin: int) -> None:
    values[..., :margin] = values[..., margin : margin + 1]
    values[..., -margin:] = values[..., -margin - 1 : -margin]
