"""Features of one panel, written out plainly in double precision: the oracle of the fast ones."""

from itertools import pairwise

import numpy as np
import scipy.signal
import scipy.stats

HALF, WINDOW, CHANGE, THICKNESS_UM = 2, 7, 5, 90.0


def slow_means(points, places):
    """Place means of points (2, n_frames, n): clip to the neighbours' range, then integrate."""
    points = points.astype(float)
    n_frames, count = points.shape[1:]
    chord = np.linalg.norm(points[:, 0, -1] - points[:, 0, 0])
    limit = int(1 + 0.5 * np.pi * chord / count**2)
    bounds = np.linspace(0, count - 1, places + 1)
    means = np.empty((2, n_frames, places))
    for axis in range(2):
        for f in range(n_frames):
            row = points[axis, f].copy()
            for i in range(1, count - 1):
                around = points[axis, f, i - 1], points[axis, f, i + 1]
                row[i] = min(max(row[i], min(around) - limit), max(around) + limit)
            for g, (a, b) in enumerate(pairwise(bounds)):
                knots = [a, *range(int(np.floor(a)) + 1, int(np.ceil(b))), b]
                heights = np.interp(knots, np.arange(count), row)
                means[axis, f, g] = np.trapezoid(heights, knots) / (b - a)
    return means - points[:, :1, :1]


def slow_turn(means):
    """κL of places, by unwrapped tangent angles and scipy's filter; and length and bend angle."""
    places = means.shape[-1]
    tangent = scipy.signal.savgol_filter(means, 2 * HALF + 1, 1, deriv=1)
    tangent = tangent[..., HALF:-HALF]
    angle = np.unwrap(np.arctan2(tangent[1], tangent[0]), axis=-1)
    step = np.hypot(*tangent)
    mean_step = np.pad(step, ((0, 0), (HALF, HALF)), mode="edge").mean(axis=-1, keepdims=True)
    slope = scipy.signal.savgol_filter(angle, 2 * HALF + 1, 1, deriv=1)
    turn = (slope * places / np.maximum(step / mean_step, 0.1))[:, HALF:-HALF]
    turn = np.pad(turn, ((0, 0), (2 * HALF, 2 * HALF)), mode="edge")
    between = places - 2 * HALF - 4  # places between the middles of the two means below
    bend = (angle[:, -4:].mean(axis=-1) - angle[:, :4].mean(axis=-1)) * places / between
    normal = np.stack([-tangent[1], tangent[0]]) / np.hypot(*tangent)
    normal = np.pad(normal, ((0, 0), (0, 0), (HALF, HALF)), mode="edge")
    return turn, mean_step[:, 0] * places, bend, normal


def slow_change(excess):
    n_frames = len(excess)
    change = np.zeros_like(excess)
    for f in range(1, n_frames):
        late, early = excess[f : f + CHANGE], excess[max(f - CHANGE, 0) : f]
        scale = np.sqrt(2 / (CHANGE / len(late) + CHANGE / len(early)))
        change[f] = scale * (late.mean(axis=0) - early.mean(axis=0))
    return change


def slow_features(points, fps, metres_per_pixel, places=64):
    """Frame columns, panel columns and maps of points (2, n_frames, n), by name."""
    means = slow_means(points, places)
    turn, length, bend, normal = slow_turn(means)
    excess = turn - np.median(turn, axis=-1, keepdims=True)
    change = slow_change(excess)

    def in_time(values, order):
        return scipy.signal.savgol_filter(values, WINDOW, 2, deriv=order, delta=1 / fps, axis=1)

    velocity, acceleration = in_time(means, 1), in_time(means, 2)
    clamp = slice(0, places // 16)

    def across(vectors):
        own = vectors - vectors[..., clamp].mean(axis=-1, keepdims=True)
        return (own * normal).sum(axis=0) / length[:, None]

    maps = {
        "curvature": turn,
        "curvature_excess": excess,
        "curvature_change": change,
        "velocity": across(velocity),
        "acceleration": across(acceleration),
    }
    curvature = turn / length[:, None]
    size = np.abs(curvature)
    kink = np.abs(scipy.signal.convolve(excess, np.ones((1, 7)), mode="valid")) / places
    kink = kink[:, 2 * HALF : -2 * HALF]
    impact = np.linalg.norm(np.diff(means, n=2, axis=1), axis=0) * fps
    impact = np.pad(impact, ((1, 1), (0, 0)), mode="edge")
    frame = {
        "length_px": length,
        "length_m": length * metres_per_pixel,
        "chord_share": np.linalg.norm(means[..., -1] - means[..., 0], axis=0) / length,
        "spread_share": np.sqrt(means.var(axis=-1).sum(axis=0)) / length,
        "bend_angle_deg": np.degrees(bend),
        "curvature_mean_per_px": size.mean(axis=-1),
        "curvature_max_per_px": size.max(axis=-1),
        "curvature_std_per_px": curvature.std(axis=-1),
        "curvature_max_per_m": size.max(axis=-1) / metres_per_pixel,
        "curvature_concentration": size.max(axis=-1) / size.mean(axis=-1),
        "curvature_participation": size.sum(axis=-1) ** 2 / places / (size**2).sum(axis=-1),
        "curvature_max_place": (size.argmax(axis=-1) + 0.5) / places,
        "strain_max": THICKNESS_UM * 1e-6 * size.max(axis=-1) / metres_per_pixel / 2,
        "excess_max_rad": np.abs(excess).max(axis=-1),
        "excess_rms_rad": np.sqrt((excess**2).mean(axis=-1)),
        "kink_deg": np.degrees(kink.max(axis=-1)),
        "change_max_rad": np.abs(change).max(axis=-1),
        "roughness_px": np.sqrt((np.diff(means, n=3) ** 2).mean(axis=(0, 2)) / 20),
        "velocity_x_px_s": velocity[0].mean(axis=-1),
        "velocity_y_px_s": velocity[1].mean(axis=-1),
        "clamp_y_px": (means[1] - means[1, :1])[:, clamp].mean(axis=-1),
    }
    for name, values, unit in (
        ("speed", np.linalg.norm(velocity, axis=0), "s"),
        ("acceleration", np.linalg.norm(acceleration, axis=0), "s2"),
        ("impact", impact, "s"),
    ):
        for statistic in ("mean", "max", "std"):
            frame[f"{name}_{statistic}_px_{unit}"] = getattr(values, statistic)(axis=-1)
            frame[f"{name}_{statistic}_m_{unit}"] = (
                getattr(values, statistic)(axis=-1) * metres_per_pixel
            )
    for name, rate, order in (
        ("bend_angle_deg", "bend_rate_deg_s", 1),
        ("bend_angle_deg", "bend_rate2_deg_s2", 2),
        ("speed_mean_px_s", "speed_mean_rate_px_s2", 1),
        ("curvature_max_per_px", "curvature_max_rate2_per_px_s2", 2),
    ):
        frame[rate] = in_time(frame[name][None], order)[0]
    third = len(excess) // 3
    late = np.convolve(excess[-third:].mean(axis=0), np.ones(7), mode="valid") / places
    panel = {
        "length_median_px": np.median(length),
        "bend_end_deg": np.degrees(bend[-max(1, len(bend) // 10) :].mean()),
        "change_peak": np.abs(change).max() / np.sqrt((change**2).mean()),
        "kink_end_deg": np.degrees(np.abs(late[2 * HALF : -2 * HALF]).max()),
    }
    for name in ("bend_rate_deg_s", "speed_mean_px_s", "kink_deg"):
        for statistic, value in slow_statistics(frame[name], fps).items():
            panel[f"{name}_{statistic}"] = value
    return frame, panel, maps


def slow_statistics(series, fps):
    """Statistics of one series by scipy and plain sums."""
    frequencies, power = scipy.signal.periodogram(series, fps, scaling="spectrum")
    centred = series - series.mean()
    return {
        "mean": series.mean(),
        "std": series.std(),
        "max": series.max(),
        "time_of_max": series.argmax() / (len(series) - 1),
        "skewness": scipy.stats.skew(series),
        "kurtosis": scipy.stats.kurtosis(series),
        "lag1": (centred[1:] * centred[:-1]).sum() / (centred**2).sum(),
        "lag2": (centred[2:] * centred[:-2]).sum() / (centred**2).sum(),
        "dominant_hz": frequencies[1:][power[1:].argmax()],
        "power": power[1:].max(),
        "entropy_bits": scipy.stats.entropy(power[1:], base=2),
    }
