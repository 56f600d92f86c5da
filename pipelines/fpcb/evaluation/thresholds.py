"""Where to draw the line: thresholds chosen on validation panels, never on test.

A panel is called NG when its score lies above the threshold, which is the score of a validation
panel: the highest that still passes as good.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from cluster.errors import InputError
from pipelines.fpcb.evaluation.curves import Bools, checked, need_cracked
from pipelines.fpcb.evaluation.intervals import CONFIDENCE, Floats, rate, tail_rate

FALSE_ALARMS, PRECISION = "false_alarms", "precision"

_TAIL = 0.1  # share of the good panels whose scores are taken for the tail


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """A threshold, what was asked of it, and what it does.

    Attributes
    ----------
    value : float
        Panels that score above it are called NG.
    kind : str
        ``"false_alarms"`` (share of good panels called NG) or ``"precision"`` (share of panels
        called NG that are cracked): what ``wanted``, ``got``, ``low`` and ``high`` are about.
    wanted, got : float
        Asked for, and measured on the validation panels.
    low, high : float
        95 % interval of the rate to expect from new panels of the same kind.
    n_good, n_bad : int
        Validation panels it rests on.
    prevalence : float, optional
        Share of cracked panels on the line that a precision was stated for.
    warning : str
        What cannot be promised, as a sentence; empty when nothing is amiss.
    """

    value: float
    kind: str
    wanted: float
    got: float
    low: float
    high: float
    n_good: int
    n_bad: int
    prevalence: float | None = None
    warning: str = ""

    def calls(self, score: npt.ArrayLike) -> Bools:
        """Tell which scores (n,) are called NG.

        Raises
        ------
        InputError
            When a score is NaN.
        """
        scores = np.asarray(score, dtype=np.float64)
        if np.isnan(scores).any():
            row = int(np.isnan(scores).argmax())
            raise InputError("scores", "score", "a number", f"NaN at row {row}")
        return scores > self.value

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-able values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "threshold") -> Self:
        """Return the threshold that `to_dict` gave.

        Raises
        ------
        InputError
            When something is missing or no number.
        """
        try:
            known = cls(**{f.name: values[f.name] for f in fields(cls)})
            finite = math.isfinite(known.value) and known.kind in (FALSE_ALARMS, PRECISION)
        except (KeyError, TypeError) as error:
            raise _damaged(where, str(error)) from error
        if not finite:
            raise _damaged(where, f"{known.kind} {known.value}")
        return known


def for_false_alarms(label: npt.ArrayLike, score: npt.ArrayLike, wanted: float) -> Threshold:
    """Choose the threshold that calls a share ``wanted`` of good panels NG, whatever their scores.

    It is the j-th largest of the n good scores with the largest j ≤ wanted · (n + 1): a new good
    panel exceeds it with probability j / (n + 1), or less where scores tie. The interval is that
    of order statistics (`tail_rate`). Where n is too small for any j, the tail of the good scores
    is continued as an exponential (peaks over threshold: Pickands, Annals of Statistics 3 (1975)
    119), which no longer holds whatever the scores; ``warning`` says so.

    Raises
    ------
    InputError
        When ``wanted`` is not between 0 and 1, a score is NaN, or no panel is good.
    """
    bad, scores = _validation(label, score, "--false-alarms", wanted)
    good = np.sort(scores[~bad])[::-1]
    n = good.size
    j = math.floor(wanted * (n + 1) + 1e-9)
    value = float(good[j - 1]) if j else _beyond(good, wanted)
    above = int((good > value).sum())
    low, high = tail_rate(max(j - 1, 0), n)
    warning = ""
    if not j:
        warning = (
            f"{n:,} good validation panels promise {1 / (n + 1):.2%} false alarms at best, not "
            f"{100 * wanted:.4g}%: that takes {math.ceil(1 / wanted - 1e-9) - 1:,} good panels. "
            "The threshold continues the tail of their scores."
        )
    return Threshold(
        value=value,
        kind=FALSE_ALARMS,
        wanted=wanted,
        got=above / n,
        low=low if above == max(j - 1, 0) else 0.0,
        high=high,
        n_good=n,
        n_bad=int(bad.sum()),
        warning=warning,
    )


def _beyond(good: Floats, wanted: float) -> float:
    """Return the score that a share ``wanted`` exceeds, if the tail of ``good`` is exponential.

    ``good`` falls. Excesses over the 90 % quantile have their mean as the tail's scale.
    """
    n_tail = max(1, round(_TAIL * good.size))
    foot = good[min(n_tail, good.size - 1)]
    scale = float((good[:n_tail] - foot).mean())
    return float(max(foot + scale * math.log(n_tail / good.size / wanted), good[0]))


def for_precision(
    label: npt.ArrayLike,
    score: npt.ArrayLike,
    wanted: float,
    prevalence: float | None = None,
) -> Threshold:
    """Choose the smallest threshold at which a share ``wanted`` of panels called NG is cracked.

    With recall r and false-alarm rate a, precision = πr / (πr + (1 − π)a), where π is
    ``prevalence``, or the share of cracked panels in validation. The interval takes the exact
    bounds of both rates at once (Bonferroni); that the threshold was chosen on the same panels it
    leaves aside.

    Raises
    ------
    InputError
        When ``wanted`` or ``prevalence`` is not between 0 and 1, a score is NaN, or validation
        lacks good or cracked panels.
    """
    bad, scores = _validation(label, score, "--ng-precision", wanted)
    need_cracked(bad, "validation", "Use --false-alarms, or label cracked panels in validation.")
    if prevalence is not None:
        _need_share("--prevalence", prevalence)
    n_bad, n_good = int(bad.sum()), int((~bad).sum())
    share = n_bad / bad.size if prevalence is None else prevalence
    levels, slot = np.unique(scores, return_inverse=True)
    tp, fp = (
        np.cumsum(np.bincount(slot[of], minlength=levels.size)[::-1])[::-1] for of in (bad, ~bad)
    )
    precision = _precision(share, tp / n_bad, fp / n_good)
    # Rounding must not lose a level that meets the wish exactly.
    meets = precision >= min(wanted, precision.max()) - 1e-12
    at = int(meets.argmax())
    both = (1 + CONFIDENCE) / 2
    recall, alarms = rate(int(tp[at]), n_bad, both), rate(int(fp[at]), n_good, both)
    ends = ((recall.low, alarms.high), (recall.high, alarms.low))
    low, high = (float(_precision(share, np.array(r), np.array(a))) for r, a in ends)
    got = float(precision[at])
    reached = got >= wanted - 1e-12
    return Threshold(
        value=float(levels[at - 1] if at else np.nextafter(levels[0], -np.inf)),
        kind=PRECISION,
        wanted=wanted,
        got=got,
        low=low,
        high=high,
        n_good=n_good,
        n_bad=n_bad,
        prevalence=prevalence,
        warning="" if reached else (
            f"No threshold reaches precision {wanted:.4g} on the validation panels: the best is "
            f"{got:.4g}."
        ),
    )  # fmt: skip


def _precision(share: float, recall: Floats, alarms: Floats) -> Floats:
    found = share * recall
    called = found + (1 - share) * alarms
    return np.divide(found, called, out=np.zeros_like(called), where=called > 0)


def _validation(
    label: npt.ArrayLike, score: npt.ArrayLike, option: str, wanted: float
) -> tuple[Bools, Floats]:
    _need_share(option, wanted)
    bad, scores = checked(label, score, "validation")
    if bad.all():
        fix = "Give validation some good panels: a threshold rests on them."
        raise InputError("validation", "panels", "some good ones (label 0)", "none", fix)
    return bad, scores


def _need_share(option: str, wanted: float) -> None:
    if not 0 < wanted < 1:
        raise InputError(option, "share", "a number between 0 and 1", wanted, "Give 0.01 for 1 %.")


def _damaged(where: str, got: str) -> InputError:
    return InputError(where, "threshold", "what this program wrote", got, "Train again.")
