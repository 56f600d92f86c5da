"""The evidence for a kink at every frame and place: a matched filter, whitened by good panels.

The noise of a fitted curvature is that of positions, differentiated: neighbouring places
contradict each other, and how a good board departs from an even bend is smooth. With the
covariance Σ of good panels over places and the shape t of a sharp kink as the same fits show it,
w = Σ⁻¹t / √(tᵀΣ⁻¹t) has unit noise and the largest signal of all linear filters (Turin, IRE Trans.
Inf. Theory 6 (1960) 311). A kink opens with the bend θ, so frames are weighted by θ.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from pipelines.fpcb.features.geometry import excess, measure_shape

Floats = npt.NDArray[np.float32]

HINGE_WIDTH = 0.009
"""Standard deviation of a sharp crack's hinge, a share of the length."""
_SECOND_DIFFERENCE = np.sqrt(np.pi / 2 / 6)  # mean |Δ²x| of white noise to its standard deviation
_LEAST_BEND_RAD = 1e-3
_ONSETS = (0.0, 0.3, 0.6)  # shares of the run from which profiles are taken for the covariance
_SPREAD = 64  # points a place of the line from which a template is measured


@dataclass(frozen=True, eq=False)
class KinkFilter:
    """What turns excess curvature into evidence.

    Attributes
    ----------
    weights : ndarray (places, places), float32
        Column p weighs the places of one frame, in units of the panel's noise, for a kink at p;
        0 for places too near an end.
    template : ndarray (places, places), float32
        Row p: excess of a kink of 1 rad at place p.
    """

    weights: Floats
    template: Floats

    @property
    def places(self) -> int:
        """Places a board is cut into."""
        return len(self.weights)

    @property
    def inside(self) -> slice:
        """Places that have a filter."""
        used = np.flatnonzero(self.weights.any(axis=0))
        return slice(int(used[0]), int(used[-1]) + 1)

    def evidence(self, excess_rad: Floats) -> Floats:
        """Evidence of each frame alone (n, n_frames, places), unit noise.

        Parameters
        ----------
        excess_rad : ndarray (n, n_frames, places)
        """
        scale = noise_rad(excess_rad)
        return np.asarray((excess_rad / scale[:, None, None]) @ self.weights, np.float32)

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return what `from_arrays` takes."""
        return {"filter_weights": self.weights, "filter_template": self.template}

    @classmethod
    def from_arrays(cls, arrays: dict[str, npt.NDArray[Any]]) -> Self:
        """Return the filter that `to_arrays` gave."""
        return cls(arrays["filter_weights"], arrays["filter_template"])


def fit_filter(excess_rad: Floats, bend_rad: Floats, window: int) -> KinkFilter:
    """Learn from good panels how their curvature varies over places.

    Parameters
    ----------
    excess_rad : ndarray (n, n_frames, places)
    bend_rad : ndarray (n, n_frames)
    window : int
        ``curvature_window_places`` of the features.

    Raises
    ------
    ValueError
        With fewer than 2 panels.
    """
    if len(excess_rad) < 2:
        raise ValueError(f"panels: expected 2 or more, got {len(excess_rad)}")
    n_frames, places = excess_rad.shape[1:]
    template = kink_template(places, window)
    margin = 2 * (window // 2)
    seen = slice(margin, places - margin)  # places beyond repeat their neighbour
    unit = excess_rad[..., seen] / noise_rad(excess_rad)[:, None, None]
    profiles = [
        after(unit[:, start:], bend_rad[:, start:])[:, 0]
        for start in (int(share * n_frames) for share in _ONSETS)
    ]
    covariance = _covariance(unit, np.concatenate(profiles))
    inside = slice(margin + window // 2, places - margin - window // 2)
    shape = template[inside, seen].astype(np.float64)
    matched = np.linalg.solve(covariance, shape.T).T
    matched /= np.sqrt(np.vecdot(matched, shape))[:, None]
    weights = np.zeros((places, places), np.float32)
    weights[seen, inside] = matched.T
    return KinkFilter(weights, template)


def noise_rad(excess_rad: Floats) -> Floats:
    """Noise of each panel's excess curvature (n,), from second differences in time."""
    second = np.diff(excess_rad, n=2, axis=1)
    scale = np.abs(second).mean(axis=(1, 2)) * np.float32(_SECOND_DIFFERENCE)
    return np.asarray(np.maximum(scale, 1e-6), np.float32)


def after(evidence: Floats, bend_rad: Floats) -> Floats:
    """Evidence for a kink that is there from each frame to the end (n, n_frames, places).

    z(f) = Σ θ y / √Σ θ², over frames from f on: unit noise again.
    """
    theta = _opened(bend_rad)
    squares = _from_here_on(theta**2)[..., None]
    return np.asarray(_from_here_on(theta[..., None] * evidence) / np.sqrt(squares))


def onset(evidence: Floats, bend_rad: Floats) -> Floats:
    """Evidence that the kink began with each frame, rather than before (n, n_frames, places).

    The slope of y on θ from f on less that before f, over its standard deviation; 0 at frame 0.
    """
    theta = _opened(bend_rad)
    moment, square = theta[..., None] * evidence, (theta**2)[..., None]
    other, rest = _before(moment), _before(square)
    moment, square = _from_here_on(moment), _from_here_on(square)
    rest[:, 0] = square[:, 0]  # nothing is before frame 0
    change = moment / square - other / rest
    change /= np.sqrt(1 / square + 1 / rest)
    change[:, 0] = 0
    return change


def _covariance(unit: Floats, profiles: Floats) -> npt.NDArray[np.float64]:
    """Covariance of profiles (k, k): of few panels mostly that of the camera's noise alone.

    The noise shows in second differences in time, of which even a few panels have thousands.
    """
    noise = np.diff(unit, n=2, axis=1).reshape(-1, unit.shape[2]).astype(np.float64)
    prior = noise.T @ noise / (6 * len(noise))
    profiles = profiles.astype(np.float64)
    seen = profiles.T @ profiles / len(profiles)
    share = len(seen) / (len(seen) + len(unit))
    return np.asarray(share * prior + (1 - share) * seen)


def kink_template(places: int, window: int, width: float = HINGE_WIDTH) -> Floats:
    """Excess curvature of a kink of 1 rad at each place (places, places), as it is measured.

    A nearly straight line with a hinge of standard deviation ``width`` goes through the same fits
    as a panel.
    """
    angle = 0.01
    count = places * _SPREAD
    share = (np.arange(count) + 0.5) / count
    centre = (np.arange(places) + 0.5) / places
    tangent = angle * ndtr((share - centre[:, None]) / width)
    line = np.stack([np.cos(tangent), np.sin(tangent)]).cumsum(axis=2) * (256 / count)
    means = line.reshape(2, places, 1, places, _SPREAD).mean(axis=4)
    shape = measure_shape(means, window)
    return np.asarray(excess(shape.turn)[:, 0] / angle, np.float32)


def _opened(bend_rad: Floats) -> Floats:
    return np.maximum(np.abs(bend_rad), np.float32(_LEAST_BEND_RAD))


def _from_here_on(values: Floats) -> Floats:
    return np.cumsum(values[:, ::-1], axis=1)[:, ::-1]


def _before(values: Floats) -> Floats:
    # Not total less rest: near frame 0, where the bend is small, nothing would be left of it.
    sums = np.zeros_like(values)
    np.cumsum(values[:, :-1], axis=1, out=sums[:, 1:])
    return sums
