"""Features of panels, from their points alone: per frame, per panel, and frame × place maps.

``table.COLUMNS`` defines every column. A panel's features are the same bytes alone or in
any batch: points become means over places panel by panel, and what follows works on each panel by
itself, chunk by chunk.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cluster.errors import InputError
from pipelines.fpcb.features import geometry, kinematics
from pipelines.fpcb.features.frame_columns import (
    Measured,
    change_columns,
    clamped,
    motion_columns,
    shape_columns,
)
from pipelines.fpcb.features.geometry import Floats
from pipelines.fpcb.features.places import place_means
from pipelines.fpcb.features.series import STATISTICS, series_statistics
from pipelines.fpcb.features.table import KEY_SERIES, names
from pipelines.fpcb.panels import PanelBatch

_CHUNK = 32  # panels whose arrays together stay in a core's cache
_LEAST_POINTS = 4
_LEAST_PLACES_A_WINDOW = 8
_LARGEST_HALF = np.finfo(np.float16).max.view(np.uint16)


@dataclass(frozen=True, kw_only=True)
class FeatureConfig:
    """How points become features."""

    places: int = field(
        default=64, metadata={"help": "Equal shares of the board that the maps resolve."}
    )
    curvature_window_places: int = field(
        default=5, metadata={"help": "Places in a fit of tangent or curvature; odd."}
    )
    time_window_frames: int = field(
        default=7, metadata={"help": "Frames in a fit of velocity and acceleration; odd."}
    )
    change_window_frames: int = field(
        default=5, metadata={"help": "Frames before and after that a sudden change compares."}
    )
    nominal_thickness_um: float = field(
        default=90.0, metadata={"help": "Thickness of the board that strain assumes, µm."}
    )

    def __post_init__(self) -> None:
        for name in ("curvature_window_places", "time_window_frames"):
            if (value := getattr(self, name)) < 3 or value % 2 == 0:
                raise InputError(_option(name), "no window", "an odd number ≥ 3", value, "Pass 5.")
        if self.places < (least := _LEAST_PLACES_A_WINDOW * self.curvature_window_places):
            raise InputError("--places", "too few", f"{least} or more", self.places, "Pass 64.")
        if self.change_window_frames < 1:
            raise InputError(
                "--change-window-frames", "too few", "1 or more", self.change_window_frames
            )
        if not 0 < self.nominal_thickness_um < np.inf:
            raise InputError(
                "--nominal-thickness-um", "no thickness", "> 0", self.nominal_thickness_um
            )

    @property
    def reach_frames(self) -> int:
        """Frames to either side that any feature of a frame may look at, but for the ends.

        A first or last frame looks at a whole time window. Shape alone, up to ``roughness_px``
        save ``change_*`` and the changes in time, looks at its own frame.
        """
        return max(2 * (self.time_window_frames // 2), self.change_window_frames)


@dataclass(frozen=True, eq=False)
class Features:
    """Features of panels; ``table.names(level)`` names the columns.

    Attributes
    ----------
    number : ndarray (n,), int64
    frame : ndarray (n, n_frames, k), float32
    panel : ndarray (n, m), float32
    maps : ndarray (n, channels, n_frames, places), float16
        Place g is the share from g/places to (g + 1)/places of the board. Places too near an end
        for a window repeat the nearest one that has it.
    """

    number: npt.NDArray[np.int64]
    frame: npt.NDArray[np.float32]
    panel: npt.NDArray[np.float32]
    maps: npt.NDArray[np.float16]


def extract(batch: PanelBatch, config: FeatureConfig | None = None) -> Features:
    """Compute all features of a batch.

    Columns in SI units, and strain, are NaN where metres per pixel is unknown; all else is finite,
    whatever the points. From fewer points than places the board is taken as the broken line
    through them.

    Raises
    ------
    ValueError
        Fewer than 2 frames or 4 points, more points than the arrays hold, fps or metres per
        pixel not above 0.
    """
    config = config or FeatureConfig()
    _check(batch)
    n, n_frames = len(batch), batch.n_frames
    frame = np.empty((n, n_frames, len(names("frame"))), np.float32)
    panel = np.empty((n, len(names("panel"))), np.float32)
    maps = np.empty((n, len(names("map")), n_frames, config.places), np.float16)
    for start in range(0, n, _CHUNK):
        part = slice(start, start + _CHUNK)
        measured = _measure(batch, part, config)
        columns = shape_columns(measured, config.nominal_thickness_um) | motion_columns(measured)
        columns |= change_columns(columns, measured.fps, config.time_window_frames)
        _fill(frame[part], names("frame"), columns)
        _fill(panel[part], names("panel"), _panel_columns(measured, columns, batch.fps[part]))
        _draw(maps[part], measured)
    return Features(batch.number, frame, panel, maps)


def _measure(batch: PanelBatch, part: slice, config: FeatureConfig) -> Measured:
    means = place_means(batch.points[part], batch.n_points[part], config.places)
    fps = batch.fps[part].astype(np.float32)
    shape = geometry.measure_shape(means, config.curvature_window_places)
    excess = geometry.excess(shape.turn)
    velocity, acceleration = kinematics.derivatives(means, fps, config.time_window_frames)
    clamp = config.places // 16
    normal = _normal(shape)
    return Measured(
        means=means,
        shape=shape,
        excess=excess,
        change=kinematics.steps(excess, config.change_window_frames),
        velocity=velocity,
        acceleration=acceleration,
        normal_velocity=_across(velocity, normal, clamp),
        normal_acceleration=_across(acceleration, normal, clamp),
        fps=fps,
        metres_per_pixel=batch.metres_per_pixel[part].astype(np.float32),
        clamp=clamp,
        window=config.curvature_window_places,
    )


def _normal(shape: geometry.Shape) -> Floats:
    """Unit normal of each place, over the length of the board; 0 where places coincide."""
    inverse = 1 / np.maximum(shape.step_px * shape.length_px[..., None], geometry.TINY)
    normal = np.empty_like(shape.tangent)
    np.multiply(shape.tangent[0], inverse, out=normal[1])
    np.negative(inverse, out=inverse)
    np.multiply(shape.tangent[1], inverse, out=normal[0])
    return normal


def _across(vectors: Floats, normal: Floats, clamp: int) -> Floats:
    """Part of ``vectors`` along the normal, after taking off what the clamped end does."""
    own = vectors - clamped(vectors, clamp)[..., None]
    own *= normal
    own[0] += own[1]
    return own[0]


def _panel_columns(
    at: Measured, columns: dict[str, Floats], fps: npt.NDArray[np.float64]
) -> dict[str, npt.NDArray[np.floating]]:
    series = np.stack([columns[name] for name in KEY_SERIES], axis=1).astype(np.float64)
    statistics = series_statistics(series, fps)
    summary: dict[str, npt.NDArray[np.floating]] = {
        f"{name}_{statistic}": statistics[statistic][:, k]
        for k, name in enumerate(KEY_SERIES)
        for statistic in STATISTICS
    }
    length = np.median(columns["length_px"], axis=-1)
    summary |= {
        "length_median_px": length,
        "length_median_m": length * at.metres_per_pixel,
        "roughness_median_px": np.median(columns["roughness_px"], axis=-1),
    }
    return summary | _bend_times(columns["bend_angle_deg"], fps) | _damage(at)


def _bend_times(
    bend_deg: Floats, fps: npt.NDArray[np.float64]
) -> dict[str, npt.NDArray[np.floating]]:
    few = max(1, bend_deg.shape[1] // 10)
    end = bend_deg[:, -few:].sum(axis=-1) / np.float32(few)
    share = np.abs(bend_deg)
    reached = {
        level: (share >= level * np.abs(end)[:, None]).argmax(axis=-1) / fps
        for level in (0.1, 0.5, 0.9)
    }
    return {
        "bend_end_deg": end,
        "bend_half_time_s": reached[0.5],
        "bend_rise_time_s": reached[0.9] - reached[0.1],
    }


def _damage(at: Measured) -> dict[str, npt.NDArray[np.floating]]:
    """The largest sudden change over frames and places, and the kink at either end of the run."""
    n, n_frames, places = at.change.shape
    change = np.abs(at.change).reshape(n, -1)
    where = change.argmax(axis=-1)
    largest = change[np.arange(n), where]
    noise = np.sqrt(np.vecdot(change, change) / np.float32(change.shape[-1]))
    third = max(1, n_frames // 3)
    first = _kink_of_mean(at.excess[:, :third], at.window)
    last = _kink_of_mean(at.excess[:, n_frames - third :], at.window)
    return {
        "change_peak": np.divide(largest, noise, out=np.zeros_like(noise), where=noise > 0),
        "change_peak_time": where // places / (n_frames - 1),
        "change_peak_place": at.share(where % places),
        "kink_end_deg": np.degrees(last.max(axis=-1)),
        "kink_end_place": at.share(last.argmax(axis=-1)),
        "kink_start_deg": np.degrees(first.max(axis=-1)),
    }


def _kink_of_mean(excess: Floats, window: int) -> Floats:
    # Kept three-dimensional: a product over all panels at once would round with the batch.
    mean = excess.sum(axis=1, keepdims=True) * np.float32(1 / excess.shape[1])
    return np.abs(geometry.kinks(mean, window))[:, 0]


def _draw(maps: npt.NDArray[np.float16], at: Measured) -> None:
    channels = {
        "curvature": at.shape.turn,
        "curvature_excess": at.excess,
        "curvature_change": at.change,
        "velocity": at.normal_velocity,
        "acceleration": at.normal_acceleration,
    }
    for k, name in enumerate(names("map")):
        maps[:, k] = halves(channels[name])


def halves(values: Floats) -> npt.NDArray[np.float16]:
    """Round finite single precision to half precision, and hold it at ±65504.

    As ``astype`` does for normal numbers, in half its time: 2⁻¹¹² shifts the exponent so
    that it is half precision's, 13 bits further up.
    """
    bits = (values * np.float32(2.0**-112)).view(np.uint32)
    sign = bits >> 16
    sign &= 0x8000
    bits &= 0x7FFFFFFF
    half = bits >> 13
    half &= 1  # ties go to the even neighbour
    half += bits
    half += 0xFFF
    half >>= 13
    np.minimum(half, _LARGEST_HALF, out=half)
    half |= sign
    return half.astype(np.uint16).view(np.float16)


def _fill(
    out: npt.NDArray[np.float32],
    order: tuple[str, ...],
    columns: dict[str, Floats] | dict[str, npt.NDArray[np.floating]],
) -> None:
    for k, name in enumerate(order):
        out[..., k] = columns[name]


def _check(batch: PanelBatch) -> None:
    n_points, scale = batch.n_points, batch.metres_per_pixel
    for name, bad, expected in (
        ("n_frames", np.array([batch.n_frames < 2]), "2 or more"),
        ("n_points", n_points < _LEAST_POINTS, f"{_LEAST_POINTS} or more"),
        ("n_points", n_points > batch.points.shape[3], f"at most {batch.points.shape[3]}"),
        ("fps", ~((batch.fps > 0) & np.isfinite(batch.fps)), "above 0"),
        ("metres_per_pixel", (scale <= 0) | np.isinf(scale), "above 0, or NaN"),
    ):
        if bad.any():
            value = batch.n_frames if name == "n_frames" else getattr(batch, name)[bad][0]
            raise ValueError(f"{name}: expected {expected}, got {value}")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
