"""A stratified bootstrap of PR AUC, ROC AUC and recall, many replicas and detectors at once.

A replica only says how often each panel was drawn, so scores are sorted once, and the measures of
all replicas follow from sums of draws between one cracked panel's score and the next.
"""

import hashlib
from collections.abc import Iterator

import numpy as np

from pipelines.fpcb.evaluation.intervals import (
    CONFIDENCE,
    LEAST,
    Estimate,
    Floats,
    Ints,
    rate,
)

REPLICAS = 1_000
PRECISION = 0.99
MEASURES = ("pr_auc", "roc_auc", "recall_at_precision")

_DRAWS = 1_000_000  # held at once while resampling


def generator(seed: int, name: str) -> np.random.Generator:
    """Return random numbers that depend on ``seed`` and ``name`` alone."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return np.random.default_rng([seed, int.from_bytes(digest, "little")])


def replicate(
    good: Floats,
    bad: Floats,
    rng: np.random.Generator,
    *,
    replicas: int = REPLICAS,
    precision: float = PRECISION,
) -> Floats:
    """Return MEASURES of k detectors on bootstrapped panels, the same panels for each detector.

    Parameters
    ----------
    good, bad : ndarray (n_good, k), (n_bad, k)
        Scores; drawn again within each class, so that the shares of the classes stay.

    Returns
    -------
    ndarray (k, replicas, 3)
    """
    blocks = [
        np.stack(
            [measures(g, b, n_good, n_bad, precision) for g, b in zip(good.T, bad.T, strict=True)]
        )
        for n_good, n_bad in _resamples(len(good), len(bad), replicas, rng)
    ]
    return np.concatenate(blocks, axis=1)


def estimates(
    good: Floats, bad: Floats, replicated: Floats, precision: float = PRECISION
) -> dict[str, Estimate]:
    """Return each of MEASURES of one detector with its percentile interval.

    A measure of 1 leaves the bootstrap nothing to vary. Its low end then supposes that as many
    cracked panels as chance may have hidden (Clopper-Pearson) lie below the highest good panel,
    and above all others.

    Parameters
    ----------
    good, bad : ndarray (n_good,), (n_bad,)
    replicated : ndarray (replicas, 3)
        Of `replicate`.
    """
    once = [np.ones((1, len(part)), dtype=np.int64) for part in (good, bad)]
    values = measures(good, bad, once[0], once[1], precision)[0]
    found = {}
    for name, value, column in zip(MEASURES, values, replicated.T, strict=True):
        low: float | None = None
        high: float | None = None
        if min(len(good), len(bad)) >= LEAST:
            low, high = percentiles(column)
            if value == 1.0:
                low = min(low, _flawless(len(good), len(bad))[name])
        found[name] = Estimate(float(value), low, high, len(bad))
    return found


def _flawless(n_good: int, n_bad: int) -> dict[str, float]:
    """Return how low MEASURES may be where no mistake was seen (see `estimates`)."""
    seen = rate(n_bad, n_bad).low or 0.0
    hidden = 1 - seen
    lows = (seen + hidden * n_bad / (n_bad + 1), 1 - hidden / n_good, seen)
    return dict(zip(MEASURES, lows, strict=True))


def percentiles(values: Floats) -> tuple[float, float]:
    """Return the percentile interval of replicas (n,), which may be infinite."""
    wanted = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    ends = np.quantile(values, wanted, method="inverted_cdf")
    return float(ends[0]), float(ends[1])


def measures(good: Floats, bad: Floats, n_good: Ints, n_bad: Ints, precision: float) -> Floats:
    """Return MEASURES (n_replicas, 3) of panels that were drawn so many times each.

    Parameters
    ----------
    good, bad : ndarray (g,), (b,)
        Scores.
    n_good, n_bad : ndarray (n_replicas, g), (n_replicas, b)
        Draws.
    precision : float
        At which recall is asked for.
    """
    levels, level = np.unique(-bad, return_inverse=True)  # from the highest score down
    tp = np.cumsum(_totals(n_bad, level, levels.size), axis=1)
    # Even slots lie between two levels, odd ones on a level: there a good panel ties.
    slot = np.searchsorted(levels, -good, "left") + np.searchsorted(levels, -good, "right")
    passed = np.cumsum(_totals(n_good, slot, 2 * levels.size + 1), axis=1)
    above, fp = passed[:, 0:-1:2], passed[:, 1::2]
    total_bad, total_good = tp[:, -1], passed[:, -1]
    hits = np.diff(tp, axis=1, prepend=0)
    precisions = tp / np.maximum(tp + fp, 1)
    reached = np.where(precisions >= precision, tp, 0).max(axis=1)
    outranked = (hits * (total_good[:, None] - (fp + above) / 2)).sum(axis=1)
    found = [
        (hits * precisions).sum(axis=1) / total_bad,
        outranked / (total_bad * total_good),
        reached / total_bad,
    ]
    return np.stack(found, axis=1)


def _totals(counts: Ints, slot: Ints, n_slots: int) -> Ints:
    """Return the sums of counts (r, n) over the columns of each slot: (r, n_slots)."""
    order = np.argsort(slot, kind="stable")
    sums = np.zeros((len(counts), counts.shape[1] + 1), dtype=np.int64)
    np.cumsum(counts[:, order], axis=1, out=sums[:, 1:])
    ends = np.searchsorted(slot[order], np.arange(n_slots), side="right")
    return np.diff(sums[:, ends], axis=1, prepend=0)


def _resamples(
    n_good: int, n_bad: int, replicas: int, rng: np.random.Generator
) -> Iterator[tuple[Ints, Ints]]:
    block = max(1, _DRAWS // (n_good + n_bad))
    for start in range(0, replicas, block):
        n = min(block, replicas - start)
        yield _draws(n, n_good, rng), _draws(n, n_bad, rng)


def _draws(n_replicas: int, n: int, rng: np.random.Generator) -> Ints:
    drawn = rng.integers(n, size=(n_replicas, n))
    drawn += np.arange(n_replicas)[:, None] * n
    return np.bincount(drawn.ravel(), minlength=n_replicas * n).reshape(n_replicas, n)
