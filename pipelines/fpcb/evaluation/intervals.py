"""A measured value and how far it can be trusted: intervals that hold for any distribution."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import beta, binomtest, norm, quantile_test

CONFIDENCE = 0.95
LEAST = 5  # panels of a class, below which no interval is worth stating

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Estimate:
    """A value and its confidence interval; None where the panels do not say.

    Attributes
    ----------
    value, low, high : float or None
    n : int
        Panels it rests on.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-able values."""
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n}


def rate(count: int, n: int, confidence: float = CONFIDENCE) -> Estimate:
    """Return the share ``count / n`` with its Clopper-Pearson interval."""
    if n == 0:
        return Estimate(None, 0.0, 1.0, 0)
    ends = binomtest(count, n).proportion_ci(confidence)
    return Estimate(count / n, float(ends.low), float(ends.high), n)


def wilson(counts: Ints, totals: Ints, confidence: float = CONFIDENCE) -> tuple[Floats, Floats]:
    """Return Wilson's interval of many shares: counts (n,) of totals (n,), all above 0."""
    z2 = float(norm.isf((1 - confidence) / 2)) ** 2
    middle = (counts + z2 / 2) / (totals + z2)
    half = np.sqrt(z2 * (counts * (totals - counts) / totals + z2 / 4)) / (totals + z2)
    return (middle - half).clip(0.0, 1.0), (middle + half).clip(0.0, 1.0)


def tail_rate(above: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the interval of the chance that a new value exceeds the (above + 1)-th largest of n.

    That chance is Beta(above + 1, n − above), whatever the distribution of the values (Wilks,
    Annals of Mathematical Statistics 12, 1941).
    """
    ends = beta.ppf([(1 - confidence) / 2, (1 + confidence) / 2], above + 1, n - above)
    return float(ends[0]), float(ends[1])


def median(values: Floats) -> Estimate:
    """Return the median with its exact interval (order statistics)."""
    if values.size == 0:
        return Estimate(None, None, None, 0)
    low = high = None
    if values.size > LEAST:  # fewer have no pair of order statistics that holds it at 95 %
        ends = quantile_test(values, q=float(np.median(values))).confidence_interval(CONFIDENCE)
        low, high = float(ends.low), float(ends.high)
    return Estimate(float(np.median(values)), low, high, values.size)
