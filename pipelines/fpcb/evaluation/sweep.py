"""The smallest crack that is found: detection rate over severity, which can only rise."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression

from cluster.errors import InputError
from pipelines.fpcb.evaluation.bootstrap import generator, percentiles
from pipelines.fpcb.evaluation.intervals import Floats, Ints

SHARE = 0.9
LEAST_PANELS = 20
REPLICAS = 1_000


def smallest_found(
    kink_deg: npt.ArrayLike,
    found: npt.ArrayLike,
    share: float = SHARE,
    *,
    replicas: int = REPLICAS,
    seed: int = 0,
) -> dict[str, Any]:
    """Return the smallest kink that is found in ``share`` of panels.

    The detection rate is an isotonic regression over the angle, straight over its logarithm
    between the angles at hand; panels are bootstrapped for the interval.

    Parameters
    ----------
    kink_deg : array-like (n,)
        Angle of each panel's kink, above 0.
    found : array-like (n,)
        Whether the panel was called NG.

    Returns
    -------
    dict
        ``value``, ``low``, ``high`` in degrees, None where even the largest kinks are not found
        so often; ``share``, ``n``; ``at_most``: whether the smallest kinks at hand are found so
        often already; ``curve``: the regression, as ``kink_deg`` and ``found`` at its corners.

    Raises
    ------
    InputError
        When there are fewer than 20 panels, an angle is not above 0, ``share`` not between 0
        and 1, or the lengths differ.
    """
    angles, hits = np.asarray(kink_deg, dtype=np.float64), np.asarray(found, dtype=np.float64)
    where = "severity sweep"
    if angles.ndim != 1 or angles.shape != hits.shape:
        raise InputError(where, "panels", f"an answer for each of {angles.shape}", hits.shape)
    if angles.size < LEAST_PANELS:
        fix = "Make more panels with a kink."
        raise InputError(where, "panels", f"at least {LEAST_PANELS}", angles.size, fix)
    if not (np.isfinite(angles).all() and angles.min() > 0):
        raise InputError(where, "kinks", "angles above 0°", f"{angles.min()}")
    if not np.isin(hits, (0.0, 1.0)).all():
        raise InputError(where, "found", "True or False of each panel", "other values")
    if not 0 < share < 1:
        raise InputError(where, "share", "a number between 0 and 1", share, "Give 0.9 for 90 %.")
    levels, level = np.unique(np.log(angles), return_inverse=True)
    once = np.ones(angles.size, dtype=np.int64)
    fitted = _fitted(levels, level, hits, once)
    rng = generator(seed, where)
    crossed = np.empty(replicas)
    for i in range(replicas):
        drawn = np.bincount(rng.integers(angles.size, size=angles.size), minlength=angles.size)
        crossed[i] = _crossing(*_fitted(levels, level, hits, drawn), share)
    low, high = percentiles(crossed)
    x, y = fitted
    corners = np.flatnonzero((np.diff(y, prepend=-1.0) > 0) | (np.diff(y, append=2.0) > 0))
    return {
        "value": _degrees(_crossing(x, y, share)),
        "low": _degrees(low),
        "high": _degrees(high),
        "share": share,
        "n": int(angles.size),
        "at_most": bool(y[0] >= share),
        "curve": {"kink_deg": np.exp(x[corners]).tolist(), "found": y[corners].tolist()},
    }


def _fitted(levels: Floats, level: Ints, hits: Floats, drawn: Ints) -> tuple[Floats, Floats]:
    """Return the angles drawn (log) and their detection rates, which never fall."""
    n = np.bincount(level, weights=drawn, minlength=levels.size)
    total = np.bincount(level, weights=drawn * hits, minlength=levels.size)
    there = n > 0
    fit = isotonic_regression(total[there] / n[there], weights=n[there])
    return levels[there], np.asarray(fit.x, dtype=np.float64)


def _crossing(x: Floats, y: Floats, share: float) -> float:
    """Return where the line through (x, y) first comes to ``share``; infinite if it never does."""
    # Weighted means that should be the share itself may miss it by rounding.
    at = int(np.searchsorted(y, share - 1e-12))
    if at == y.size:
        return math.inf
    if at == 0 or y[at] <= share:
        return float(x[at])
    part = (share - y[at - 1]) / (y[at] - y[at - 1])
    return float(x[at - 1] + part * (x[at] - x[at - 1]))


def _degrees(x: float) -> float | None:
    return math.exp(x) if math.isfinite(x) else None
