"""When and where a panel cracked: the likeliest beginning and place of a kink.

With unit noise, a kink that begins with frame f at place p has the log-likelihood ratio z²/2
against none, z being `kink_filter.after`. Its maximum is the estimate (for a change point: Hinkley,
Biometrika 57 (1970) 1), and frames within 1.92 of it a 95 % interval.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.fpcb.detection.kink_filter import KinkFilter, after, noise_rad

Floats = npt.NDArray[np.float32]

_LEAST_FRAMES = 3  # left after the beginning: fewer say little
_STRAIGHT_RAD = 0.05
_PLAIN = 8.0  # standard deviations
_FORETOLD = 4.0  # standard deviations of the frames before
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
    # A board as good as straight has no bend but noise, and says nothing of a hinge.
    bend_rad = np.maximum(np.abs(bend_rad) - np.float32(_STRAIGHT_RAD), 0)
    z = after(evidence, bend_rad)[:, : max(1, bend_rad.shape[1] - _LEAST_FRAMES)]
    z = z[..., kink_filter.inside]
    n, n_frames, places = z.shape
    best = z.reshape(n, -1).argmax(axis=1)
    frame, at = best // places, best % places
    rows = np.arange(n)
    strength = z[rows, frame, at]
    course = np.maximum(z[rows, :, at], 0) ** 2 / 2
    likely = course >= course[rows, frame][:, None] - _HALF_CHI2_95
    of_place = evidence[rows, :, kink_filter.inside.start + at]
    likely[_from_start(of_place, bend_rad, frame), 0] = True
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


def _from_start(
    evidence: Floats, theta: Floats, frame: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Tell of which panels (n,) the kink was there before the likeliest frame as well.

    While a board is nearly straight a hinge hardly shows, and what little it opens then the
    likelihood leaves out. So the frames before are asked by themselves: of the evidence that the
    later slope foretells for them, where that is plain, is there half or more?

    Parameters
    ----------
    evidence, theta : ndarray (n, n_frames)
        At the likeliest place, and the bend.
    """
    after = np.arange(theta.shape[1]) >= frame[:, None]
    square, moment = theta**2, theta * evidence
    slope = (moment * after).sum(axis=1) / np.maximum((square * after).sum(axis=1), 1e-6)
    root = np.sqrt(np.maximum((square * ~after).sum(axis=1), 1e-6))
    foretold = slope * root
    return (foretold > _FORETOLD) & ((moment * ~after).sum(axis=1) / root > foretold / 2)


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
