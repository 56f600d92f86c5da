"""What the numbers of a data set say: what tells which crack, and whether anything tells too much.

A panel's score is one number, and how well it tells cracked panels from good ones is the area
under the ROC curve: the chance that a cracked panel scores above a good one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import norm, rankdata

from pipelines.fpcb.features.table import names
from pipelines.fpcb.quality.data import Frames, Rows
from pipelines.fpcb.scenarios import SCENARIOS
from pipelines.fpcb.synthesis import camera
from pipelines.fpcb.synthesis.config import REFERENCE_PX_PER_MM, GenerateConfig
from pipelines.fpcb.synthesis.generator import generate
from pipelines.fpcb.synthesis.plan import make_plan
from pipelines.fpcb.synthesis.variation import CAMERA_MODES, Nuisances

Floats = npt.NDArray[np.floating]

LEAST_PANELS = 8  # of a class, for an area to say anything
KEY_FEATURES = (
    "kink_end_deg",
    "change_peak",
    "excess_max_rad_max",
    "curvature_concentration_max",
    "bend_end_deg",
    "bend_rise_time_s",
    "speed_mean_px_s_max",
    "clamp_acceleration_px_s2_max",
)
"""Panel features with a plain meaning: hinge, jolt, bend, motion, shake."""

NORMAL = SCENARIOS[0].name
CHANCE = 0.05  # how far from a half an area may be and still count as chance
PERFECT = 0.995  # from here on one number does the work of a detector
_ERROR_RATE = 0.01  # of an alarm about a data set in which nothing tells
_MOST_GOOD = 10_000
_HALF_A_PIXEL = 0.5  # what rounding may move a point by
_NUMBERS = [f.name for f in fields(Nuisances) if f.name != "camera_mode"]
_NUMBERS += ["fps", "metres_per_pixel", "n_frames"]


@dataclass(frozen=True, kw_only=True)
class Telling:
    """How well one number tells the cracked panels of a scenario from good ones.

    ``auc`` is of the number itself or, with ``sign`` −1, of small values; ``std_error`` is that of
    Hanley and McNeil (Radiology 143, 1982), ``limit`` how far from a half chance alone may bring
    the largest of all that were tried.
    """

    scenario: str
    feature: str
    auc: float
    sign: int
    std_error: float
    n_bad: int
    n_good: int
    limit: float = CHANCE

    @property
    def gives_away(self) -> bool:
        """Whether chance does not explain it."""
        return self.auc - 0.5 > max(CHANCE, self.limit)


def areas(bad: Floats, good: Floats) -> npt.NDArray[np.float64]:
    """Return the ROC AUC of each column (k,) of cracked panels (n, k) against good ones (m, k)."""
    ranks = rankdata(np.concatenate([bad, good]), axis=0)[: len(bad)]
    above = ranks.sum(axis=0) - len(bad) * (len(bad) + 1) / 2
    return np.asarray(above / (len(bad) * len(good)), dtype=np.float64)


def feature_areas(rows: Rows) -> pd.DataFrame:
    """Return the AUC of every panel feature (rows) for every cracked scenario (columns).

    Values above a half: large values tell; below: small ones. Features that are not known of
    every panel are left out, and so are scenarios of too few panels.
    """
    known = ~np.isnan(rows.values).any(axis=0)
    good = _good(rows)
    found = {
        scenario: areas(bad.values[:, known], good.values[:, known])
        for scenario, bad in _cracked(rows)
        if min(len(bad), len(good)) >= LEAST_PANELS
    }
    return pd.DataFrame(found, index=np.array(names("panel"))[known])


def best_features(rows: Rows) -> list[Telling]:
    """Return the feature that tells each cracked scenario best.

    It is chosen on every other panel and measured on those between, or the best of a hundred
    features would look better than it is.
    """
    even = np.arange(len(rows)) % 2 == 0
    chosen, measured = feature_areas(rows.where(even)), feature_areas(rows.where(~even))
    good = _good(rows.where(~even))
    counts = {name: len(bad) for name, bad in _cracked(rows.where(~even))}
    # Of equals, one with a plain meaning.
    order = sorted(chosen.index, key=lambda name: name not in KEY_FEATURES)
    found = []
    for scenario in chosen.columns.intersection(measured.columns):
        away = (chosen[scenario] - 0.5).abs().loc[order]
        feature = str(away.idxmax())
        sign = 1 if chosen.loc[feature, scenario] >= 0.5 else -1
        auc = float(measured.loc[feature, scenario])
        found.append(_telling(scenario, feature, auc, sign, counts[scenario], len(good)))
    return found


def nuisance_areas(rows: Rows) -> list[Telling]:
    """Return the nuisance that gives each cracked scenario away most.

    Tried are every nuisance that the data set knows, and how far it is from the middle of the
    good panels, since a narrower range tells as well as a shifted one.
    """
    known = rows.known
    columns = {name: pd.to_numeric(known[name]) for name in _NUMBERS if name in known}
    if "camera_mode" in known:
        columns |= {f"camera_mode {mode}": known["camera_mode"] == mode for mode in CAMERA_MODES}
    table = pd.DataFrame(columns, dtype=np.float32).dropna(axis=1)
    return _largest(Rows(known, table.to_numpy(np.float32)), [*table.columns])


def early_areas(
    parts: Sequence[Frames], config: GenerateConfig | None, reach: int
) -> list[Telling]:
    """Return the frame feature that gives each cracked scenario away most before it cracks.

    Each panel is looked at in its last frame that no feature's window joins to the crack, and on
    average up to it. A good panel is looked at where its own crack, drawn but not used, would
    have been; where that is not known, all are looked at before the first crack of any.
    Scenarios that come in damaged are left out, and so are good panels other than normal ones
    where there are any: those differ in bending or light from the first frame, and rightly so.
    """
    known = pd.concat([part.known for part in parts], ignore_index=True)
    damaged = {s.name for s in SCENARIOS if s.from_first}
    if config is not None:
        cracks = make_plan(config, known["number"].to_numpy()).events.crack_frame.astype(float)
    else:
        dated = known.loc[~known["scenario"].isin(damaged), "crack_frame"]
        cracks = np.full(len(known), dated.min())
    last = cracks - 1 - reach
    starts = np.cumsum([0, *(len(part.known) for part in parts)])
    at = np.where(last >= 0, last, -1).astype(int)  # NaN: no crack is dated
    values = [
        _up_to(part.values, at[start : start + len(part.known)])
        for part, start in zip(parts, starts, strict=False)
    ]
    usable = (at >= 0) & ~known["scenario"].isin(damaged).to_numpy()
    usable &= ((known["label"] == 0) | known["crack_frame"].notna()).to_numpy()
    normal = (known["scenario"] == NORMAL).to_numpy()
    if normal.any():
        usable &= normal | (known["label"] == 1).to_numpy()
    rows = Rows(known, np.concatenate(values)).where(usable)
    whole = [bool(column.all()) for column in np.isfinite(rows.values).T]
    tried = [f"{name}{how}" for how in ("", ", mean so far") for name in names("frame")]
    kept = [name for name, keep in zip(tried, whole, strict=True) if keep]
    return _largest(Rows(rows.known, rows.values[:, np.flatnonzero(whole)]), kept)


def cues(config: GenerateConfig, rows: Rows) -> list[dict[str, Any]]:
    """Return what a camera can see of the shake of each cracked scenario, from the options alone.

    ``seen_hz`` is the frequency that the frames show, aliased or not; ``peak_px`` the largest
    displacement in any frame, at severity 1; ``visible``: below Nyquist, and more than rounding.
    """
    seconds = np.arange(config.frames) / config.fps
    found = []
    for scenario in SCENARIOS:
        if not scenario.shake_hz or scenario.name not in set(rows.known["scenario"]):
            continue
        swing = camera.shake(
            seconds,
            np.zeros(1, dtype=np.int64),
            np.array([scenario.shake_hz]),
            np.array([scenario.damping]),
            np.array([scenario.shake_frames / 30.0]),
        )
        nyquist_hz = config.fps / 2
        size_px = camera.SHAKE_PX * config.px_per_mm / REFERENCE_PX_PER_MM
        peak_px = float(size_px * np.abs(swing).max())
        found.append(
            {
                "scenario": scenario.name,
                "shake_hz": scenario.shake_hz,
                "nyquist_hz": nyquist_hz,
                "seen_hz": aliased(scenario.shake_hz, config.fps),
                "peak_px": peak_px,
                "visible": scenario.shake_hz < nyquist_hz and peak_px >= _HALF_A_PIXEL,
            }
        )
    return found


def aliased(frequency_hz: float, fps: float) -> float:
    """Return the frequency that frames show of a swing of ``frequency_hz``."""
    return abs(frequency_hz - fps * round(frequency_hz / fps))


def cracks_show_early(config: GenerateConfig, numbers: Sequence[int]) -> tuple[int, int]:
    """Return how many of these panels differ from the good ones before they crack, and of how many.

    The good panel of the same number is made again, and compared byte by byte.
    """
    batch, truth = generate(config, numbers)
    good, _ = generate(replace(config, scenario="normal"), numbers)
    differ = dated = 0
    for row, crack in enumerate(truth["crack_frame"].to_pylist()):
        if crack is not None:
            dated += 1
            count = batch.n_points[row]
            panel, twin = (b.points[row, :, :crack, :count] for b in (batch, good))
            differ += count != good.n_points[row] or not np.array_equal(panel, twin)
    return differ, dated


def _largest(rows: Rows, labels: Sequence[str]) -> list[Telling]:
    """Return the number that tells each cracked scenario best, of ``labels`` (k) in ``values``."""
    good = _good(rows)
    cracked = [(name, bad) for name, bad in _cracked(rows) if len(bad) >= LEAST_PANELS]
    if not labels or len(good) < LEAST_PANELS:
        return []
    middle = np.median(good.values, axis=0)
    far = np.abs(good.values - middle)
    named = [*labels, *(f"{label}, distance from the middle" for label in labels)]
    tried = len(named) * len(cracked)
    found = []
    for name, bad in cracked:
        both = np.concatenate(
            [areas(bad.values, good.values), areas(np.abs(bad.values - middle), far)]
        )
        place = int(np.abs(both - 0.5).argmax())
        sign = 1 if both[place] >= 0.5 else -1
        n, m = len(bad), len(good)
        by_chance = math.sqrt((n + m + 1) / (12 * n * m)) * norm.isf(_ERROR_RATE / 2 / tried)
        one = _telling(name, named[place], float(both[place]), sign, n, m)
        found.append(replace(one, limit=float(by_chance)))
    return found


def _telling(
    scenario: str, feature: str, area: float, sign: int, n_bad: int, n_good: int
) -> Telling:
    auc = area if sign > 0 else 1 - area
    pairs_bad, pairs_good = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    spread = auc * (1 - auc)
    spread += (n_bad - 1) * (pairs_bad - auc**2) + (n_good - 1) * (pairs_good - auc**2)
    return Telling(
        scenario=scenario,
        feature=feature,
        auc=auc,
        sign=sign,
        std_error=math.sqrt(max(spread, 0) / (n_bad * n_good)),
        n_bad=n_bad,
        n_good=n_good,
    )


def _good(rows: Rows) -> Rows:
    good = np.flatnonzero(rows.known["label"] == 0)
    chosen = np.zeros(len(rows), dtype=bool)
    chosen[good[:: max(1, -(-good.size // _MOST_GOOD))]] = True
    return rows.where(chosen)


def _cracked(rows: Rows) -> list[tuple[str, Rows]]:
    bad = (rows.known["label"] == 1).to_numpy()
    scenario = rows.known["scenario"].to_numpy()
    return [(name, rows.where(bad & (scenario == name))) for name in sorted(set(scenario[bad]))]


def _up_to(values: Floats, last: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Return values (n, n_frames, k) in frame ``last`` (n,), and their means up to it: (n, 2k)."""
    last = np.clip(last, 0, values.shape[1] - 1)
    rows = np.arange(len(values))
    so_far = np.cumsum(values, axis=1, dtype=np.float64)[rows, last] / (last + 1)[:, None]
    return np.concatenate([values[rows, last], so_far.astype(np.float32)], axis=1)
