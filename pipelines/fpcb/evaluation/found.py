"""When and where: how close the crack that is reported comes to the one that is."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.fpcb.dataset import UNKNOWN
from pipelines.fpcb.evaluation.curves import ALL_CRACKED, as_values
from pipelines.fpcb.evaluation.intervals import Estimate, Floats, median, rate

WITHIN_FRAMES = 1.0
WITHIN_SHARE = 0.03  # of the length


def found_errors(panels: pa.Table) -> dict[str, dict[str, Any]]:
    """Return the errors of time (frames) and place (shares of the length), per cracked scenario.

    Looked at are cracked panels called NG whose truth is known. Time is that of ``damage_frame``,
    from which on the shape shows the damage; ``event_frame`` is that of ``crack_frame``, in which
    a panel that came in damaged jolts. Among all cracked panels, time counts those alone that
    cracked while they were filmed: for the others, frame 0 is true and no event.

    Parameters
    ----------
    panels : table
        scenario, label, called_ng, found_frame, found_place, damage_frame, crack_frame,
        crack_place.

    Returns
    -------
    dict
        Of each scenario and of all: ``frame``, ``event_frame``, ``place``, each with n, the
        median absolute error (with interval), its 90th percentile, the median with its sign
        (positive: late, or too far along), and the share within 1 frame or 3 %.
    """
    rows = panels.filter(pc.and_kleene(pc.equal(panels["label"], 1), panels["called_ng"]))
    scenario = np.array([name or UNKNOWN for name in rows["scenario"].to_pylist()], dtype=object)
    frame, place = _numbers(rows, "found_frame"), _numbers(rows, "found_place")
    damage = _numbers(rows, "damage_frame")
    off = {
        "frame": (frame - damage, WITHIN_FRAMES),
        "event_frame": (frame - _numbers(rows, "crack_frame"), WITHIN_FRAMES),
        "place": (place - _numbers(rows, "crack_place"), WITHIN_SHARE),
    }
    filmed = np.where(damage > 0, 0.0, np.nan)
    found = {
        ALL_CRACKED: {
            name: _errors(error if name == "place" else error + filmed, within)
            for name, (error, within) in off.items()
        }
    }
    for name in sorted(set(scenario.tolist())):
        own = scenario == name
        found[name] = {what: _errors(error[own], within) for what, (error, within) in off.items()}
    return found


def _errors(error: Floats, within: float) -> dict[str, Any]:
    known = error[np.isfinite(error)]
    size = np.abs(known)
    # 0.53 − 0.5 is a little more than 0.03 in binary.
    inside = rate(int((size <= within + 1e-9).sum()), known.size)
    sign = Estimate(None, None, None, 0) if known.size == 0 else median(known)
    return {
        "n": int(known.size),
        "median_error": median(size).to_dict(),
        "percentile_90": float(np.quantile(size, 0.9)) if known.size else None,
        "median_signed": sign.value,
        "within": within,
        **as_values({"share_within": inside}),
    }


def _numbers(rows: pa.Table, name: str) -> Floats:
    return np.asarray(pc.fill_null(pc.cast(rows[name], pa.float64()), np.nan), dtype=np.float64)
