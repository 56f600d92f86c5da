"""How a panel bends: the machine's drive, the angle that follows it, the curve the panel takes.

Everything is vectorised over panels, frames and points, and what a panel does depends on no other
panel of the batch.

Shape. With the bend angle θ of a frame and m(s) the share of it that is turned up to place s, the
panel's tangent angle is θ m(s), and its points are sums of L/(P−1) · (cos, sin)(θ m) over the
middles of the segments between them. The cosine and θ m's sine are polynomials here,
cos φ = Σ c_k φ^(2k) and sin φ = Σ s_k φ^(2k+1), so the sum along the panel splits into factors of
the frame, c_k θ^(2k), and factors of the place, the running sum of m^(2k): a small matrix product
a panel instead of two trigonometric functions and two running sums a point.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

TERMS = 10  # of cos and of sin: exact to 1e-13 on the angles below
LARGEST_ANGLE = 3.6
_REFERENCE_FRAMES = 60
_LEAST_WEIGHT = 0.2
_OVERSHOOT = 1.05
_SNAP_PEAK, _SNAP_WIDTH = 0.72, 0.09
_LARGEST_DRIVE = 1.12
_SMOOTH_FRAMES = 5


def smoothstep(v: Floats) -> Floats:
    """Return 3v² − 2v³ of v clipped to [0, 1]."""
    v = np.clip(v, 0.0, 1.0)
    return v * v * (3.0 - 2.0 * v)


def good_drive(u: Floats, start: Floats, duration: Floats, power: Floats) -> Floats:
    """Return what the machine asks for (n, n_frames), as shares of the end angle.

    Parameters
    ----------
    u : ndarray (n_frames,)
        Time, in shares of the run.
    start, duration, power : ndarray (n,)
        When the bend begins and how long it takes, in shares of the run; the phase between is
        raised to ``power``.
    """
    phase = np.clip((u - start[:, None]) / duration[:, None], 0.0, 1.0)
    return smoothstep(phase ** power[:, None])


def stuck_drive(
    drive: Floats, u: Floats, since: Floats, until: Floats, delay: Floats, snap_gain: Floats
) -> Floats:
    """Return the drive (n, n_frames) of panels that stick at ``since`` and then snap.

    What is left of the bend waits for the share ``delay`` of the time left, then follows a
    smoothstep, plus the snap, a bump in time. From the first frame on (``since`` = 0) this is the
    law of an over-cured panel as the scenario table has it; from a crack on, it is the same law for
    the rest of the bend, so nothing shows before. Panels without delay keep their drive.

    Parameters
    ----------
    since, until : ndarray (n,)
        Where in the run the panel sticks, and where the bend ends.
    """
    left = np.maximum(until - since, 1e-9)[:, None]
    v = np.clip((u - since[:, None]) / left, 0.0, 1.0)
    reached = np.array([np.interp(at, u, row) for at, row in zip(since, drive, strict=True)])
    wait = delay[:, None]
    rest = smoothstep((v - wait) / (1.0 - wait))
    snap = snap_gain[:, None] * np.exp(-(((v - _SNAP_PEAK) / _SNAP_WIDTH) ** 2))
    stuck = reached[:, None] + (1.0 - reached[:, None]) * rest + snap
    sticks = (wait > 0) & (u >= since[:, None])
    return np.where(sticks, np.clip(stuck, 0.0, _LARGEST_DRIVE), drive)


def smooth_frames(drive: Floats) -> Floats:
    """Average each frame with the two before and the two after it, where there are such."""
    reach = _SMOOTH_FRAMES // 2
    total, count = np.zeros_like(drive), np.zeros(drive.shape[1])
    n = drive.shape[1]
    for shift in range(-reach, reach + 1):
        here = slice(max(0, -shift), min(n, n - shift))
        there = slice(max(0, shift), min(n, n + shift))
        total[:, here] += drive[:, there]
        count[here] += 1
    return total / count


def response_of(
    response: Floats, shock: Floats, decay: Floats, crack_frame: Ints, n_frames: int
) -> Floats:
    """Return the share of its lag that a panel makes up in each frame (n, n_frames).

    ``response · (1 + shock · exp(−decay · (f − crack_frame)))`` from the crack frame on, at most 1.
    ``response`` (n, n_frames) and ``decay`` are those of a run of 60 frames; a run of more
    frames is sampled more finely, and bends the same.
    """
    step = (_REFERENCE_FRAMES - 1) / (n_frames - 1)
    since = np.arange(n_frames) - crack_frame[:, None]
    jolt = shock[:, None] * np.exp(-decay[:, None] * step * np.maximum(since, 0)) * (since >= 0)
    share = np.minimum(response * (1.0 + jolt), 1.0)
    return share if step == 1.0 else 1.0 - (1.0 - share) ** step


def bend_angle(drive: Floats, end_angle: Floats, response: Floats) -> Floats:
    """Follow the drive: θ ← θ + response · (end_angle · drive − θ), within [0, 1.05 end_angle].

    All are (n, n_frames); angles in rad. θ is 0 before the first frame. Where a crack lowers
    the end angle below the panel's, the panel relaxes to it at its response, without a leap.
    """
    target, ceiling = end_angle * drive, _OVERSHOOT * end_angle
    theta = np.empty_like(target)
    now = np.zeros(len(target))
    for frame in range(target.shape[1]):
        moved = now + response[:, frame] * (target[:, frame] - now)
        now = np.clip(moved, 0.0, np.maximum(ceiling[:, frame], now))
        theta[:, frame] = now
    return theta


def curvature_weights(
    n_points: Ints, skew: Floats, gain: Floats, place: Floats, width: Floats, n_places: int
) -> Floats:
    """Return the curvature over its mean at each point (n, n_places); 0 beyond the last point.

    max(0.2, 1 + skew (2s − 1) + gain exp(−½ ((s − place)/width)²)) over its mean along the panel,
    by the trapezoidal rule, so that it integrates to 1.
    """
    index = np.arange(n_places)
    last = (n_points - 1)[:, None]
    s = index / last
    bump = gain[:, None] * np.exp(-0.5 * ((s - place[:, None]) / width[:, None]) ** 2)
    weight = np.maximum(_LEAST_WEIGHT, 1.0 + skew[:, None] * (2.0 * s - 1.0) + bump)
    weight *= index <= last
    # A running sum adds in the same order whatever the padding.
    total = np.take_along_axis(np.cumsum(weight, axis=1), last, axis=1)
    ends = weight[:, :1] + np.take_along_axis(weight, last, axis=1)
    return weight / ((total - 0.5 * ends) / last)


def turned_shares(weights: Floats, n_points: Ints) -> Floats:
    """Return the share of the bend turned up to the middle of each segment (n, n_places − 1)."""
    halves = 0.5 * (weights[:, :-1] + weights[:, 1:]) / (n_points - 1)[:, None]
    before = np.cumsum(halves, axis=1) - halves
    # To the middle of a segment: half of it, with the weight taken as straight in between.
    first_half = (0.375 * weights[:, :-1] + 0.125 * weights[:, 1:]) / (n_points - 1)[:, None]
    return before + first_half


def place_factors(turned: Floats) -> Floats:
    """Return the factors of the place (n, 2, TERMS + 1, n_places), for x and for y.

    Running sums of m^0, m^2, … (x) and m, m^3, … (y) along the panel, 0 at the first point; the
    last is 1 everywhere, for what shifts a whole frame.
    """
    n, segments = turned.shape
    power = np.empty((n, 2, TERMS, segments))
    power[:, 0, 0] = 1.0
    for k in range(TERMS):
        np.multiply(power[:, 0, k], turned, out=power[:, 1, k])
        if k + 1 < TERMS:
            np.multiply(power[:, 1, k], turned, out=power[:, 0, k + 1])
    factors = np.zeros((n, 2, TERMS + 1, segments + 1))
    np.cumsum(power, axis=3, out=factors[:, :, :TERMS, 1:])
    factors[:, :, TERMS] = 1.0
    return factors


def frame_factors(theta: Floats, step_px: Floats, shift_px: Floats) -> Floats:
    """Return the factors of the frame (n, 2, n_frames, TERMS + 1), for x and for y.

    c_k θ^(2k) (x) and s_k θ^(2k+1) (y), times the length of a segment; the last is the shift.

    Parameters
    ----------
    theta : ndarray (n, n_frames), rad, at most LARGEST_ANGLE
    step_px : ndarray (n, n_frames)
        Length of a segment in the image of each frame.
    shift_px : ndarray (n, 2, n_frames)
        Where the first point is.
    """
    n, n_frames = theta.shape
    factors = np.empty((n, 2, n_frames, TERMS + 1))
    power = step_px.copy()
    for k in range(TERMS):
        for axis in range(2):
            np.multiply(power, _COEFFICIENTS[axis, k], out=factors[:, axis, :, k])
            power *= theta
    factors[..., TERMS] = shift_px
    return factors


def centroid(in_frame: Floats, in_place: Floats, n_points: npt.NDArray[np.int64]) -> Floats:
    """Return the mean of each frame's points (n, 2, n_frames), from its factors."""
    inside = np.arange(in_place.shape[3]) < n_points[:, None]
    mean = in_place @ (inside / n_points[:, None])[:, None, :, None]
    return (in_frame @ mean)[..., 0]


def _coefficients() -> Floats:
    """Interpolate cos φ and sin φ / φ by polynomials in φ² on [0, LARGEST_ANGLE]: (2, TERMS)."""

    def fit(function: Callable[[Floats], Floats]) -> Floats:
        series = np.polynomial.Chebyshev.interpolate(
            lambda z: function(np.sqrt(np.maximum(z, 0.0))), TERMS - 1, [0.0, LARGEST_ANGLE**2]
        )
        return np.asarray(series.convert(kind=np.polynomial.Polynomial).coef, float)

    return np.stack([fit(np.cos), fit(lambda angle: np.sinc(angle / np.pi))])


_COEFFICIENTS = _coefficients()
