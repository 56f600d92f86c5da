"""The tables of a run: every detector beside every baseline, scenario by scenario."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import InputError
from pipelines.fpcb.dataset import UNKNOWN
from pipelines.fpcb.evaluation.bootstrap import (
    MEASURES,
    PRECISION,
    REPLICAS,
    estimates,
    generator,
    replicate,
)
from pipelines.fpcb.evaluation.calibration import calibration
from pipelines.fpcb.evaluation.compare import BASELINES, DETECTORS, compare, judged
from pipelines.fpcb.evaluation.curves import (
    ALL_CRACKED,
    Bools,
    as_values,
    checked,
    drawn_curves,
    groups,
    need_good,
)
from pipelines.fpcb.evaluation.found import found_errors
from pipelines.fpcb.evaluation.intervals import CONFIDENCE, Floats, rate
from pipelines.fpcb.evaluation.thresholds import Threshold


def evaluate(
    scores: pa.Table,
    thresholds: Mapping[str, Threshold],
    detectors: Sequence[str] = (*DETECTORS, *BASELINES),
    *,
    decider: str = "ensemble",
    split: str | None = "test",
    replicas: int = REPLICAS,
    seed: int = 0,
) -> dict[str, Any]:
    """Return what ``metrics.json`` says of the panels of one split.

    Parameters
    ----------
    scores : table
        A row a panel: scenario, label, split, a column for each of ``detectors``; for time and
        place the columns of `found_errors`, for calibration ``sure`` (probability of a crack).
        Panels without a label are counted and left out; so are detectors without any score.
    thresholds : mapping of detector to Threshold
        Chosen on validation.
    decider : str
        Detector by whose threshold scenarios are ranked in ``hardest``.
    split : str or None
        Rows to look at; None: all.

    Returns
    -------
    dict
        ``panels``, ``detectors`` (each: ``cracked`` scenarios, ``confusion``, ``threshold``),
        ``beats`` (see `compare`), ``hardest``, ``found``, ``calibration``, ``left_out``.

    Raises
    ------
    InputError
        When a column is missing, there are no labelled panels, no good ones, a score is NaN or
        null, or a threshold is of a detector that is not there.
    """
    rows, unlabelled = _rows(scores, split)
    there = [name for name in detectors if _has_scores(rows, name)]
    if not there:
        raise InputError("scores", "detectors", ", ".join(detectors), "none of them")
    stray = sorted(set(thresholds) - set(there))
    if stray:
        raise InputError("thresholds", "detector", f"one of {', '.join(there)}", stray[0])
    bad, values = _labelled(rows, there)
    need_good(bad)
    cracked, good = groups(bad, _scenarios(rows))
    measured, beats = _measured(bad, values, there, cracked, replicas, seed)
    found: dict[str, Any] = {}
    for j, name in enumerate(there):
        found[name] = {"cracked": measured[name]}
        if name in thresholds:
            threshold = thresholds[name]
            found[name]["threshold"] = threshold.to_dict()
            found[name]["confusion"] = confusion(threshold.calls(values[:, j]), bad, cracked, good)
    return {
        "split": split,
        "confidence": CONFIDENCE,
        "precision_of_recall": PRECISION,
        "panels": {
            "n": bad.size,
            "n_good": int((~bad).sum()),
            "n_bad": int(bad.sum()),
            "unlabelled": unlabelled,
            "cracked": {k: int(v.sum()) for k, v in cracked.items() if k != ALL_CRACKED},
            "good": {k: int(v.sum()) for k, v in good.items()},
        },
        "detectors": found,
        "beats": beats,
        "hardest": hardest(found[decider]) if decider in thresholds else [],
        "found": found_errors(rows) if set(rows.column_names) >= _FOUND else None,
        "calibration": _calibration(rows, bad),
        "left_out": [name for name in detectors if name not in there],
    }


def curves(
    scores: pa.Table,
    detectors: Sequence[str] = (*DETECTORS, *BASELINES),
    split: str | None = "test",
) -> dict[str, dict[str, Any]]:
    """Return the ROC and PR curves to draw, of each detector and cracked scenario (and of all)."""
    rows, _ = _rows(scores, split)
    there = [name for name in detectors if _has_scores(rows, name)]
    bad, values = _labelled(rows, there)
    cracked, _ = groups(bad, _scenarios(rows))
    return {
        name: {
            scenario: drawn_curves(bad[own | ~bad], values[own | ~bad, j])
            for scenario, own in cracked.items()
        }
        for j, name in enumerate(there)
    }


def confusion(
    called: Bools, bad: Bools, cracked: Mapping[str, Bools], good: Mapping[str, Bools]
) -> dict[str, Any]:
    """Return the counts of panels called NG (n,), in all and per scenario, with exact intervals."""
    tp, fp = int((called & bad).sum()), int((called & ~bad).sum())
    n_bad, n_good = int(bad.sum()), int((~bad).sum())
    scenarios = [
        {
            "scenario": name,
            "label": label,
            "n": int(own.sum()),
            "n_called_ng": int((called & own).sum()),
            "called_ng": rate(int((called & own).sum()), int(own.sum())).to_dict(),
        }
        for label, of in ((1, cracked), (0, good))
        for name, own in of.items()
        if name != ALL_CRACKED
    ]
    shares = {
        "precision": rate(tp, tp + fp),
        "recall": rate(tp, n_bad),
        "false_alarm_rate": rate(fp, n_good),
    }
    counts = {"tp": tp, "fp": fp, "fn": n_bad - tp, "tn": n_good - fp}
    return {**counts, **as_values(shares), "scenarios": scenarios}


def hardest(of_detector: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the scenarios by the share of panels judged wrongly, the hardest first."""
    found = []
    for row in of_detector["confusion"]["scenarios"]:
        missed = row["n"] - row["n_called_ng"]
        n_wrong = missed if row["label"] else row["n_called_ng"]
        one = {"scenario": row["scenario"], "label": row["label"], "n": row["n"]}
        one |= {"n_wrong": n_wrong, "wrong": rate(n_wrong, row["n"]).to_dict()}
        one["pr_auc"] = (
            of_detector["cracked"][row["scenario"]]["pr_auc"]["value"] if row["label"] else None
        )
        found.append(one)
    return sorted(found, key=lambda one: (-one["wrong"]["value"], one["pr_auc"] or 1.0))


def _measured(
    bad: Bools,
    values: Floats,
    names: Sequence[str],
    cracked: Mapping[str, Bools],
    replicas: int,
    seed: int,
) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """Return each detector's measures of each scenario, and the comparisons with baselines."""
    table: dict[str, dict[str, Any]] = {name: {} for name in names}
    beats: list[dict[str, Any]] = []
    good = values[~bad]
    for scenario, own in cracked.items():
        rng = generator(seed, scenario)
        replicated = replicate(good, values[own], rng, replicas=replicas)
        areas = []
        for j, name in enumerate(names):
            found = estimates(good[:, j], values[own, j], replicated[j])
            table[name][scenario] = as_values(found)
            areas.append(found[MEASURES[0]].value or 0.0)
        beats += compare(names, areas, replicated[:, :, 0], scenario)
    return table, judged(beats)


_FOUND = {
    *("called_ng", "found_frame", "found_place"),
    *("damage_frame", "crack_frame", "crack_place"),
}


def _rows(scores: pa.Table, split: str | None) -> tuple[pa.Table, int]:
    """Return labelled rows of the split, and how many have no label."""
    needed = {"scenario", "label", *(["split"] if split else [])}
    missing = sorted(needed - set(scores.column_names))
    if missing:
        raise InputError("scores", "column missing", ", ".join(sorted(needed)), missing[0])
    rows = scores.filter(pc.equal(scores["split"], split)) if split else scores
    if "number" in rows.column_names:  # the same panels are drawn again, in whatever order
        rows = rows.sort_by("number")
    labelled = rows.filter(pc.is_valid(rows["label"]))
    if len(labelled) == 0:
        what = f"labelled panels of split {split!r}" if split else "labelled panels"
        raise InputError("scores", what, "some", 0, "Score panels whose labels are known.")
    return labelled, len(rows) - len(labelled)


def _has_scores(rows: pa.Table, name: str) -> bool:
    return name in rows.column_names and rows[name].null_count < len(rows)


def _labelled(rows: pa.Table, names: Sequence[str]) -> tuple[Bools, Floats]:
    """Return which panels are cracked (n,), and the detectors' scores (n, k)."""
    label = rows["label"].to_numpy()
    columns = [checked(label, _floats(rows, name), f"scores of {name}")[1] for name in names]
    return checked(label, np.stack(columns, axis=1))


def _scenarios(rows: pa.Table) -> npt.NDArray[np.str_]:
    return np.array([name or UNKNOWN for name in rows["scenario"].to_pylist()], dtype=np.str_)


def _floats(rows: pa.Table, name: str) -> Floats:
    column = pc.fill_null(pc.cast(rows[name], pa.float64()), np.nan)
    return np.asarray(column, dtype=np.float64)


def _calibration(rows: pa.Table, bad: Bools) -> dict[str, Any] | None:
    return calibration(bad, _floats(rows, "sure")) if _has_scores(rows, "sure") else None
