"""How well scores tell cracked panels from good ones: curves, areas, recall, per scenario.

Everywhere: ``label`` (n,) 0 good or 1 cracked, ``score`` (n,) higher = more likely cracked,
``scenario`` (n,) names. A panel is called NG when its score lies ABOVE a threshold. The cracked
panels of a scenario are held against ALL good panels, as they are on a line.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score, roc_auc_score

from cluster.errors import InputError
from pipelines.fpcb.evaluation.bootstrap import (
    PRECISION,
    REPLICAS,
    estimates,
    generator,
    measures,
    replicate,
)
from pipelines.fpcb.evaluation.intervals import Estimate, Floats, Ints, rate, wilson

ALL_CRACKED = "all cracked"
MOST_POINTS = 400

Bools = npt.NDArray[np.bool_]


def checked(
    label: npt.ArrayLike, score: npt.ArrayLike, where: str = "scores"
) -> tuple[Bools, Floats]:
    """Return which panels are cracked (n,), and scores (n,) or (n, k), as arrays that can be used.

    Raises
    ------
    InputError
        When there are none, their numbers differ, a label is neither 0 nor 1, or a score is NaN
        or infinite.
    """
    labels, scores = np.asarray(label), np.asarray(score, dtype=np.float64)
    if labels.size == 0:
        raise InputError(where, "no panels", fix="Score some panels first.")
    if labels.ndim != 1 or len(labels) != len(scores):
        raise InputError(where, "labels", f"one for each of {len(scores)} scores", labels.shape)
    strange = ~np.isin(labels, (0, 1))
    if strange.any():
        got = f"{labels[strange][0]} at row {int(strange.argmax())}"
        raise InputError(where, "label", "0 (good) or 1 (cracked)", got, "Correct the labels.")
    lost = ~np.isfinite(scores).reshape(len(scores), -1).all(axis=1)
    if lost.any():
        got = f"{int(lost.sum())} that are NaN or infinite, the first at row {int(lost.argmax())}"
        raise InputError(where, "scores", "finite numbers", got, "Leave those panels out.")
    return labels.astype(bool), scores


def need_good(bad: Bools, where: str = "scores") -> None:
    """Raise InputError when there is no good panel to compare with."""
    if bad.all():
        fix = "Score good panels too: cracked ones are told from those."
        raise InputError(where, "panels", "some good ones (label 0)", "cracked ones alone", fix)


def need_cracked(bad: Bools, where: str = "scores", fix: str = "") -> None:
    """Raise InputError when there is no cracked panel."""
    if not bad.any():
        fix = fix or "Label some cracked panels, or look at false alarms alone."
        raise InputError(where, "panels", "some cracked ones (label 1)", "good ones alone", fix)


def roc_auc(label: npt.ArrayLike, score: npt.ArrayLike) -> float:
    """Return the chance that a cracked panel scores above a good one (ties count a half)."""
    return float(roc_auc_score(*_both_classes(label, score)))


def average_precision(label: npt.ArrayLike, score: npt.ArrayLike) -> float:
    """Return the area under the precision-recall curve, by steps (PR AUC)."""
    return float(average_precision_score(*_both_classes(label, score)))


def recall_at_precision(
    label: npt.ArrayLike, score: npt.ArrayLike, precision: float = PRECISION
) -> float:
    """Return the largest share of cracked panels that any threshold finds at ``precision``."""
    bad, scores = _both_classes(label, score)
    once = [np.ones((1, int(n)), dtype=np.int64) for n in ((~bad).sum(), bad.sum())]
    return float(measures(scores[~bad], scores[bad], once[0], once[1], precision)[0, 2])


def false_alarm_rate(label: npt.ArrayLike, score: npt.ArrayLike, threshold: float) -> Estimate:
    """Return the share of good panels called NG, with its Clopper-Pearson interval."""
    bad, scores = checked(label, score)
    return rate(int((scores[~bad] > threshold).sum()), int((~bad).sum()))


def groups(bad: Bools, scenario: npt.ArrayLike) -> tuple[dict[str, Bools], dict[str, Bools]]:
    """Return the rows of each cracked scenario (first all of them), and of each good one.

    A scenario that has both, as unnamed ones of a real line may, stands among both.
    """
    names = np.asarray(scenario)
    if names.shape != bad.shape:
        raise InputError("scores", "scenarios", f"one for each of {len(bad)} panels", names.shape)
    named = [{str(n): of & (names == n) for n in np.unique(names[of])} for of in (bad, ~bad)]
    cracked = {ALL_CRACKED: bad, **named[0]} if bad.any() else {}
    return cracked, named[1]


def by_scenario(
    label: npt.ArrayLike,
    score: npt.ArrayLike,
    scenario: npt.ArrayLike,
    threshold: float | None = None,
    *,
    precision: float = PRECISION,
    replicas: int = REPLICAS,
    seed: int = 0,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return what one detector does with each scenario, as JSON-able values.

    Returns
    -------
    dict
        ``cracked``: of each cracked scenario and of all together, pr_auc, roc_auc and
        recall_at_precision against all good panels. ``good``: of each good scenario the number
        of panels and, when a threshold is given, the share called NG. Values as of `Estimate`.

    Raises
    ------
    InputError
        As `checked`; and when there are no good panels.
    """
    bad, scores = checked(label, score)
    need_good(bad)
    cracked, good = groups(bad, scenario)
    table: dict[str, dict[str, dict[str, Any]]] = {"cracked": {}, "good": {}}
    reference = scores[~bad]
    for name, rows in cracked.items():
        replicated = replicate(
            reference[:, None],
            scores[rows, None],
            generator(seed, name),
            replicas=replicas,
            precision=precision,
        )
        found = estimates(reference, scores[rows], replicated[0], precision)
        table["cracked"][name] = as_values(found)
    for name, rows in good.items():
        table["good"][name] = {"n": int(rows.sum())}
        if threshold is not None:
            called = rate(int((scores[rows] > threshold).sum()), int(rows.sum()))
            table["good"][name]["called_ng"] = called.to_dict()
    return table


def as_values(found: Mapping[str, Estimate]) -> dict[str, Any]:
    """Return estimates as JSON-able values."""
    return {name: one.to_dict() for name, one in found.items()}


def drawn_curves(
    label: npt.ArrayLike, score: npt.ArrayLike, most: int = MOST_POINTS
) -> dict[str, dict[str, list[float]]]:
    """Return the ROC and PR curves, thinned to ``most`` points, with pointwise Wilson intervals.

    Returns
    -------
    dict
        ``roc``: false_alarms, recall, recall_low, recall_high, from (0, 0) on; ``pr``: recall,
        precision, precision_low, precision_high. Both from the strictest threshold to the one
        that calls every panel NG.
    """
    bad, scores = _both_classes(label, score)
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.diff(scores[order], append=-np.inf))
    tp = np.concatenate([[0], np.cumsum(bad[order])[ends]])
    called = np.concatenate([[0], ends + 1])
    fp, n_bad = called - tp, int(bad.sum())
    recall, false_alarms = tp / n_bad, fp / fp[-1]
    precision = tp[1:] / called[1:]
    at = thin(false_alarms, recall, most)
    roc = (false_alarms[at], recall[at], *wilson(tp[at], np.full(at.size, n_bad)))
    at = thin(recall[1:], precision, most)
    pr = (recall[1:][at], precision[at], *wilson(tp[1:][at], called[1:][at]))
    names = ("recall", "precision", "precision_low", "precision_high")
    return {
        "roc": _lists(("false_alarms", "recall", "recall_low", "recall_high"), roc),
        "pr": _lists(names, pr),
    }


def thin(x: Floats, y: Floats, most: int) -> Ints:
    """Return up to ``most`` indices of points along a curve, evenly by its length, ends kept."""
    if x.size <= most:
        return np.arange(x.size)
    along = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
    kept = np.searchsorted(along, np.linspace(0.0, along[-1], most)).clip(0, x.size - 1)
    kept[0], kept[-1] = 0, x.size - 1
    return np.unique(kept)


def _both_classes(label: npt.ArrayLike, score: npt.ArrayLike) -> tuple[Bools, Floats]:
    bad, scores = checked(label, score)
    need_good(bad)
    need_cracked(bad)
    return bad, scores


def _lists(names: tuple[str, ...], columns: tuple[Floats, ...]) -> dict[str, list[float]]:
    # Six digits are more than a picture shows, and a third of the bytes.
    return {name: np.round(column, 6).tolist() for name, column in zip(names, columns, strict=True)}
