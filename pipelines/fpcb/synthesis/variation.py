"""What differs from panel to panel: how it bends, how it is filmed, where and when it may crack.

All of it is drawn for every panel from the same ranges, whatever its scenario, so none of it gives
the scenario away; a crack is drawn for good panels too, and not used. Only ``variation="none"``
takes ranges that differ, those of the scenario table.
"""

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from pipelines.fpcb.scenarios import RESPONSE, column
from pipelines.fpcb.synthesis.config import REFERENCE_PX_PER_MM, GenerateConfig

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CAMERA_MODES = ("gaussian", "outliers", "drift", "scale_jitter", "mix")
MOST_POINTS = 260
_UNIFORMS = 40  # numbers of a stream kept for the draws here; new draws leave the noise as it is


@dataclass(frozen=True, eq=False, kw_only=True)
class Nuisances:
    """How each panel bends and is filmed; arrays (n,), the same distribution for every scenario.

    Shares are of the run (start, duration) or of π (end_ratio). The phase of the drive is raised
    to ``drive_power``; ``skew`` is the slope of the curvature along the panel.
    """

    start: Floats
    duration: Floats
    drive_power: Floats
    end_ratio: Floats
    response: Floats
    skew: Floats
    length_px: Floats
    thickness_m: Floats
    px_per_mm: Floats
    sway_px: Floats
    sway_hz: Floats
    sway_phase: Floats
    noise_px: Floats
    light_px: Floats
    outlier_share: Floats
    drift_x_px: Floats
    drift_y_px: Floats
    n_points: Ints
    camera_mode: Ints


@dataclass(frozen=True, eq=False, kw_only=True)
class Events:
    """What a panel's scenario may call on; arrays (n,), drawn for every panel.

    ``crack_frame`` is where the jolt and the shake begin, ``place`` a share of the length,
    ``severity`` a factor on all that a crack does, ``kink_deg`` the hinge angle of scenario kink,
    ``distortion_px``, ``jitter_px`` and ``spike_share`` the bad light of light_distortion.
    """

    crack_frame: Ints
    place: Floats
    severity: Floats
    kink_deg: Floats
    distortion_px: Floats
    jitter_px: Floats
    spike_share: Floats


_PROCESS = {
    "start": (0.0, 0.10),
    "duration": (0.70, 0.90),
    "drive_power": (0.85, 1.20),
    "end_ratio": (0.86, 1.04),
    "response": (0.10, 0.20),
    "skew": (-0.06, 0.06),
    "length_px": (210.0, 250.0),
    "thickness_m": (80e-6, 100e-6),
    "px_per_mm": (8.0, 12.0),
    "sway_px": (0.5, 3.5),
    "sway_hz": (0.1, 0.3),
    "sway_phase": (0.0, 2 * np.pi),
    "noise_px": (0.12, 0.38),
    "light_px": (0.0, 1.0),
    "outlier_share": (0.01, 0.04),
    "drift_x_px": (-0.8, 0.8),
    "drift_y_px": (-0.8, 0.8),
}
"""Range of each nuisance in the order it is drawn; response is the share a frame of 60."""

_CONSTANT = _PROCESS | {
    "start": (0.0, 0.0),
    "duration": (1.0, 1.0),
    "drive_power": (1.0, 1.0),
    "end_ratio": (1.0, 1.0),
    "response": (RESPONSE, RESPONSE),
    "skew": (0.0, 0.0),
    "thickness_m": (90e-6, 90e-6),
    "sway_px": (2.0, 2.0),
    "sway_hz": (0.2, 0.2),
    "sway_phase": (0.0, 0.0),
    "light_px": (0.0, 0.0),
}
_OTHERS = {"noise_px": (0.15, 0.38), "length_px": (215.0, 248.0), "px_per_mm": (10.0, 10.0)}
_POINTS, _OTHERS_POINTS = (200, MOST_POINTS), (210, 250)

# A crack comes while the panel is being bent, early or late, and anywhere but near the clamps:
# a place or a time that can be guessed would make finding it look easy.
_PHASE = (0.25, 0.90)
_PLACE = (0.20, 0.85)
_CRACK_AT = 0.72  # of the run, when it does not vary: where the snap of the table has its peak


def open_streams(
    seed: int, numbers: Ints, frames: int
) -> tuple[Floats, Floats, list[np.random.Generator]]:
    """Open the random stream of each panel, which its number and the seed alone determine.

    Returns
    -------
    draws : ndarray (n, 40), frame_draws : ndarray (n, 3, frames)
        The first numbers of each stream, uniform in [0, 1).
    streams : list of Generator
        The rest, for the noise.
    """
    streams = [
        np.random.Generator(np.random.SFC64(np.random.SeedSequence(seed, spawn_key=(number,))))
        for number in numbers.tolist()
    ]
    draws = np.empty((len(streams), _UNIFORMS + 3 * frames))
    for row, stream in zip(draws, streams, strict=True):
        stream.random(out=row)
    return draws[:, :_UNIFORMS], draws[:, _UNIFORMS:].reshape(-1, 3, frames), streams


def draw_nuisances(config: GenerateConfig, scenario: Ints, draws: Floats) -> Nuisances:
    """Turn the first draws of each stream (n, 40) into nuisances."""
    varies = config.variation == "process"
    ranges = _PROCESS if varies else _CONSTANT
    other = (scenario != 0) & (not varies)
    drawn: dict[str, Floats] = {}
    for place, (name, usual) in enumerate(ranges.items()):
        least, most = np.where(other[:, None], _OTHERS.get(name, usual), usual).T
        drawn[name] = _between(draws[:, place], least, most)
    drawn["px_per_mm"] *= config.px_per_mm / REFERENCE_PX_PER_MM
    drawn["length_px"] *= config.px_per_mm / REFERENCE_PX_PER_MM
    drawn["sway_px"] *= config.px_per_mm / REFERENCE_PX_PER_MM
    least, most = np.where(other[:, None], _OTHERS_POINTS, _POINTS).T
    count = len(ranges)
    return Nuisances(
        **drawn,
        n_points=np.floor(_between(draws[:, count], least, most + 1)).astype(np.int64),
        camera_mode=np.floor(len(CAMERA_MODES) * draws[:, count + 1]).astype(np.int64),
    )


def draw_events(
    config: GenerateConfig, scenario: Ints, draws: Floats, nuisances: Nuisances
) -> Events:
    """Turn further draws of each stream (n, 40) into what may befall the panel."""
    u = draws[:, len(fields(Nuisances)) :]
    if config.onset == "event":
        share = nuisances.start + nuisances.duration * _between(u[:, 0], *_PHASE)
        frame = np.rint(share * (config.frames - 1)).astype(np.int64)
    else:
        frame = np.full(len(u), int(_CRACK_AT * (config.frames - 1)))
    if config.variation == "process":
        place = _between(u[:, 1], *_PLACE)
        severity = _between(u[:, 2], config.severity[0], config.severity[-1])
    else:
        place = _between(u[:, 1], *column("place", scenario).T)
        severity = np.ones(len(u))
    log_kink = _between(u[:, 3], *np.log([config.kink_deg[0], config.kink_deg[-1]]))
    return Events(
        crack_frame=frame,
        place=place,
        severity=severity,
        kink_deg=np.exp(log_kink),
        distortion_px=_between(u[:, 4], 2.0, 6.0),
        jitter_px=_between(u[:, 5], 0.8, 2.0),
        spike_share=_between(u[:, 6], 0.01, 0.05),
    )


def _between(u: Floats, least: Floats | float, most: Floats | float) -> Floats:
    return least + (most - least) * u
