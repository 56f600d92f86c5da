"""Which panel of a data set is of which scenario, and in which split."""

import numpy as np
import numpy.typing as npt

from pipelines.fpcb.scenarios import MIXES

SPLITS = ("train", "val", "test")
SHARES = (0.70, 0.15, 0.15)


def apportion(total: int, weights: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Share ``total`` out in proportion to ``weights``, by largest remainder.

    The parts add up to ``total``. Of equal remainders the earlier weight is served first.
    """
    shares = np.asarray(weights, float)
    quota = total * shares / shares.sum()
    # A quota that rounding leaves a hair below a whole number is that number.
    parts = np.floor(quota + 1e-9).astype(np.int64)
    order = np.argsort(-np.round(quota - parts, 9), kind="stable")
    parts[order[: total - parts.sum()]] += 1
    return parts


def class_counts(panels: int, mix: str = "100k") -> npt.NDArray[np.int64]:
    """Return the number of panels of each scenario of the mix, in the order of SCENARIOS."""
    return apportion(panels, MIXES[mix])


def assign(
    seed: int, panels: int, numbers: npt.NDArray[np.int64], mix: str = "100k"
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return scenario (index in SCENARIOS) and split (index in SPLITS) of panels by number.

    A shuffle of all panels ranks them; the ranks are dealt out to the scenarios, and those of a
    scenario to the splits. So both depend on the seed, ``panels`` and the number alone.

    Parameters
    ----------
    panels : int
        Panels in the data set.
    numbers : ndarray (n,), each in [0, panels)
    """
    rank = np.random.default_rng(seed).permutation(panels)[numbers]
    counts = class_counts(panels, mix)
    ends = np.cumsum(counts)
    scenario = np.searchsorted(ends, rank, side="right")
    within = rank - np.concatenate([[0], ends])[scenario]
    split_ends = np.cumsum([apportion(int(count), SHARES) for count in counts], axis=1)
    split = (within[:, None] >= split_ends[scenario]).sum(axis=1)
    return scenario, split
