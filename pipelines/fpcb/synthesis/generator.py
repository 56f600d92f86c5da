"""Synthetic panels: points as a camera sees them, and the truth behind them.

A cracked panel is, before its crack, the good panel of the same seed and number, to the byte:
``generate`` it again with ``scenario="normal"``. From ``damage_frame`` on its curvature gathers at
the hinge, it aims at another angle and follows the drive with another response; from
``crack_frame`` on it jolts and shakes. The two frames are the same except for panels that came in
damaged (``pre_damage``) and with ``onset="from_start"``: there ``damage_frame`` is 0.

An over-cured panel (``uv_overcured``) bends as a good one until its coating cracks; then it sticks
for a while and snaps (see ``stuck_drive``). Late from the start, as in the table, it would be told
by its first frames.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.fpcb.panels import PanelBatch
from pipelines.fpcb.scenarios import NAMES, RESPONSE, column
from pipelines.fpcb.synthesis import camera, physics
from pipelines.fpcb.synthesis.config import REFERENCE_PX_PER_MM, GenerateConfig
from pipelines.fpcb.synthesis.plan import Plan, make_plan, truth_of
from pipelines.fpcb.synthesis.variation import MOST_POINTS

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_CHUNK = 64  # panels whose factors stay in the cache until they are multiplied
_REFERENCE_FPS = 30.0  # of the frames that the table counts
_LIGHT_DISTORTION = NAMES.index("light_distortion")


def generate(config: GenerateConfig, numbers: npt.ArrayLike) -> tuple[PanelBatch, pa.Table]:
    """Make the panels with these numbers, each in [0, config.panels).

    A panel's bytes depend on ``config`` and its own number, not on the rest of the batch.

    Returns
    -------
    panels : PanelBatch
    truth : Table
        A row a panel; see ``truth_table``.

    Raises
    ------
    InputError
        If a number is outside the data set.
    """
    plan = make_plan(config, numbers)
    n_points, n = plan.nuisances.n_points, plan.number.size
    points = np.zeros((n, 2, config.frames, int(n_points.max(initial=0))), np.int16)
    # Without noise, single precision would show in points halfway between two pixels.
    precision = np.float32 if config.noise > 0 else np.float64
    for row, curve in enumerate(draw_curves(config, plan)):
        count = int(n_points[row])
        seen: npt.NDArray[np.floating] = curve[:, :, :count].astype(precision)
        seen += _noise(config, plan, row)
        camera.to_pixels(seen, out=points[row, :, :, :count])
        camera.hold_inside(points[row], config.width_px, config.height_px)
    batch = PanelBatch(
        number=plan.number,
        points=points,
        n_points=n_points.astype(np.int32),
        fps=np.full(n, config.fps),
        metres_per_pixel=1e-3 / plan.nuisances.px_per_mm,
    )
    return batch, truth_of(config, plan)


def bend(config: GenerateConfig, plan: Plan) -> Floats:
    """Return the bend angle of each frame (n, n_frames), rad."""
    drawn, frames = plan.nuisances, np.arange(config.frames)
    u = frames / (config.frames - 1)
    damaged = frames >= plan.damage_frame[:, None]

    good = physics.good_drive(u, drawn.start, drawn.duration, drawn.drive_power)
    stuck = physics.stuck_drive(
        good,
        u,
        since=np.maximum(plan.damage_frame / (config.frames - 1), drawn.start),
        until=drawn.start + drawn.duration,
        delay=np.minimum(plan.scaled("delay"), 0.9),
        snap_gain=plan.scaled("snap_gain"),
    )
    # Smoothing looks two frames ahead: smooth both, then change over, or the crack shows early.
    drive = np.where(damaged, physics.smooth_frames(stuck), physics.smooth_frames(good))

    end_angle = np.pi * drawn.end_ratio
    end_angle = end_angle[:, None] * np.where(damaged, plan.changed("angle_ratio", 1.0)[:, None], 1)
    factor = np.where(damaged, plan.changed("response", RESPONSE)[:, None], 1.0)
    response = physics.response_of(
        drawn.response[:, None] * factor,
        plan.scaled("shock"),
        column("decay", plan.scenario),
        plan.events.crack_frame,
        config.frames,
    )
    return physics.bend_angle(drive, end_angle, response)


def place_in_image(config: GenerateConfig, plan: Plan) -> Floats:
    """Return where the clamped end is in each frame (n, 2, n_frames), px: sway, shake, drift."""
    drawn, scenario = plan.nuisances, plan.scenario
    seconds = np.arange(config.frames) / config.fps
    shake_px = camera.SHAKE_PX * config.px_per_mm / REFERENCE_PX_PER_MM
    shaken = camera.shake(
        seconds,
        plan.events.crack_frame,
        column("shake_hz", scenario),
        column("damping", scenario),
        column("shake_frames", scenario) / _REFERENCE_FPS,
    )
    moved = np.stack(
        [
            config.width_px * camera.ORIGIN[0]
            + camera.sway(seconds, drawn.sway_px, drawn.sway_hz, drawn.sway_phase),
            config.height_px * camera.ORIGIN[1] + shake_px * plan.damage[:, None] * shaken,
        ],
        axis=1,
    )
    light_px = np.where(scenario == _LIGHT_DISTORTION, plan.events.distortion_px, drawn.light_px)
    light = light_px[:, None, None] * (2.0 * plan.frame_draws[:, 1:] - 1.0)
    drift_px = np.stack([drawn.drift_x_px, drawn.drift_y_px], axis=1)
    drift = camera.drift(drift_px, drawn.camera_mode, config.frames)
    return moved + config.noise * (light + drift)


def draw_curves(config: GenerateConfig, plan: Plan) -> Iterator[Floats]:
    """Yield the points of each panel before the noise of single points, px.

    Yields
    ------
    ndarray (2, n_frames, 260)
        Meaningless beyond the panel's last point, and overwritten by the next panel.
    """
    theta, shift = bend(config, plan), place_in_image(config, plan)
    scale = camera.scale_jitter(plan.frame_draws[:, 0], plan.nuisances.camera_mode, config.noise)
    curve, bent = np.empty((2, 2, config.frames, MOST_POINTS))
    for first in range(0, plan.number.size, _CHUNK):
        rows = np.arange(first, min(first + _CHUNK, plan.number.size))
        hurt = column("label", plan.scenario[rows]) == 1
        in_frame, in_place = _factors(plan, rows, 0.0, theta, scale, shift)
        damaged = iter(zip(*_factors(plan, rows[hurt], 1.0, theta, scale, shift), strict=True))
        for i, row in enumerate(rows):
            np.matmul(in_frame[i], in_place[i], out=curve)
            if hurt[i]:
                frame_factors, place_factors = next(damaged)
                np.matmul(frame_factors, place_factors, out=bent)
                since = plan.damage_frame[row]
                curve[:, since:] = bent[:, since:]
            yield curve


def _factors(
    plan: Plan, rows: Ints, damage: float, theta: Floats, scale: Floats, shift: Floats
) -> tuple[Floats, Floats]:
    """Return the factors of the frames and of the places of panels ``rows``, hurt or not."""
    drawn, n_points = plan.nuisances, plan.nuisances.n_points[rows]
    theta, scale, shift = theta[rows], scale[rows, None], shift[rows]
    weights = physics.curvature_weights(
        n_points,
        drawn.skew[rows] + damage * plan.scaled("skew")[rows],
        damage * plan.gain[rows],
        plan.events.place[rows],
        column("width", plan.scenario[rows]),
        MOST_POINTS,
    )
    in_place = physics.place_factors(physics.turned_shares(weights, n_points))
    step_px = (drawn.length_px[rows] / (n_points - 1))[:, None] * scale[:, 0]
    in_frame = physics.frame_factors(theta, step_px, np.zeros_like(shift))
    # The camera scales a panel about its centroid, which moves the clamped end.
    middle = physics.centroid(in_frame, in_place, n_points) / scale
    in_frame[..., -1] = shift + (1.0 - scale) * middle
    return in_frame, in_place


def _noise(config: GenerateConfig, plan: Plan, row: int) -> npt.NDArray[np.float32]:
    """Return the noise (2, n_frames, n_points) of single points of a panel, px."""
    drawn, events, stream = plan.nuisances, plan.events, plan.streams[row]
    mode, count = int(drawn.camera_mode[row]), int(drawn.n_points[row])
    distorted = plan.scenario[row] == _LIGHT_DISTORTION
    jitter_px = events.jitter_px[row] if distorted else 0.0
    std = config.noise * camera.noise_std(drawn.noise_px[row], jitter_px, mode)
    noise = camera.draw_noise(stream, 2 * config.frames * count, std).reshape(2, -1)
    if (weaker := camera.OUTLIERS[mode]) > 0:
        reach_px = config.noise * weaker * camera.OUTLIER_PX
        camera.add_strays(noise, stream, weaker * drawn.outlier_share[row], reach_px)
    if distorted:
        reach_px = config.noise * camera.SPIKE_PX
        camera.add_strays(noise, stream, events.spike_share[row], reach_px)
    return noise.reshape(2, config.frames, count)
