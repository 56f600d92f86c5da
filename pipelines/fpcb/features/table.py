"""Every feature column: its name, unit, formula and source. Code, docs and report read this table.

Symbols: r(f, s) is the mean position of place s in frame f, v and a its Savitzky–Golay
derivatives in time, φ(s) the tangent angle, κ = dφ/ds the curvature, L the length of the board in
that frame, θ the bend angle, x̂ = κL − median over places, m/px the scale of the panel. Means,
maxima and spreads of a frame are over places. Columns in SI units are NaN where m/px is unknown.
"""

from dataclasses import dataclass
from typing import Literal

from cluster.fingerprint import fingerprint
from pipelines.fpcb.features.series import STATISTICS

Level = Literal["frame", "panel", "map"]


@dataclass(frozen=True)
class Column:
    """One feature: its name and level, its unit (1: none), formula, and source."""

    level: Level
    name: str
    unit: str
    formula: str
    source: str


_SAVGOL = "Savitzky and Golay, Anal. Chem. 36 (1964) 1627"
_PLANE = "do Carmo, Differential Geometry of Curves and Surfaces, §1.5"
_BEAM = "Timoshenko, Strength of Materials I, §22: ε = tκ/2 at the face"
_OWN = "this job: what a kink looks like"
_CAMERA = "this job: what camera and light do"
_KINEMATICS = f"kinematics of a point; {_SAVGOL}"

_FRAME = [
    # shape
    ("length_px", "px", "L = Σ |dr/ds| ds", _PLANE),
    ("length_m", "m", "L · m/px", _PLANE),
    ("chord_share", "1", "|r(last) − r(first)| / L", _PLANE),
    ("spread_share", "1", "root mean square distance of places from their mean / L", _PLANE),
    ("tip_x_share", "1", "(r(last) − clamp)_x / L; clamp = mean of the first places", _PLANE),
    ("tip_y_share", "1", "(r(last) − clamp)_y / L", _PLANE),
    ("bend_angle_deg", "deg", "θ: angle from the first to the last tangent, + from x to y", _PLANE),
    ("curvature_mean_per_px", "1/px", "mean |κ|", _PLANE),
    ("curvature_max_per_px", "1/px", "max |κ|", _PLANE),
    ("curvature_std_per_px", "1/px", "standard deviation of κ", _PLANE),
    ("curvature_mean_per_m", "1/m", "mean |κ| / (m/px)", _PLANE),
    ("curvature_max_per_m", "1/m", "max |κ| / (m/px)", _PLANE),
    ("curvature_max_place", "1", "share of the length where |κ| is largest", _PLANE),
    ("curvature_concentration", "1", "max |κ| / mean |κ|; 0 for a board without curvature", _OWN),
    ("curvature_participation", "1", "(Σ|κ|)² / (n Σκ²): share of the board that bends", _OWN),
    ("curvature_lean", "1", "Σ κ (2s − 1) / Σ |κ|: bent more towards the free end", _OWN),
    ("strain_mean", "1", "t · mean |κ| / 2", _BEAM),
    ("strain_max", "1", "t · max |κ| / 2", _BEAM),
    ("excess_max_rad", "rad", "max |x̂|", _OWN),
    ("excess_max_place", "1", "share of the length where |x̂| is largest", _OWN),
    ("excess_rms_rad", "rad", "root mean square of x̂", _OWN),
    ("kink_deg", "deg", "largest |Σ x̂ ds/L| over 7 neighbouring places", _OWN),
    ("kink_place", "1", "share of the length at the middle of those places", _OWN),
    ("change_max_rad", "rad", "max |c|, c the map curvature_change", _OWN),
    ("change_max_place", "1", "share of the length where |c| is largest", _OWN),
    ("roughness_px", "px", "√(Σ|Δ³r|² / 40n) along the board: noise of a place", _CAMERA),
    # motion
    ("speed_mean_px_s", "px/s", "mean |v|", _KINEMATICS),
    ("speed_max_px_s", "px/s", "max |v|", _KINEMATICS),
    ("speed_std_px_s", "px/s", "standard deviation of |v|", _KINEMATICS),
    ("speed_mean_m_s", "m/s", "mean |v| · m/px", _KINEMATICS),
    ("speed_max_m_s", "m/s", "max |v| · m/px", _KINEMATICS),
    ("speed_std_m_s", "m/s", "standard deviation of |v| · m/px", _KINEMATICS),
    ("speed_max_place", "1", "share of the length where |v| is largest", _KINEMATICS),
    ("acceleration_mean_px_s2", "px/s²", "mean |a|", _KINEMATICS),
    ("acceleration_max_px_s2", "px/s²", "max |a|", _KINEMATICS),
    ("acceleration_std_px_s2", "px/s²", "standard deviation of |a|", _KINEMATICS),
    ("acceleration_mean_m_s2", "m/s²", "mean |a| · m/px", _KINEMATICS),
    ("acceleration_max_m_s2", "m/s²", "max |a| · m/px", _KINEMATICS),
    ("acceleration_std_m_s2", "m/s²", "standard deviation of |a| · m/px", _KINEMATICS),
    ("acceleration_max_place", "1", "share of the length where |a| is largest", _KINEMATICS),
    ("impact_mean_px_s", "px/s", "mean |a| dt, a = Δ²r / dt² unsmoothed", "kinematics of a point"),
    ("impact_max_px_s", "px/s", "max |a| dt", "kinematics of a point"),
    ("impact_std_px_s", "px/s", "standard deviation of |a| dt", "kinematics of a point"),
    ("impact_mean_m_s", "m/s", "mean |a| dt · m/px", "kinematics of a point"),
    ("impact_max_m_s", "m/s", "max |a| dt · m/px", "kinematics of a point"),
    ("impact_std_m_s", "m/s", "standard deviation of |a| dt · m/px", "kinematics of a point"),
    ("impact_max_place", "1", "share of the length where |a| dt is largest", _OWN),
    ("velocity_x_px_s", "px/s", "mean v_x", _KINEMATICS),
    ("velocity_y_px_s", "px/s", "mean v_y", _KINEMATICS),
    ("acceleration_x_px_s2", "px/s²", "mean a_x", _KINEMATICS),
    ("acceleration_y_px_s2", "px/s²", "mean a_y", _KINEMATICS),
    ("tip_speed_px_s", "px/s", "|v(last)|", _KINEMATICS),
    ("tip_acceleration_px_s2", "px/s²", "|a(last)|", _KINEMATICS),
    ("normal_speed_rms_per_s", "1/s", "root mean square of the map velocity", _KINEMATICS),
    ("normal_acceleration_rms_per_s2", "1/s²", "same of the map acceleration", _KINEMATICS),
    ("normal_acceleration_max_place", "1", "share of the length where that is largest", _OWN),
    ("clamp_x_px", "px", "clamp_x less its value in the first frame: sway, drift", _CAMERA),
    ("clamp_y_px", "px", "clamp_y less its value in the first frame", _CAMERA),
    ("clamp_speed_px_s", "px/s", "|v| of the clamp", _CAMERA),
    ("clamp_acceleration_px_s2", "px/s²", "|a| of the clamp: the shake after a crack", _CAMERA),
    ("clamp_jump_px", "px", "|Δ²(mean of the first places)|: the image hops", _CAMERA),
    # first and second changes in time
    ("bend_rate_deg_s", "deg/s", "dθ/dt", _SAVGOL),
    ("bend_rate2_deg_s2", "deg/s²", "d²θ/dt²", _SAVGOL),
    ("chord_share_rate_per_s", "1/s", "d chord_share / dt", _SAVGOL),
    ("chord_share_rate2_per_s2", "1/s²", "d² chord_share / dt²", _SAVGOL),
    ("curvature_mean_rate_per_px_s", "1/(px s)", "d mean |κ| / dt", _SAVGOL),
    ("curvature_mean_rate2_per_px_s2", "1/(px s²)", "d² mean |κ| / dt²", _SAVGOL),
    ("curvature_max_rate_per_px_s", "1/(px s)", "d max |κ| / dt", _SAVGOL),
    ("curvature_max_rate2_per_px_s2", "1/(px s²)", "d² max |κ| / dt²", _SAVGOL),
    ("concentration_rate_per_s", "1/s", "d curvature_concentration / dt", _SAVGOL),
    ("concentration_rate2_per_s2", "1/s²", "d² curvature_concentration / dt²", _SAVGOL),
    ("strain_max_rate_per_s", "1/s", "d strain_max / dt", f"{_BEAM}; {_SAVGOL}"),
    ("kink_rate_deg_s", "deg/s", "d kink_deg / dt", _SAVGOL),
    ("kink_rate2_deg_s2", "deg/s²", "d² kink_deg / dt²", _SAVGOL),
    ("speed_mean_rate_px_s2", "px/s²", "d mean |v| / dt", _SAVGOL),
    ("speed_mean_rate2_px_s3", "px/s³", "d² mean |v| / dt²", _SAVGOL),
    ("acceleration_mean_rate_px_s3", "px/s³", "d mean |a| / dt", _SAVGOL),
    ("acceleration_mean_rate2_px_s4", "px/s⁴", "d² mean |a| / dt²", _SAVGOL),
]

KEY_SERIES = (
    "bend_angle_deg",
    "bend_rate_deg_s",
    "curvature_max_per_px",
    "curvature_concentration",
    "excess_max_rad",
    "kink_deg",
    "change_max_rad",
    "speed_mean_px_s",
    "acceleration_mean_px_s2",
    "impact_max_px_s",
    "clamp_acceleration_px_s2",
)
"""Frame columns whose course over the panel is summed up by ``STATISTICS``."""

# statistic: unit ("" = that of the series, "²" = its square), formula, source
_STATISTIC: dict[str, tuple[str, str, str]] = {
    "mean": ("", "x̄ = mean over frames", "elementary"),
    "std": ("", "σ = √mean (x − x̄)²", "elementary"),
    "max": ("", "max over frames", "elementary"),
    "time_of_max": ("1", "frame of the maximum / last frame", "elementary"),
    "skewness": ("1", "mean (x − x̄)³ / σ³", "scipy.stats.skew"),
    "kurtosis": ("1", "mean (x − x̄)⁴ / σ⁴ − 3", "scipy.stats.kurtosis"),
    "lag1": ("1", "Σ z_t z_{t+1} / Σ z_t², z = x − x̄", "Box and Jenkins, §2.1.5"),
    "lag2": ("1", "Σ z_t z_{t+2} / Σ z_t²", "Box and Jenkins, §2.1.5"),
    "dominant_hz": ("Hz", "frequency of the largest line P_k", "scipy.signal.periodogram"),
    "power": ("²", "largest line P_k of the spectrum of z", "scipy.signal.periodogram"),
    "entropy_bits": ("bit", "−Σ p_k log₂ p_k, p = P / ΣP", "Shannon 1948"),
}

_PANEL = [
    ("length_median_px", "px", "median of length_px over frames", _PLANE),
    ("length_median_m", "m", "the same · m/px", _PLANE),
    ("roughness_median_px", "px", "median of roughness_px over frames", _CAMERA),
    ("bend_end_deg", "deg", "mean θ over the last tenth of the frames", _PLANE),
    ("bend_half_time_s", "s", "first time with |θ| at half of |bend_end| or above", _OWN),
    ("bend_rise_time_s", "s", "from a tenth to nine tenths of |bend_end|", _OWN),
    ("change_peak", "1", "max |c| / root mean square of c over frames and places", _OWN),
    ("change_peak_time", "1", "frame of that maximum / last frame", _OWN),
    ("change_peak_place", "1", "share of the length of that maximum", _OWN),
    ("kink_end_deg", "deg", "kink_deg of x̂ averaged over the last third of the frames", _OWN),
    ("kink_end_place", "1", "share of the length of that kink", _OWN),
    ("kink_start_deg", "deg", "the same over the first third", _OWN),
]

_MAP = [
    ("curvature", "rad", "κL: turn of the whole board, were it bent like this place", _PLANE),
    ("curvature_excess", "rad", "x̂ = κL − median over places: 0 in a smooth bend", _OWN),
    (
        "curvature_change",
        "rad",
        "c: mean x̂ of this and the next frames − mean of the frames before, at even noise",
        "matched filter of a step; this job",
    ),
    ("velocity", "1/s", "normal part of (v − v of the clamp) / L", _KINEMATICS),
    ("acceleration", "1/s²", "normal part of (a − a of the clamp) / L", _KINEMATICS),
]


def _unit(series: str, unit: str) -> str:
    own = next(row[1] for row in _FRAME if row[0] == series)
    if unit == "²":
        return f"({own})²" if own != "1" else "1"
    return unit or own


COLUMNS: tuple[Column, ...] = (
    *(Column("frame", *row) for row in _FRAME),
    *(
        Column("panel", f"{series}_{name}", _unit(series, unit), f"x = {series}: {formula}", source)
        for series in KEY_SERIES
        for name, (unit, formula, source) in ((name, _STATISTIC[name]) for name in STATISTICS)
    ),
    *(Column("panel", *row) for row in _PANEL),
    *(Column("map", *row) for row in _MAP),
)

CODE_VERSION = 1
"""Raise it when the same columns are computed in another way."""

FEATURE_VERSION = f"{CODE_VERSION}-{fingerprint(COLUMNS)[:8]}"
"""Part of every cache key: changes with the code version and with any word of the table."""


def names(level: Level) -> tuple[str, ...]:
    """Names of a level's columns, in the order of its array."""
    return tuple(column.name for column in COLUMNS if column.level == level)
