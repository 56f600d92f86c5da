"""Logistic regression whose weights are never negative, chosen by what it says of panels left out.

Minimised is log loss / n + strength · ‖w‖² / 2 over w ≥ 0; the intercept goes free. It is convex,
and finite for panels that a line parts perfectly.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss
from sklearn.model_selection import StratifiedKFold

from pipelines.fpcb.evaluation.intervals import Floats, Ints

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)
FOLDS = 5

Bools = npt.NDArray[np.bool_]
Folds = Sequence[tuple[Ints, Ints]]  # rows kept, rows left out

_LEAST_WEIGHT = 1e-3  # of a member on its own, whose order must not be lost
_SAME = 1e-9  # areas that differ by rounding alone


@dataclass(frozen=True, eq=False)
class Choice:
    """The regression chosen.

    Attributes
    ----------
    weights : ndarray (k,)
    intercept, strength : float
    log_loss, brier : float
        Over panels left out of the fit.
    pr_auc : float
        On all panels; never below the largest of ``member_pr_auc``.
    member_pr_auc : list of float, length k
    """

    weights: Floats
    intercept: float
    strength: float
    log_loss: float
    brier: float
    pr_auc: float
    member_pr_auc: list[float]


def choose(z: Floats, bad: Bools) -> Choice:
    """Choose among all members together and each alone, at each of STRENGTHS.

    The one with the least log loss over panels left out wins, of those whose PR AUC is not below
    that of any member alone.

    Parameters
    ----------
    z : ndarray (n, k)
    bad : ndarray (n,)
        At least two of each class.
    """
    k = z.shape[1]
    alone = [average_precision_score(bad, column) for column in z.T]
    sets = [tuple(range(k)), *((j,) for j in range(k) if k > 1)]
    n_folds = min(FOLDS, int(bad.sum()), int((~bad).sum()))
    folds = [*StratifiedKFold(n_folds, shuffle=True, random_state=0).split(z, bad)]
    choices = []
    for members in sets:
        for strength in STRENGTHS:
            p = _left_out(z, bad, folds, members, strength)
            weights, intercept = fit(z, bad, members, strength)
            # Order alone counts, and a sum with the intercept may round it away.
            area = average_precision_score(bad, z @ weights)
            choices.append(
                Choice(
                    weights=weights,
                    intercept=intercept,
                    strength=strength,
                    log_loss=float(log_loss(bad, p)),
                    brier=float(brier_score_loss(bad, p)),
                    pr_auc=float(area),
                    member_pr_auc=[float(one) for one in alone],
                )
            )
    enough = min(max(alone), max(one.pr_auc for one in choices)) - _SAME
    return min((one for one in choices if one.pr_auc >= enough), key=lambda one: one.log_loss)


def fit(z: Floats, bad: Bools, members: Sequence[int], strength: float) -> tuple[Floats, float]:
    """Return weights (k,), zero but for ``members``, and the intercept."""
    used, sign = z[:, members], np.where(bad, 1.0, -1.0)
    n, k = used.shape

    def objective(x: Floats) -> tuple[float, Floats]:
        margin = sign * (used @ x[:k] + x[k])
        slope = -sign * expit(-margin) / n
        value = np.logaddexp(0.0, -margin).mean() + strength / 2 * x[:k] @ x[:k]
        return float(value), np.append(used.T @ slope + strength * x[:k], slope.sum())

    share = bad.mean()
    start = np.append(np.full(k, 1.0), np.log(share / (1 - share)))
    least = _LEAST_WEIGHT if k == 1 else 0.0
    found = minimize(
        objective,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=[(least, None)] * k + [(None, None)],
        options={"maxiter": 1_000, "ftol": 1e-12, "gtol": 1e-8},
    )
    weights = np.zeros(z.shape[1])
    weights[[*members]] = found.x[:k]
    return weights, float(found.x[k])


def _left_out(
    z: Floats, bad: Bools, folds: Folds, members: Sequence[int], strength: float
) -> Floats:
    """Return the probability (n,) that fits without a panel's fold give it."""
    p = np.empty(len(z))
    for kept, left in folds:
        weights, intercept = fit(z[kept], bad[kept], members, strength)
        p[left] = expit(z[left] @ weights + intercept)
    return p
