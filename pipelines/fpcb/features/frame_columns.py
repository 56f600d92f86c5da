"""The numbers of each frame: shape, motion, and their changes in time, under their table names."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.fpcb.features import geometry, kinematics
from pipelines.fpcb.features.geometry import Floats, Shape

_DEGREES = np.float32(180 / np.pi)


@dataclass(frozen=True, eq=False)
class Measured:
    """What all features of a chunk of panels are made from.

    Attributes
    ----------
    means : ndarray (2, n, n_frames, places), px
    shape : Shape
    excess, change : ndarray (n, n_frames, places), rad
        Turn beyond the smooth bend, and its step in time.
    velocity, acceleration : ndarray (2, n, n_frames, places), px/s and px/s²
    normal_velocity, normal_acceleration : ndarray (n, n_frames, places), 1/s and 1/s²
        Across the board, relative to its clamped end, in lengths of the board.
    fps, metres_per_pixel : ndarray (n,), float32
    clamp, window : int
        Places at the clamped end, and in a fit of tangent or curvature.
    """

    means: Floats
    shape: Shape
    excess: Floats
    change: Floats
    velocity: Floats
    acceleration: Floats
    normal_velocity: Floats
    normal_acceleration: Floats
    fps: Floats
    metres_per_pixel: Floats
    clamp: int
    window: int

    @property
    def places(self) -> int:
        """Places of the whole board."""
        return int(self.means.shape[-1])

    def share(self, index: npt.NDArray[np.intp]) -> Floats:
        """Share of the length at the middle of places."""
        return ((index + 0.5) / self.places).astype(np.float32)

    def peak(self, values: Floats) -> tuple[Floats, Floats]:
        """Largest of ``values`` over places, and its share of the length."""
        index = values.argmax(axis=-1)
        largest = np.take_along_axis(values, index[..., None], axis=-1)[..., 0]
        return largest, self.share(index)


def clamped(vectors: Floats, clamp: int) -> Floats:
    """Mean of ``vectors`` (2, n, n_frames, places) over the clamped end: (2, n, n_frames)."""
    weights = np.zeros(vectors.shape[-1], np.float32)
    weights[:clamp] = 1 / clamp
    return vectors @ weights


def shape_columns(at: Measured, thickness_um: float) -> dict[str, Floats]:
    """Columns of the shape alone, each (n, n_frames)."""
    shape, means, length = at.shape, at.means, at.shape.length_px
    per_metre = np.reciprocal(at.metres_per_pixel)[:, None]
    curvature = shape.curvature_per_px
    size = np.abs(curvature)
    mean = _mean(size)
    largest, largest_place = at.peak(size)
    squares = _mean_square(curvature)
    lean = np.linspace(-1, 1, at.places, dtype=np.float32)
    strain = geometry.strain(largest * per_metre, thickness_um)
    centred = means - _mean(means)[..., None]
    tip = means[..., -1] - clamped(means, at.clamp)
    kink = np.abs(geometry.kinks(at.excess, at.window))
    kink_largest, kink_place = at.peak(kink)
    excess_largest, excess_place = at.peak(np.abs(at.excess))
    change_largest, change_place = at.peak(np.abs(at.change))
    over_length = _reciprocal(length)
    return {
        "length_px": length,
        "length_m": length * at.metres_per_pixel[:, None],
        "chord_share": kinematics.norm(means[..., -1] - means[..., 0]) * over_length,
        "spread_share": np.sqrt(_mean_square(centred).sum(axis=0)) * over_length,
        "tip_x_share": tip[0] * over_length,
        "tip_y_share": tip[1] * over_length,
        "bend_angle_deg": shape.bend_rad * _DEGREES,
        "curvature_mean_per_px": mean,
        "curvature_max_per_px": largest,
        "curvature_std_per_px": _std(curvature),
        "curvature_mean_per_m": mean * per_metre,
        "curvature_max_per_m": largest * per_metre,
        "curvature_max_place": largest_place,
        "curvature_concentration": largest * _reciprocal(mean),
        "curvature_participation": mean * mean * _reciprocal(squares),
        "curvature_lean": np.vecdot(curvature, lean) / lean.size * _reciprocal(mean),
        "strain_mean": geometry.strain(mean * per_metre, thickness_um),
        "strain_max": strain,
        "excess_max_rad": excess_largest,
        "excess_max_place": excess_place,
        "excess_rms_rad": np.sqrt(_mean_square(at.excess)),
        "kink_deg": kink_largest * _DEGREES,
        "kink_place": kink_place,
        "change_max_rad": change_largest,
        "change_max_place": change_place,
        "roughness_px": geometry.roughness_px(means),
    }


def motion_columns(at: Measured) -> dict[str, Floats]:
    """Columns of speed, acceleration and impact, each (n, n_frames)."""
    speed = kinematics.norm(at.velocity)
    acceleration = kinematics.norm(at.acceleration)
    impact = kinematics.impacts(at.means, at.fps)
    columns: dict[str, Floats] = {}
    for name, values, unit in (
        ("speed", speed, "s"),
        ("acceleration", acceleration, "s2"),
        ("impact", impact, "s"),
    ):
        largest, place = at.peak(values)
        for statistic, value in (
            ("mean", _mean(values)),
            ("max", largest),
            ("std", _std(values)),
        ):
            columns[f"{name}_{statistic}_px_{unit}"] = value
            columns[f"{name}_{statistic}_m_{unit}"] = value * at.metres_per_pixel[:, None]
        columns[f"{name}_max_place"] = place

    velocity, push = _mean(at.velocity), _mean(at.acceleration)
    normal = np.abs(at.normal_acceleration)
    clamp = clamped(at.means, at.clamp)
    columns |= {
        "velocity_x_px_s": velocity[0],
        "velocity_y_px_s": velocity[1],
        "acceleration_x_px_s2": push[0],
        "acceleration_y_px_s2": push[1],
        "tip_speed_px_s": speed[..., -1],
        "tip_acceleration_px_s2": acceleration[..., -1],
        "normal_speed_rms_per_s": np.sqrt(_mean_square(at.normal_velocity)),
        "normal_acceleration_rms_per_s2": np.sqrt(_mean_square(normal)),
        "normal_acceleration_max_place": at.share(normal.argmax(axis=-1)),
        "clamp_x_px": clamp[0] - clamp[0, :, :1],
        "clamp_y_px": clamp[1] - clamp[1, :, :1],
        "clamp_speed_px_s": kinematics.norm(clamped(at.velocity, at.clamp)),
        "clamp_acceleration_px_s2": kinematics.norm(clamped(at.acceleration, at.clamp)),
        "clamp_jump_px": kinematics.impacts(clamp[..., None], np.ones_like(at.fps))[..., 0],
    }
    return columns


# First and second change in time: the column it is made from, and their names.
_CHANGES = (
    ("bend_angle_deg", "bend_rate_deg_s", "bend_rate2_deg_s2"),
    ("chord_share", "chord_share_rate_per_s", "chord_share_rate2_per_s2"),
    (
        "curvature_mean_per_px",
        "curvature_mean_rate_per_px_s",
        "curvature_mean_rate2_per_px_s2",
    ),
    ("curvature_max_per_px", "curvature_max_rate_per_px_s", "curvature_max_rate2_per_px_s2"),
    ("curvature_concentration", "concentration_rate_per_s", "concentration_rate2_per_s2"),
    ("strain_max", "strain_max_rate_per_s", ""),  # the second is that of max |κ|, rescaled
    ("kink_deg", "kink_rate_deg_s", "kink_rate2_deg_s2"),
    ("speed_mean_px_s", "speed_mean_rate_px_s2", "speed_mean_rate2_px_s3"),
    ("acceleration_mean_px_s2", "acceleration_mean_rate_px_s3", "acceleration_mean_rate2_px_s4"),
)


def change_columns(columns: dict[str, Floats], fps: Floats, window: int) -> dict[str, Floats]:
    """First and second derivatives in time of some of ``columns``, each (n, n_frames)."""
    series = np.stack([columns[source] for source, _, _ in _CHANGES], axis=-1)
    first, second = kinematics.derivatives(series, fps, window)
    changes = {}
    for k, (_, rate, rate2) in enumerate(_CHANGES):
        changes[rate] = first[..., k]
        if rate2:
            changes[rate2] = second[..., k]
    return changes


def _mean(values: Floats) -> Floats:
    """Mean over places (..., n_frames, places): a product a panel, faster than a sum a row."""
    return values @ np.full(values.shape[-1], 1 / values.shape[-1], np.float32)


def _std(values: Floats) -> Floats:
    centred = values - _mean(values)[..., None]
    return np.sqrt(_mean_square(centred))


def _mean_square(values: Floats) -> Floats:
    return np.vecdot(values, values) * np.float32(1 / values.shape[-1])


def _reciprocal(values: Floats) -> Floats:
    """1 / values; 0 where they are 0."""
    return np.divide(1, values, out=np.zeros_like(values), where=values != 0)
