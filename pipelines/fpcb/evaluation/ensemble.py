"""One verdict of several detectors, learned on validation panels.

With labelled cracked panels: a logistic regression on the detectors' scores that can only rise
with each of them. Without: the largest of the scores, each measured against good panels.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from cluster.errors import InputError
from pipelines.fpcb.evaluation.curves import checked, need_good
from pipelines.fpcb.evaluation.intervals import LEAST, Floats
from pipelines.fpcb.evaluation.monotone_logistic import choose

LOGISTIC, MAXIMUM = "logistic", "maximum"

_UPPER = 0.95  # quantile of the good panels that stands for how far their scores reach
_STEPS = 201  # quantiles of the good panels that are kept


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """Detectors' scores made one.

    A member's score s becomes z = asinh((s − centre) / scale), which is straight near the good
    panels and logarithmic far from them.

    Attributes
    ----------
    kind : str
        ``"logistic"``: score = log odds of a crack, intercept + Σ weight · z. ``"maximum"``:
        score = the largest z, learned from good panels alone.
    members : tuple of str
        Detectors, in the order of the columns of scores.
    centre, scale : tuple of float
        Median of the good validation panels, and how far their 95 % quantile lies above it.
    weights : tuple of float
        ≥ 0; of ``"maximum"``: all 1.
    intercept : float
    good_scores : tuple of float
        Evenly spaced quantiles of the score over good validation panels.
    about : dict
        How it was learned: panels, the members' and the ensemble's PR AUC on validation, and for
        ``"logistic"`` log loss (nats) and Brier score over panels left out; for ``"maximum"``,
        under ``reason``, why.
    """

    kind: str
    members: tuple[str, ...]
    centre: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    intercept: float
    good_scores: tuple[float, ...]
    about: Mapping[str, Any] = field(default_factory=dict)

    def score(self, scores: npt.ArrayLike) -> Floats:
        """Return one score (n,) of the members' scores (n, k): higher = more likely cracked.

        Raises
        ------
        InputError
            When a score is NaN or infinite, or there is not one column a member.
        """
        z = _compressed(_members(scores, self.members), self.centre, self.scale)
        if self.kind == MAXIMUM:
            return np.asarray(z.max(axis=1), dtype=np.float64)
        # Member by member: a matrix product rounds by how many panels it is given at once.
        total = np.full(len(z), self.intercept)
        for weight, column in zip(self.weights, z.T, strict=True):
            total += weight * column
        return total

    def probability(self, scores: npt.ArrayLike) -> Floats:
        """Return how sure it is (n,), between 0 and 1, that panels are cracked.

        ``"logistic"``: the probability of a crack, where cracks are as frequent as in validation.
        ``"maximum"``: the share of good panels that score lower, as nothing is known of others.
        """
        one = self.score(scores)
        if self.kind == LOGISTIC:
            return np.asarray(expit(one), dtype=np.float64)
        n = int(self.about["n_good"])
        shares = np.linspace(0.0, 1.0, len(self.good_scores)) * (n / (n + 1))
        return np.asarray(np.interp(one, self.good_scores, shares), dtype=np.float64)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-able values."""
        lists = {name: [*values] for name, values in asdict(self).items() if name in _TUPLES}
        return {**asdict(self), **lists, "about": dict(self.about)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "ensemble.json") -> Self:
        """Return the ensemble that `to_dict` gave.

        Raises
        ------
        InputError
            When something is missing, of a wrong length, negative or no finite number.
        """
        try:
            known = {f.name: values[f.name] for f in fields(cls)}
            made = cls(**{**known, **{name: tuple(known[name]) for name in _TUPLES}})
            made._check()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            fix = "Train again."
            raise InputError(where, "damaged ensemble", got=str(error), fix=fix) from error
        return made

    def _check(self) -> None:
        k = len(self.members)
        numbers = [*self.centre, *self.scale, *self.weights, self.intercept, *self.good_scores]
        sizes = {len(self.centre), len(self.scale), len(self.weights)}
        whole = (
            self.kind in (LOGISTIC, MAXIMUM)
            and all(isinstance(name, str) for name in self.members)
            and sizes == {k}
            and k > 0
            and all(math.isfinite(number) for number in numbers)
            and min(self.scale) > 0
            and min(self.weights) >= 0
            and len(self.good_scores) > 1
            and int(self.about["n_good"]) > 0
        )
        if not whole:
            raise ValueError(f"{self.kind} of {k} members")

    @classmethod
    def of_labels(cls, label: npt.ArrayLike, scores: npt.ArrayLike, members: Sequence[str]) -> Self:
        """Learn from labelled validation panels.

        Parameters
        ----------
        label : array-like (n,)
            0 good, 1 cracked.
        scores : array-like (n, k)
            Of ``members``, in that order.

        Raises
        ------
        InputError
            When a score is NaN, or there are fewer than 5 panels of a class.
        """
        bad, values = checked(label, _members(scores, members), "validation")
        need_good(bad, "validation")
        order = np.lexsort((*values.T, bad))  # the same sums, in whatever order panels come
        bad, values = bad[order], values[order]
        count = {"n_good": int((~bad).sum()), "n_bad": int(bad.sum())}
        if min(count.values()) < LEAST:
            got = f"{count['n_good']} good, {count['n_bad']} cracked"
            fix = (
                "Label more panels of validation, or take the largest score (Ensemble.of_maximum)."
            )
            raise InputError("validation", "panels", f"at least {LEAST} of each class", got, fix)
        centre, scale = _standard(values, ~bad)
        z = _compressed(values, centre, scale)
        chosen = choose(z, bad)
        good = z[~bad] @ chosen.weights + chosen.intercept
        return cls(
            kind=LOGISTIC,
            members=tuple(members),
            centre=centre,
            scale=scale,
            weights=tuple(chosen.weights.tolist()),
            intercept=chosen.intercept,
            good_scores=_quantiles(good),
            about={
                **count,
                "strength": chosen.strength,
                "pr_auc": chosen.pr_auc,
                "member_pr_auc": dict(zip(members, chosen.member_pr_auc, strict=True)),
                "log_loss_left_out": chosen.log_loss,
                "brier_left_out": chosen.brier,
            },
        )

    @classmethod
    def of_maximum(
        cls, good: npt.ArrayLike, members: Sequence[str], reason: str = "asked for"
    ) -> Self:
        """Take the largest of the scores, each measured against good validation panels (n, k).

        Raises
        ------
        InputError
            When there are none, or a score is NaN.
        """
        values = _members(good, members)
        if len(values) == 0:
            fix = "Give validation some good panels."
            raise InputError("validation", "panels", "some good ones (label 0)", "none", fix)
        values = values[np.lexsort(values.T)]
        centre, scale = _standard(values, np.ones(len(values), dtype=bool))
        return cls(
            kind=MAXIMUM,
            members=tuple(members),
            centre=centre,
            scale=scale,
            weights=(1.0,) * len(members),
            intercept=0.0,
            good_scores=_quantiles(_compressed(values, centre, scale).max(axis=1)),
            about={"n_good": len(values), "n_bad": 0, "reason": reason},
        )


def learn_ensemble(label: npt.ArrayLike, scores: npt.ArrayLike, members: Sequence[str]) -> Ensemble:
    """Learn from labels where validation has 5 cracked panels or more; else take the largest score.

    ``kind`` of the result says which, and ``about["reason"]`` why.
    """
    bad, values = checked(label, _members(scores, members), "validation")
    need_good(bad, "validation")
    if min(bad.sum(), (~bad).sum()) >= LEAST:
        return Ensemble.of_labels(bad, values, members)
    reason = f"validation has {int(bad.sum())} cracked and {int((~bad).sum())} good panels"
    return Ensemble.of_maximum(values[~bad], members, f"{reason}: learning takes {LEAST} of each")


_TUPLES = ("members", "centre", "scale", "weights", "good_scores")


def _members(scores: npt.ArrayLike, members: Sequence[str]) -> Floats:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != len(members) or not members:
        raise InputError("ensemble", "scores", f"(n, {len(members)})", values.shape)
    for name, column in zip(members, values.T, strict=True):
        lost = ~np.isfinite(column)
        if lost.any():
            got = f"{int(lost.sum())} that are NaN or infinite, the first at row {lost.argmax()}"
            raise InputError("ensemble", f"scores of {name}", "finite numbers", got)
    return values


def _standard(
    values: Floats, good: npt.NDArray[np.bool_]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return each member's centre, and the first measure of its spread that is not zero."""
    middle = np.median(values[good], axis=0)
    spreads = [
        np.quantile(values[good], _UPPER, axis=0) - middle,
        values[good].std(axis=0),
        values.std(axis=0),
        np.ones(middle.size),  # one value throughout, which then tells nothing
    ]
    scale = np.zeros(middle.size)
    for spread in spreads:
        usable = spread > np.finfo(np.float64).eps * np.maximum(1e-300, np.abs(middle))
        scale = np.where((scale == 0) & usable, spread, scale)
    return tuple(middle.tolist()), tuple(scale.tolist())


def _compressed(values: Floats, centre: Sequence[float], scale: Sequence[float]) -> Floats:
    return np.asarray(np.arcsinh((values - np.array(centre)) / np.array(scale)), dtype=np.float64)


def _quantiles(good: Floats) -> tuple[float, ...]:
    return tuple(np.quantile(good, np.linspace(0.0, 1.0, _STEPS)).tolist())
