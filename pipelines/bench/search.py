"""Which tolerances a solver is tried at, so that it is timed at the gap that was asked for.

A solver that stops on the relative gap is asked for that gap. One that stops on something else has
its tolerance tightened until the checker's gap is met, then loosened once if that was far too much:
it must not be charged for accuracy that nobody asked for.
"""

import itertools
import math
from collections.abc import Sequence

from pipelines.bench.measure import Try

STEP, LONGEST_STEP = 10.0, 1000.0
MOST_TRIES = 9
FIRST_SHARE = 0.1  # of the smallest alpha: the first violation of optimality that is allowed
AIM = 0.7  # the share of the gap asked for that the last try aims at
WASTE = 2.0  # so many times tighter than asked, an answer is worth another try
TIGHTENINGS = 2  # of a solver that stops on the gap, yet misses it by our checker


def next_tol(
    tries: Sequence[Try],
    asked: float,
    *,
    stops_on_gap: bool,
    curve: Sequence[float] = (),
    smallest_alpha: float = 1.0,
) -> float | None:
    """Return the tolerance to try next; None when there is nothing left to learn.

    Parameters
    ----------
    tries : what has been tried so far
    asked : float, relative gap
    stops_on_gap : bool, whether the solver's tolerance is that gap
    curve : looser gaps that are tried first, for the plot; of solvers that stop on the gap
    smallest_alpha : float, sets the scale where the tolerance is a violation of optimality
    """
    if tries and tries[-1].status != "solved" and tries[-1].tol == min(t.tol for t in tries):
        return None  # tighter would take longer still
    if stops_on_gap:
        planned = sorted((tol for tol in curve if tol > asked), reverse=True)
        planned += [asked * STEP**-i for i in range(TIGHTENINGS + 1)]
        if best_try(tries, asked, stops_on_gap=True) is not None or len(tries) >= len(planned):
            return None
        return planned[len(tries)]
    if not tries:
        return FIRST_SHARE * smallest_alpha
    met = best_try(tries, asked, stops_on_gap=False)
    if met is None:
        return _tighter(tries, asked) if len(tries) < MOST_TRIES else None
    looser = [t for t in tries if t.tol > met.tol]
    refined = any(after.tol > before.tol for before, after in itertools.pairwise(tries))
    if refined or not looser or met.gap is None or met.gap * WASTE > asked:
        return None
    return _between(min(looser, key=lambda t: t.tol), met, asked)


def best_try(tries: Sequence[Try], asked: float, *, stops_on_gap: bool) -> Try | None:
    """Return the loosest try that meets the gap asked for.

    Of a solver that stops on the gap, only those that were asked for it, or more: what a looser one
    reached is luck, which its user could not have known of.
    """
    met = [t for t in tries if t.gap is not None and t.gap <= asked]
    if stops_on_gap:
        met = [t for t in met if t.tol <= asked]
    return max(met, key=lambda t: t.tol, default=None)


def _tighter(tries: Sequence[Try], asked: float) -> float:
    """Return what should meet the gap by the law of the last two tries, else a tenth."""
    tol = tries[-1].tol
    aimed = _aim(tries[-2], tries[-1], asked) if len(tries) > 1 else None
    return tol / STEP if aimed is None else min(max(aimed, tol / LONGEST_STEP), tol / 2)


def _between(missed: Try, met: Try, asked: float) -> float | None:
    tol = _aim(missed, met, asked)
    return tol if tol is not None and met.tol < tol < missed.tol else None


def _aim(loose: Try, tight: Try, asked: float) -> float | None:
    """Return the tolerance whose gap should be `AIM` of the one asked for, by a power law."""
    if loose.gap is None or tight.gap is None or not loose.gap > tight.gap > 0:
        return None
    slope = math.log(loose.gap / tight.gap) / math.log(loose.tol / tight.tol)
    return float(tight.tol * (AIM * asked / tight.gap) ** (1 / slope))
