"""The detection report's tables: rows of text, from ``metrics.json`` and ``scores.parquet``."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from pipelines.fpcb.dataset import UNKNOWN
from pipelines.fpcb.evaluation.compare import BASELINES, DETECTORS
from pipelines.fpcb.evaluation.curves import ALL_CRACKED
from pipelines.fpcb.quality.verdicts import splits_of
from pipelines.fpcb.scenarios import NAMES
from pipelines.report_text import is_number, write_number

MEASURES = ("pr_auc", "roc_auc", "recall_at_precision")
FLAWLESS = 0.9995  # from here on an area reads 1.000
LISTED = 20  # misses, false alarms
_SAID = {
    "dream": "DREAM",
    "patchcore": "PatchCore",
    "ensemble": "ensemble",
    "best_feature": "best single feature",
    "mahalanobis": "Mahalanobis distance",
}
_ENSEMBLE = "ensemble"


def said(name: str) -> str:
    """Return a detector's or scenario's name as a reader knows it."""
    return _SAID.get(name, name.replace("_", " "))


def decider_of(test: Mapping[str, Any]) -> str | None:
    """Return the detector whose threshold calls panels NG; None where no threshold is known."""
    called = [name for name, one in test["detectors"].items() if one.get("confusion")]
    return _ENSEMBLE if _ENSEMBLE in called else next(iter(called), None)


def scenario_order(names: Sequence[str]) -> list[str]:
    """Return scenarios in their usual order, all cracked panels first."""
    usual = [ALL_CRACKED, *NAMES, UNKNOWN]
    known = [name for name in usual if name in names]
    return [*known, *sorted({*names} - {*known})]


def detector_order(names: Sequence[str]) -> list[str]:
    """Return detectors in their usual order, baselines last."""
    return [name for name in (*DETECTORS, *BASELINES) if name in names]


def measure_rows(test: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a group of rows a cracked scenario: each detector's areas and recall."""
    detectors = detector_order([*test["detectors"]])
    scenarios = {name for one in test["detectors"].values() for name in one["cracked"]}
    groups = []
    for scenario in scenario_order([*scenarios]):
        rows = []
        for name in detectors:
            found = test["detectors"][name]["cracked"].get(scenario)
            if found:
                row: dict[str, Any] = {
                    key: estimate(found.get(key), write_area) for key in MEASURES
                }
                row |= {"detector": said(name), "baseline": name in BASELINES}
                rows.append(row | {"verdict": _beaten(test["beats"], name, scenario)})
        n = test["panels"]["cracked"].get(scenario, test["panels"]["n_bad"])
        groups.append({"scenario": said(scenario), "n": n, "rows": rows})
    return groups


def tied(test: Mapping[str, Any]) -> list[str]:
    """Return the scenarios that a baseline tells without a mistake, as a detector does."""
    found = []
    for scenario in scenario_order([*test["panels"]["cracked"]]):
        areas = {
            name: one["cracked"].get(scenario, {}).get("pr_auc", {}).get("value")
            for name, one in test["detectors"].items()
        }
        flawless = {n for n, area in areas.items() if is_number(area) and area >= FLAWLESS}
        if flawless & {*BASELINES} and flawless - {*BASELINES}:
            found.append(scenario)
    return found


def called_rows(test: Mapping[str, Any], label: int) -> dict[str, Any]:
    """Return the share called NG of each scenario of a label, by every detector with a threshold.

    Returns
    -------
    dict
        ``detectors`` and ``rows`` (scenario, n, cells).
    """
    deciding = [n for n in detector_order([*test["detectors"]]) if _confusion(test, n)]
    cells: dict[str, dict[str, Any]] = {}
    for name in deciding:
        for row in _confusion(test, name)["scenarios"]:
            if row["label"] == label:
                cells.setdefault(row["scenario"], {"n": row["n"]})[name] = row
    rows = [
        {
            "scenario": said(scenario),
            "n": cells[scenario]["n"],
            "cells": [_called_cell(cells[scenario].get(name)) for name in deciding],
        }
        for scenario in scenario_order([*cells])
    ]
    return {"detectors": [said(name) for name in deciding], "rows": rows}


def confusion_rows(test: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what each detector with a threshold did with the panels in all."""
    rows = []
    for name in detector_order([*test["detectors"]]):
        if found := _confusion(test, name):
            shares = ("precision", "recall", "false_alarm_rate")
            row = {key: found[key] for key in ("tp", "fp", "fn", "tn")}
            row |= {key: estimate(found[key], write_share_1) for key in shares}
            row |= {"detector": said(name), "baseline": name in BASELINES}
            rows.append(row | {"threshold": test["detectors"][name].get("threshold")})
    return rows


def hardest_rows(test: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the scenarios, those most often judged wrongly first."""
    return [
        {
            "scenario": said(row["scenario"]),
            "label": "cracked" if row["label"] else "good",
            "n": row["n"],
            "n_wrong": row["n_wrong"],
            "wrong": estimate(row["wrong"], write_share_1),
            "pr_auc": write_area(row.get("pr_auc")),
        }
        for row in test.get("hardest") or []
    ]


def found_rows(test: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the errors of time and place of each cracked scenario."""
    found = test.get("found") or {}
    rows = []
    for scenario in scenario_order([*found]):
        frame, place = found[scenario]["frame"], found[scenario]["place"]
        rows.append(
            {
                "scenario": said(scenario),
                "n_frame": frame["n"],
                "frame": estimate(frame["median_error"], write_number),
                "frame_90": write_number(frame["percentile_90"]),
                "frame_within": estimate(frame["share_within"], write_share_1),
                "n_place": place["n"],
                "place": estimate(place["median_error"], write_length),
                "place_90": write_length(place["percentile_90"]),
                "place_within": estimate(place["share_within"], write_share_1),
            }
        )
    return rows


def listed_panels(rows: pd.DataFrame, score: str, why: str) -> list[dict[str, Any]]:
    """Return up to `LISTED` panels judged wrongly: cracked ones missed, or good ones called NG."""
    if score not in rows or "called_ng" not in rows:
        return []
    called = rows["called_ng"].eq(True)
    if why == "missed":
        wrong = rows[(rows["label"] == 1) & ~called].sort_values(score, kind="stable")
    else:
        wrong = rows[(rows["label"] == 0) & called]
        wrong = wrong.sort_values(score, kind="stable", ascending=False)
    there = ("number", "name", "scenario", "crack_frame", "crack_place", "severity", "hinge_deg")
    more = (score, "sure", "found_frame", "found_place", "found_kink_deg")
    kept = wrong.reindex(columns=[*dict.fromkeys((*there, *more))]).head(LISTED).astype(object)
    kept = kept.where(kept.notna(), None).rename(columns={score: "score"})
    return [
        {**row, "scenario": said(str(row["scenario"] or UNKNOWN))}
        for row in kept.to_dict("records")
    ]


def count_rows(counts: Mapping[str, int]) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the splits, and the panels of each scenario in them."""
    splits = splits_of(counts)
    table: dict[str, dict[str, int]] = {}
    for name, count in counts.items():
        split, _, scenario = name.partition("/")
        table.setdefault(scenario, {})[split] = count
    rows = [{"scenario": said(name), "counts": table[name]} for name in scenario_order([*table])]
    return splits, rows


def estimate(found: Mapping[str, Any] | None, write: Any) -> dict[str, str]:
    """Return an estimate as text: its value, and its interval where there is one."""
    found = found or {}
    value, low, high = (found.get(key) for key in ("value", "low", "high"))
    if not is_number(value) or not is_number(low) or not is_number(high):
        return {"value": write(value), "interval": ""}
    return {"value": write(value), "interval": f"{write(low).removesuffix(' %')}–{write(high)}"}


def write_area(value: Any) -> str:
    """Write an area with three decimals; more where it would read 1 and is less."""
    if not is_number(value):
        return "–"
    if FLAWLESS <= value < 1:
        return f"{value:.4f}" if value < 0.99995 else ">0.9999"
    return f"{float(value):.3f}"


def write_share_1(value: Any) -> str:
    """Write a share as a percentage with one decimal; two below 1 %."""
    if not is_number(value):
        return "–"
    percent = 100 * float(value)
    if 0 < percent < 0.005:
        return "<0.01 %"
    return f"{percent:.2f} %" if 0 < percent < 1 else f"{percent:.1f} %"


def write_length(value: Any) -> str:
    """Write a share of the length as a percentage with two decimals."""
    return f"{100 * float(value):.2f} %" if is_number(value) else "–"


def _confusion(test: Mapping[str, Any], name: str) -> Any:
    return test["detectors"][name].get("confusion")


def _called_cell(row: Mapping[str, Any] | None) -> dict[str, Any]:
    if row is None:
        return {"value": "–", "interval": "", "count": ""}
    text = estimate(row["called_ng"], write_share_1)
    return {**text, "count": f"{row['n_called_ng']} of {row['n']}"}


def _beaten(beats: Sequence[Mapping[str, Any]], name: str, scenario: str) -> str:
    """Say how a detector compares with the baselines in a scenario."""
    own = [one for one in beats if one["detector"] == name and one["scenario"] == scenario]
    verdicts = {one["verdict"] for one in own}
    if not own:
        return ""
    if len(verdicts) == 1:
        verdict = verdicts.pop()
        return f"{_than(verdict)} {'both' if len(own) == 2 else said(own[0]['baseline'])}"
    return "; ".join(f"{_than(one['verdict'])} {said(one['baseline'])}" for one in own)


def _than(verdict: str) -> str:
    return f"{verdict} than" if verdict in ("better", "worse") else f"{verdict} with"
