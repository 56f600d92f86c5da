"""Options of the synthetic panels."""

import math
from dataclasses import dataclass, field

from cluster.errors import InputError
from pipelines.fpcb.panels import LARGEST_PIXEL
from pipelines.fpcb.scenarios import MIXES, NAMES

REFERENCE_PX_PER_MM = 10.0
# A panel of 250 px, bent to a U at (0.42, 0.52) of the image, with room to sway and drift.
_SMALLEST_WIDTH_PX, _SMALLEST_HEIGHT_PX = 520, 420

COMPATIBILITY = {"variation": "none", "onset": "from_start"}
"""Options that bend cracked panels as damaged from the first frame, by the table's constants."""


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """Synthetic panels.

    With ``variation="none", onset="from_start"`` (``COMPATIBILITY``) the constants of the scenario
    table hold as they are: no two panels of a scenario bend differently, and a cracked one is
    damaged from its first frame. Both give the class away, so it is for comparison only.
    """

    panels: int = field(default=1_000, metadata={"help": "Panels in the data set."})
    mix: str = field(
        default="100k",
        metadata={"help": f"Proportions of the scenarios: those of {', '.join(MIXES)}."},
    )
    scenario: str | None = field(
        default=None, metadata={"help": f"Make every panel this one: {', '.join(NAMES)}."}
    )
    frames: int = field(default=60, metadata={"help": "Frames over which a panel is bent."})
    fps: float = field(default=30.0, metadata={"help": "Frames a second."})
    width_px: int = field(default=1920, metadata={"help": "Width of the image."})
    height_px: int = field(default=1080, metadata={"help": "Height of the image."})
    px_per_mm: float = field(
        default=REFERENCE_PX_PER_MM,
        metadata={"help": "Resolution of the camera; panels vary by a fifth around it."},
    )
    noise: float = field(default=1.0, metadata={"help": "Factor on all camera noise; 0: none."})
    variation: str = field(
        default="process",
        metadata={
            "help": "process: each panel bends and is filmed its own way, drawn from the same "
            "ranges for every scenario. none: the constants of the scenario table."
        },
    )
    onset: str = field(
        default="event",
        metadata={
            "help": "event: a cracked panel is a good one until it cracks. from_start: it is "
            "damaged from its first frame."
        },
    )
    severity: tuple[float, ...] = field(
        default=(0.5, 1.5),
        metadata={"help": "Least and greatest factor on what a crack does; one number fixes it."},
    )
    kink_deg: tuple[float, ...] = field(
        default=(0.1, 30.0),
        metadata={
            "help": "Least and greatest angle of the hinge in scenario kink, fully bent; "
            "one number fixes it."
        },
    )
    seed: int = field(default=0, metadata={"help": "Seed; panels depend on it and their number."})

    def __post_init__(self) -> None:
        for name, known in (
            ("mix", tuple(MIXES)),
            ("scenario", NAMES),
            ("variation", ("process", "none")),
            ("onset", ("event", "from_start")),
        ):
            value = getattr(self, name)
            if value not in known and not (name == "scenario" and value is None):
                raise InputError(f"--{name}", "unknown", " or ".join(known), value, "Pass one.")
        self._check("panels", 1)
        self._check("frames", 10, 10_000)
        self._check("seed", 0)
        self._check("noise", 0.0, 100.0)
        self._check("fps", 0.0, above=True)
        self._check("px_per_mm", 0.0, above=True)
        scale = self.px_per_mm / REFERENCE_PX_PER_MM
        for name, least in (("width_px", _SMALLEST_WIDTH_PX), ("height_px", _SMALLEST_HEIGHT_PX)):
            self._check(name, math.ceil(least * max(scale, 0.1)), LARGEST_PIXEL)
        for name, most in (("severity", 3.0), ("kink_deg", 90.0)):
            self._check_range(name, most)

    def _check(
        self, name: str, least: float, most: float = math.inf, *, above: bool = False
    ) -> None:
        value = getattr(self, name)
        fits = least < value if above else least <= value
        if not (fits and value <= most and math.isfinite(value)):
            expected = f"{'above' if above else 'at least'} {least:g}"
            expected += f" and at most {most:g}" if most < math.inf else ""
            where = f"--{name.replace('_', '-')}"
            raise InputError(where, "out of range", expected, value, "Pass such a number.")

    def _check_range(self, name: str, most: float) -> None:
        value = getattr(self, name)
        if (
            len(value) not in (1, 2)
            or not all(0 < end <= most for end in value)
            or value[0] > value[-1]
        ):
            raise InputError(
                f"--{name.replace('_', '-')}",
                "not a range",
                f"one number or two in rising order, above 0 and at most {most:g}",
                ",".join(map(str, value)),
                "Pass such as 0.5,1.5.",
            )
