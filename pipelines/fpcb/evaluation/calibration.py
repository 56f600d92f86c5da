"""Whether a stated probability of a crack means what it says."""

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import brier_score_loss, log_loss

from cluster.errors import InputError
from pipelines.fpcb.evaluation.curves import checked
from pipelines.fpcb.evaluation.intervals import rate

BINS = 10


def calibration(
    label: npt.ArrayLike, probability: npt.ArrayLike, bins: int = BINS
) -> dict[str, Any]:
    """Return how close probabilities (n,) of a crack come to what is seen.

    Returns
    -------
    dict
        ``brier`` (mean squared error; 0 is perfect), ``brier_of_share`` (that of always stating
        the share of cracked panels), ``log_loss`` (nats), ``expected_error`` (mean distance
        between stated and seen, over panels), and ``bins`` of equal width that hold panels:
        low, high, n, stated (mean probability) and seen (share cracked, with interval).

    Raises
    ------
    InputError
        As `checked`, and when a probability is not between 0 and 1.
    """
    bad, p = checked(label, probability, "probabilities")
    outside = (p < 0) | (p > 1)
    if outside.any():
        got = f"{p[outside][0]:.6g} at row {int(outside.argmax())}"
        raise InputError("probabilities", "value", "between 0 and 1", got)
    slot = np.minimum((p * bins).astype(int), bins - 1)
    rows, off = [], 0.0
    for k in np.unique(slot):
        inside = slot == k
        n, stated = int(inside.sum()), float(p[inside].mean())
        seen = rate(int(bad[inside].sum()), n)
        off += abs(p[inside].sum() - bad[inside].sum())
        ends = {"low": float(k / bins), "high": float((k + 1) / bins)}
        rows.append({**ends, "n": n, "stated": stated, "seen": seen.to_dict()})
    share = float(bad.mean())
    return {
        "n": bad.size,
        "brier": float(brier_score_loss(bad, p, pos_label=True)),
        "brier_of_share": share * (1 - share),
        "log_loss": float(log_loss(bad, p, labels=[False, True])),
        "expected_error": float(off / bad.size),
        "bins": rows,
    }
