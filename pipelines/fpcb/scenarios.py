"""The kinds of panel and the constants that set each apart.

A good panel bends evenly. Damage lowers the angle the panel reaches, makes it follow the drive
more briskly, and gathers its curvature around one place; when it happens, the panel jolts and
shakes. What a camera of 30 frames a second and whole pixels can see of this:

- the hinge (gain, place, width): yes, it stays, and grows with the bend (see ``hinge_deg``);
- the jolt (shock, decay): yes, some frames long;
- the shake: hardly. At half a pixel it drowns in rounding, and beyond 15 Hz it is aliased.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

RESPONSE = 0.12
"""Share of its lag behind the drive that an undamaged panel makes up in a frame."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A kind of panel.

    Attributes
    ----------
    label : int
        0 good, 1 cracked.
    angle_ratio, response : float
        Share of π that the bend aims at, and share of its lag made up in a frame.
    gain, width, skew : float
        Hinge: height over the mean curvature, standard deviation in shares of the length; and the
        slope of the curvature along the panel.
    place : (float, float)
        Where the hinge may be, in shares of the length.
    delay, snap_gain : float
        Sticking of an over-cured panel, in shares of what is left of the run, and its snap.
    shock, decay : float
        Jolt: factor on the response less one, and its decay a frame.
    shake_hz, damping, shake_frames : float
        Shake: frequency, decay a cycle, frames until it is held still.
    from_first : bool
        Came in damaged: the shape is that of a cracked panel from the first frame.
    """

    name: str
    label: int
    angle_ratio: float = 1.0
    response: float = RESPONSE
    gain: float = 0.0
    place: tuple[float, float] = (0.65, 0.80)
    width: float = 0.009
    skew: float = 0.0
    delay: float = 0.0
    snap_gain: float = 0.0
    shock: float = 0.0
    decay: float = 0.0
    shake_hz: float = 0.0
    damping: float = 0.0
    shake_frames: float = 0.0
    from_first: bool = False


SCENARIOS = (
    Scenario(name="normal", label=0),
    Scenario(name="light_distortion", label=0),
    Scenario(
        name="crack", label=1, angle_ratio=0.95, response=0.20, gain=16, width=0.009, skew=0.05,
        shock=3.5, decay=0.15, shake_hz=25, damping=0.92, shake_frames=15,
    ),
    Scenario(
        name="uv_overcured", label=1, angle_ratio=0.86, response=0.14, gain=0.7,
        place=(0.62, 0.62), width=0.04, skew=0.03, delay=0.32, snap_gain=0.22,
        shock=1.5, decay=0.18, shake_hz=20, damping=0.93, shake_frames=12,
    ),
    Scenario(
        name="micro_crack", label=1, angle_ratio=0.97, response=0.18, gain=5, width=0.015,
        skew=0.02, shock=1.2, decay=0.25, shake_hz=12, damping=0.95, shake_frames=8,
    ),
    Scenario(
        name="pre_damage", label=1, angle_ratio=0.90, response=0.16, gain=1.9,
        place=(0.68, 0.68), width=0.03, skew=0.08, shock=1.2, decay=0.20,
        shake_hz=15, damping=0.94, shake_frames=10, from_first=True,
    ),
    Scenario(name="thick_panel", label=0, angle_ratio=0.72, response=0.10),
    # Not part of any mix: a good panel with a hinge of a chosen angle and nothing else, for
    # asking how small a crack a detector can see.
    Scenario(name="kink", label=1),
)  # fmt: skip

NAMES = tuple(scenario.name for scenario in SCENARIOS)

MIXES = {
    "1k": (1_000, 50, 50, 30, 10, 20, 20),
    "10k": (7_000, 500, 500, 300, 300, 500, 400),
    "100k": (75_000, 5_000, 5_000, 3_000, 3_000, 5_000, 4_000),
}
"""Panels of each scenario, in the order of SCENARIOS; 1k and 10k are 1,180 and 9,500 panels."""


def column(name: str, scenario: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Return attribute ``name`` of the scenario of each panel (n,), given as SCENARIOS indices."""
    return np.array([getattr(known, name) for known in SCENARIOS])[scenario]
