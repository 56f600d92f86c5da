"""What the detection report concludes from the numbers of a run, and how far that goes."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipelines.fpcb.detect_report.tables import (
    decider_of,
    estimate,
    said,
    scenario_order,
    tied,
    write_area,
    write_length,
    write_share_1,
)
from pipelines.fpcb.evaluation.curves import ALL_CRACKED
from pipelines.fpcb.evaluation.thresholds import PRECISION
from pipelines.fpcb.quality.verdicts import Check
from pipelines.report_text import is_number, write_count, write_number

LEAST_ERROR = 0.05  # of a stated probability, for it to be taken at its word


def verdicts(metrics: Mapping[str, Any]) -> list[Check]:
    """Return what to think of the figures in ``metrics.json``."""
    test = metrics.get("test")
    if not test:
        text = "No labelled panels of the test split: what is missed and what is a false alarm is "
        return [
            Check("Labels", None, text + "not known. Panels are scored and called all the same.")
        ]
    decider = decider_of(test)
    return [
        *_check_threshold(test, decider),
        *_check_found(test, decider),
        *_check_good(test, decider),
        *_check_baselines(test, decider),
        *_check_ties(test),
        *_check_place(test),
        *_check_sure(test, metrics),
        *_check_validation(metrics, decider),
        _limits(test, decider),
    ]


def _check_threshold(test: Mapping[str, Any], decider: str | None) -> list[Check]:
    """Hold the threshold's promise against what it did on the test panels."""
    asked = test["detectors"][decider].get("threshold") if decider else None
    if not asked:
        return []
    confusion = test["detectors"][decider]["confusion"]
    precise = asked["kind"] == PRECISION
    seen = confusion["precision" if precise else "false_alarm_rate"]
    what = "panels called NG that are cracked" if precise else "good panels called NG"
    text = (
        f"Asked for: {'at least' if precise else 'at most'} {write_share_1(asked['wanted'])} of "
        f"{what}. Validation gave {write_share_1(asked['got'])}, and promises "
        f"{write_share_1(asked['low'])} to {write_share_1(asked['high'])} of new panels; the test "
        f"split gave {_with_interval(seen, write_share_1)}."
    )
    ends = (seen["low"], seen["high"])
    sound = None
    if is_number(ends[0]) and is_number(ends[1]):
        kept = ends[1] >= asked["wanted"] if precise else ends[0] <= asked["wanted"]
        sound = bool(kept)
    if asked.get("warning"):
        text, sound = f"{text} {asked['warning']}", None if sound else sound
    if asked.get("prevalence") is not None:
        text += f" Meant for a line with {write_share_1(asked['prevalence'])} cracked panels."
    return [Check("Threshold", sound, text)]


def _check_found(test: Mapping[str, Any], decider: str | None) -> list[Check]:
    if decider is None or not test["panels"]["n_bad"]:
        text = "There are no cracked panels in the test split: misses cannot be counted."
        return [] if decider is None else [Check("Cracked panels", None, text)]
    rows = test["detectors"][decider]["confusion"]["scenarios"]
    missed = [row for row in rows if row["label"] and row["n_called_ng"] < row["n"]]
    if not missed:
        text = f"All {write_count(test['panels']['n_bad'])} were found: there are no misses."
        return [Check("Cracked panels", True, text)]
    listed = ", ".join(
        f"{said(row['scenario'])} {row['n'] - row['n_called_ng']} of {row['n']}" for row in missed
    )
    recall = test["detectors"][decider]["confusion"]["recall"]
    text = f"Found: {_with_interval(recall, write_share_1)}. Missed: {listed}."
    return [Check("Cracked panels", None, text)]


def _check_good(test: Mapping[str, Any], decider: str | None) -> list[Check]:
    """Tell whether some kind of good panel is called NG more often than the others."""
    if decider is None:
        return []
    confusion = test["detectors"][decider]["confusion"]
    rows = [row for row in confusion["scenarios"] if not row["label"] and row["n"]]
    if not confusion["fp"]:
        text = f"None of {write_count(test['panels']['n_good'])} good panels was called NG."
        return [Check("Good panels", True, text)]
    share = confusion["false_alarm_rate"]["value"]
    high = [row for row in rows if row["called_ng"]["low"] > share]
    listed = ", ".join(
        f"{said(row['scenario'])} {row['n_called_ng']} of {row['n']}" for row in rows
    )
    text = f"Called NG: {listed}."
    if high:
        text += f" More often than good panels in all: {_names(row['scenario'] for row in high)}."
    return [Check("Good panels", not high, text)]


def _check_baselines(test: Mapping[str, Any], decider: str | None) -> list[Check]:
    """Tell whether the detectors are worth their time."""
    if not test["beats"]:
        return []
    texts = []
    for name in dict.fromkeys(one["detector"] for one in test["beats"]):
        own = [one for one in test["beats"] if one["detector"] == name]
        parts = [
            *_differences(own, "better", "beats"),
            *_differences(own, "worse", "is worse than"),
        ]
        subject = "The ensemble" if name == "ensemble" else said(name)
        texts.append(f"{subject} {'; '.join(parts) or 'is level with the baselines'}.")
    worse = any(one["verdict"] == "worse" for one in test["beats"] if one["detector"] == decider)
    text = " ".join(texts) + " All else is level: no difference that luck could not explain."
    return [Check("Baselines", not worse, text)]


def _differences(own: Sequence[Mapping[str, Any]], verdict: str, words: str) -> list[str]:
    """Say in which scenarios a detector differs from which baselines."""
    won: dict[str, list[str]] = {}
    for one in own:
        if one["verdict"] == verdict:
            won.setdefault(one["scenario"], []).append(one["baseline"])
    over: dict[tuple[str, ...], list[str]] = {}
    for scenario in scenario_order([*won]):
        over.setdefault(tuple(won[scenario]), []).append(scenario)
    n_baselines = len({one["baseline"] for one in own})
    return [
        f"{words} {_whom(baselines, n_baselines)} in {_names(scenarios)}"
        for baselines, scenarios in over.items()
    ]


def _whom(baselines: Sequence[str], n_baselines: int) -> str:
    if len(baselines) == n_baselines == 2:
        return "both baselines"
    return " and ".join(f"the {said(name)}" for name in baselines)


def _check_ties(test: Mapping[str, Any]) -> list[Check]:
    if not (scenarios := tied(test)):
        return []
    names = _names(scenarios)
    text = f"In {names} a baseline tells the cracked panels from the good ones as perfectly as the "
    text += "detectors (PR AUC 1.000): these panels are too easy to show that a detector is needed."
    return [Check("Ties", None, text)]


def _check_place(test: Mapping[str, Any]) -> list[Check]:
    found = (test.get("found") or {}).get(ALL_CRACKED)
    if not found or not (found["frame"]["n"] or found["place"]["n"]):
        return []
    frame, place = found["frame"], found["place"]
    shares = [write_share_1(one["share_within"]["value"]) for one in (frame, place)]
    text = (
        f"Median error of the time {_with_interval(frame['median_error'], write_number)} frames "
        f"({shares[0]} within {write_number(frame['within'])}), "
        f"of the place {_with_interval(place['median_error'], write_length)} of the length "
        f"({shares[1]} within "
        f"{write_share_1(place['within'])}). Of cracked panels that were found, alone."
    )
    small = [
        one["median_error"]["value"] <= one["within"]
        for one in (frame, place)
        if is_number(one["median_error"]["value"])
    ]
    return [Check("Time and place", all(small), text)]


def _check_sure(test: Mapping[str, Any], metrics: Mapping[str, Any]) -> list[Check]:
    found = test.get("calibration")
    if not found:
        return []
    ensemble = (metrics.get("decision") or {}).get("ensemble") or {}
    if ensemble.get("kind") == "maximum":
        text = "Validation has too few cracked panels to learn probabilities: “sure” is the share "
        text += "of good panels that score lower, and no probability of a crack."
        return [Check("How sure", None, text)]
    text = (
        f"A stated probability of a crack is off by {write_share_1(found['expected_error'])} on "
        f"average (Brier score {write_number(found['brier'])}; "
        f"{write_number(found['brier_of_share'])} by always stating the share of cracked panels). "
        "It is meant for a line with as many cracked panels as validation has."
    )
    return [Check("How sure", found["expected_error"] <= LEAST_ERROR, text)]


def _check_validation(metrics: Mapping[str, Any], decider: str | None) -> list[Check]:
    """Tell whether the test panels are as hard as those that were learned from."""
    areas = [
        ((metrics.get(split) or {}).get("detectors") or {}).get(decider, {}).get("cracked", {})
        for split in ("val", "test")
    ]
    pair = [area.get(ALL_CRACKED, {}).get("pr_auc") or {} for area in areas]
    if not all(is_number(one.get("low")) and is_number(one.get("high")) for one in pair):
        return []
    val, test = pair
    text = (
        f"PR AUC of all cracked panels: {_with_interval(val, write_area)} on validation panels, "
        f"{_with_interval(test, write_area)} on test panels."
    )
    return [Check("Validation and test", bool(test["high"] >= val["low"]), text)]


def _limits(test: Mapping[str, Any], decider: str | None) -> Check:
    asked = test["detectors"][decider].get("threshold") if decider else None
    rests = "of validation panels"
    if asked:
        rests = f"of {write_count(asked['n_good'])} good and {write_count(asked['n_bad'])} cracked "
        rests += "validation panels"
    text = (
        f"Detectors saw good training panels; the threshold and the ensemble are {rests}, which "
        "flatters figures of validation. Test panels were scored once, when all was decided. The "
        "figures hold for panels like these: another line, camera or crack may do otherwise."
    )
    return Check("Limits", None, text)


def _with_interval(found: Mapping[str, Any], write: Any) -> str:
    text = estimate(found, write)
    return text["value"] + (f" ({text['interval']})" if text["interval"] else "")


def _names(scenarios: Iterable[str]) -> str:
    names = [said(name) for name in scenarios]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
