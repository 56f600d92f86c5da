"""When and where a panel cracked: the likeliest beginning and place of a kink.

With unit noise, a kink that begins with frame f at place p has the log-likelihood ratio z²/2
against none, z being `kink_filter.after`. Its maximum is the estimate (for a change point: Hinkley,
Biometrika 57 (1970) 1), and frames within 1.92 of it a 95 % interval.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.fpcb.kink_filter import KinkFilter, after, noise_rad

Floats = npt.NDArray[np.float32]

_LEAST_FRAMES = 3  # left after the beginning: fewer say little
_MISFIT = np.float32(0.002)  # of the largest: a hinge does not open quite as the board bends
_PLAIN = 8.0  # standard deviations
_HALF_CHI2_95 = np.float32(1.92)  # half the 95 % point of χ² with one degree of freedom


@dataclass(frozen=True, eq=False)
class Found:
    """The likeliest kink of each panel; arrays (n,).

    ``frame`` with the interval ``earliest`` to ``latest``; ``place`` is a share of the length,
    ``strength`` the evidence in standard deviations, ``kink_deg`` the angle of the hinge at the
    largest bend.
    """

    frame: npt.NDArray[np.int64]
    earliest: npt.NDArray[np.int64]
    latest: npt.NDArray[np.int64]
    place: Floats
    strength: Floats
    kink_deg: Floats


def localise(excess_rad: Floats, bend_rad: Floats, kink_filter: KinkFilter) -> Found:
    """Find the likeliest kink of panels, cracked or not.

    Parameters
    ----------
    excess_rad : ndarray (n, n_frames, places)
    bend_rad : ndarray (n, n_frames)
    """
    evidence = kink_filter.evidence(excess_rad)
    z = after(evidence, bend_rad)[:, : max(1, bend_rad.shape[1] - _LEAST_FRAMES)]
    z = z[..., kink_filter.inside]
    n, n_frames, places = z.shape
    best = z.reshape(n, -1).argmax(axis=1)
    frame, at = best // places, best % places
    rows = np.arange(n)
    strength = z[rows, frame, at]
    course = np.maximum(z[rows, :, at], 0) ** 2 / 2
    largest = course[rows, frame][:, None]
    likely = course >= largest - np.maximum(_HALF_CHI2_95, _MISFIT * largest)
    # Plain evidence that may have been there all along: most likely it was, as nothing of it
    # shows while the board is nearly straight.
    frame = np.where(likely[:, 0] & (strength > _PLAIN), 0, frame)
    place = at + _vertex(z[rows, frame], at) + kink_filter.inside.start + 0.5
    return Found(
        frame=frame,
        earliest=likely.argmax(axis=1),
        latest=n_frames - 1 - likely[:, ::-1].argmax(axis=1),
        place=(place / kink_filter.places).astype(np.float32),
        strength=strength,
        kink_deg=_angle_deg(excess_rad, bend_rad, kink_filter, frame, at, strength),
    )


def _vertex(rows: Floats, at: npt.NDArray[np.int64]) -> Floats:
    """Top of the parabola through the largest value and its neighbours, from −½ to ½."""
    inner = np.clip(at, 1, rows.shape[1] - 2)
    index = np.arange(len(rows))
    left, middle, right = (rows[index, inner + shift] for shift in (-1, 0, 1))
    bow = np.minimum(left - 2 * middle + right, np.float32(-1e-6))
    top = np.clip((left - right) / (2 * bow), -0.5, 0.5)
    return np.where(inner == at, top, 0).astype(np.float32)


def _angle_deg(
    excess_rad: Floats,
    bend_rad: Floats,
    kink_filter: KinkFilter,
    frame: npt.NDArray[np.int64],
    at: npt.NDArray[np.int64],
    strength: Floats,
) -> Floats:
    """Angle of the hinge at the largest bend: slope of the evidence on θ, over that of 1 rad."""
    theta = np.abs(bend_rad)
    left = theta**2 * (np.arange(theta.shape[1]) >= frame[:, None])
    slope = strength / np.sqrt(np.maximum(left.sum(axis=1), 1e-6))
    response = np.vecdot(kink_filter.template, kink_filter.weights.T)[kink_filter.inside]
    angle = slope * theta.max(axis=1) * noise_rad(excess_rad) / response[at]
    return np.degrees(np.maximum(angle, 0)).astype(np.float32)
