"""What is decided about each panel before a point of it is made."""

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cluster.errors import InputError
from pipelines.fpcb.population import SPLITS, assign
from pipelines.fpcb.scenarios import NAMES, column
from pipelines.fpcb.synthesis.config import GenerateConfig
from pipelines.fpcb.synthesis.variation import (
    CAMERA_MODES,
    Events,
    Nuisances,
    draw_events,
    draw_nuisances,
    open_streams,
)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False, kw_only=True)
class Plan:
    """All that is decided about panels before a point is made; arrays (n,).

    ``damage`` is the scale of what the scenario does to each panel: 1, or its severity.
    """

    number: Ints
    scenario: Ints
    split: Ints
    nuisances: Nuisances
    events: Events
    damage: Floats
    damage_frame: Ints
    gain: Floats
    hinge_deg: Floats
    frame_draws: Floats  # (n, 3, n_frames), uniform
    streams: list[np.random.Generator]

    def scaled(self, name: str) -> Floats:
        """Return a constant of each panel's scenario times the scale of its damage."""
        return self.damage * column(name, self.scenario)

    def changed(self, name: str, good: float) -> Floats:
        """Return the factor by which the scenario changes a good panel's value."""
        return 1.0 + self.damage * (column(name, self.scenario) / good - 1.0)


def truth_table(config: GenerateConfig, numbers: npt.ArrayLike) -> pa.Table:
    """Return the truth of panels, a row each, without making their points.

    number, scenario, label (1 cracked), split; crack_frame, damage_frame, crack_place (share of
    the length), severity and hinge_deg (angle of the hinge when fully bent, degrees), null for
    good panels; what bad light does, null elsewhere; fps; and every nuisance.
    """
    return truth_of(config, make_plan(config, numbers))


def make_plan(config: GenerateConfig, numbers: npt.ArrayLike) -> Plan:
    """Decide everything about panels but their points."""
    number = np.asarray(numbers, np.int64)
    if number.size and (number.min() < 0 or number.max() >= config.panels):
        raise InputError(
            "panel numbers",
            "outside the data set",
            f"0 to {config.panels - 1}",
            f"{number.min()} to {number.max()}",
            "Raise --panels.",
        )
    scenario, split = assign(config.seed, config.panels, number, config.mix)
    if config.scenario is not None:
        scenario = np.full(number.size, NAMES.index(config.scenario))
    draws, frame_draws, streams = open_streams(config.seed, number, config.frames)
    nuisances = draw_nuisances(config, scenario, draws)
    events = draw_events(config, scenario, draws, nuisances)
    damage = np.where(column("label", scenario) == 1, events.severity, 1.0)

    at_once = (column("label", scenario) == 0) | column("from_first", scenario)
    at_once |= config.onset == "from_start"
    end_ratio = nuisances.end_ratio * (1 + damage * (column("angle_ratio", scenario) - 1))
    bump = column("width", scenario) * np.sqrt(2 * np.pi)  # integral of the hinge at gain 1
    kink_share = np.minimum(events.kink_deg / (180 * end_ratio), 0.9)
    kink_gain = kink_share / (1 - kink_share) / bump
    gain = np.where(scenario == NAMES.index("kink"), kink_gain, damage * column("gain", scenario))
    return Plan(
        number=number,
        scenario=scenario,
        split=split,
        nuisances=nuisances,
        events=events,
        damage=damage,
        damage_frame=np.where(at_once, 0, events.crack_frame),
        gain=gain,
        hinge_deg=180 * end_ratio * gain * bump / (1 + gain * bump),
        frame_draws=frame_draws,
        streams=streams,
    )


def truth_of(config: GenerateConfig, plan: Plan) -> pa.Table:
    """Return the truth of planned panels; see ``truth_table``."""
    drawn, events = asdict(plan.nuisances), plan.events
    label = column("label", plan.scenario)
    good, lit = label == 0, plan.scenario != NAMES.index("light_distortion")
    drawn["camera_mode"] = np.array(CAMERA_MODES)[plan.nuisances.camera_mode]
    columns = {
        "number": pa.array(plan.number),
        "scenario": pa.array(np.array(NAMES)[plan.scenario], pa.string()),
        "label": pa.array(label.astype(np.int8)),
        "split": pa.array(np.array(SPLITS)[plan.split], pa.string()),
        "crack_frame": pa.array(events.crack_frame.astype(np.int32), mask=good),
        "damage_frame": pa.array(plan.damage_frame.astype(np.int32), mask=good),
        "crack_place": pa.array(events.place, mask=good),
        "severity": pa.array(plan.damage, mask=good),
        "hinge_deg": pa.array(plan.hinge_deg, mask=good),
        "distortion_px": pa.array(events.distortion_px, mask=lit),
        "distortion_jitter_px": pa.array(events.jitter_px, mask=lit),
        "distortion_spike_share": pa.array(events.spike_share, mask=lit),
        "fps": pa.array(np.full(plan.number.size, config.fps)),
    }
    return pa.table(columns | {name: pa.array(values) for name, values in drawn.items()})
