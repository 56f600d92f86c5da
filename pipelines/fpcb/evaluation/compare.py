"""Whether a detector beats a baseline, rather than being luckier with the panels at hand."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from pipelines.fpcb.evaluation.bootstrap import percentiles
from pipelines.fpcb.evaluation.intervals import Floats

DETECTORS = ("dream", "patchcore", "ensemble")
BASELINES = ("best_feature", "mahalanobis")
ALPHA = 0.05  # chance that any of the comparisons is called a difference by luck


def compare(
    names: Sequence[str], values: Sequence[float], replicated: Floats, scenario: str
) -> list[dict[str, Any]]:
    """Return the differences of PR AUC between every detector and every baseline.

    Parameters
    ----------
    names : sequence of k str
    values : sequence of k float
        PR AUC on the panels as they are.
    replicated : ndarray (k, replicas)
        PR AUC on resampled panels, the same for all.

    Returns
    -------
    list of dict
        detector, baseline, scenario, difference, low, high (bootstrap percentiles), room (what
        the baseline leaves to gain), and p, two sided, of a normal distribution with the
        replicas' standard deviation.
    """
    place = {name: j for j, name in enumerate(names)}
    found = []
    for detector in (name for name in names if name not in BASELINES):
        for baseline in (name for name in names if name in BASELINES):
            a, b = place[detector], place[baseline]
            difference = values[a] - values[b]
            drawn = replicated[a] - replicated[b]
            low, high = percentiles(drawn)
            spread = float(drawn.std(ddof=1))
            # Panels that both part without a mistake vary by nothing, and differ by nothing.
            p = 2 * float(norm.sf(abs(difference) / spread)) if spread > 0 else 1.0
            pair = {"detector": detector, "baseline": baseline, "scenario": scenario}
            gain = {"difference": difference, "low": low, "high": high, "room": 1 - values[b]}
            found.append({**pair, **gain, "p": p})
    return found


def holm(p: npt.ArrayLike) -> Floats:
    """Return p values (m,) adjusted for their number (Holm, Scand. J. Statistics 6, 1979)."""
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    adjusted = np.empty_like(values)
    steps = values[order] * np.arange(values.size, 0, -1)
    adjusted[order] = np.maximum.accumulate(steps).clip(max=1.0) if values.size else steps
    return adjusted


def judged(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return comparisons with ``p_holm`` and a ``verdict``: better, worse or level."""
    adjusted = holm([one["p"] for one in found])
    verdicts = [
        ("better" if one["difference"] > 0 else "worse") if p < ALPHA else "level"
        for one, p in zip(found, adjusted, strict=True)
    ]
    return [
        {**one, "p_holm": float(p), "verdict": verdict}
        for one, p, verdict in zip(found, adjusted, verdicts, strict=True)
    ]
