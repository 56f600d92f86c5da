"""What the quality report concludes from its numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pipelines.fpcb.dataset import FEATURES, UNKNOWN
from pipelines.fpcb.population import SHARES, SPLITS
from pipelines.fpcb.quality.checks import CHANCE, PERFECT
from pipelines.report_text import write_count, write_percent


@dataclass(frozen=True)
class Check:
    """Something held against the data: sound, not, or (None) for the reader to know."""

    name: str
    sound: bool | None
    text: str


def checks(numbers: Mapping[str, Any]) -> list[Check]:
    """Return what to think of the numbers that `pipelines.fpcb.quality.page.judge` gathers."""
    return [
        _check_splits(numbers["counts"], numbers["seed"] is not None),
        _check_duplicates(numbers["duplicates"]),
        *_check_again(numbers["made_again"]),
        _check_areas(
            "Nuisances",
            numbers["nuisances"],
            "Nothing about camera, process or sampling tells cracked panels from good",
            "gives cracked panels away",
        ),
        *_check_early(numbers),
        _check_best(numbers["best_features"]),
        *_check_camera(numbers["cues"]),
        _check_rejects(numbers["rejected"]),
    ]


def splits_of(counts: Mapping[str, int]) -> list[str]:
    """Return the splits that there are, in their usual order."""
    there = {name.split("/")[0] for name in counts}
    return [split for split in (*SPLITS, UNKNOWN) if split in there]


def _check_splits(counts: Mapping[str, int], generated: bool) -> Check:
    """Tell whether the splits have the same mix of scenarios, as far as chance or rounding lets."""
    table = pd.Series(counts).rename_axis("group").reset_index(name="n")
    table[["split", "scenario"]] = table["group"].str.split("/", expand=True)
    wide = table.pivot_table(index="scenario", columns="split", values="n", fill_value=0)
    if set(wide.columns) == {UNKNOWN}:
        return Check("Splits", None, "No panel says which split it belongs to.")
    per_scenario = wide.sum(axis=1).to_numpy()
    shares = (wide.sum() / per_scenario.sum()).to_numpy()
    if generated:
        shares = pd.Series(dict(zip(SPLITS, SHARES, strict=True))).reindex(wide.columns).to_numpy()
    away = np.abs(wide.to_numpy() - np.outer(per_scenario, shares))
    spread = np.sqrt(np.outer(per_scenario, shares * (1 - shares)))
    even = bool((away <= 1 + (0 if generated else 3 * spread)).all())
    text = ", ".join(
        f"{write_percent(wide[split].sum() / per_scenario.sum())} {split}"
        for split in splits_of(counts)
    )
    how = "every scenario alike" if even else f"up to {away.max():.0f} panels of a scenario off"
    return Check("Splits", even, f"{text}; {how}.")


def _check_duplicates(duplicates: Mapping[str, Any]) -> Check:
    of_features = "features (the same points, wherever in the image)"
    what = of_features if duplicates["by"] == FEATURES else "points"
    whole = duplicates["compared"] == duplicates["of"]
    compared = write_count(duplicates["compared"])
    compared += f" of {write_count(duplicates['of'])} panels compared."
    if not whole:
        compared += " Make the features, and all are compared in seconds."
    if not duplicates["panels"]:
        return Check("Duplicates", True if whole else None, f"No two have equal {what}; {compared}")
    text = f"{write_count(duplicates['panels'])} panels repeat the {what} of another; {compared}"
    if duplicates["across_splits"]:
        text += f" {write_count(duplicates['across_splits'])} groups reach across splits."
    return Check("Duplicates", False, text)


def _check_again(again: Mapping[str, int] | None) -> list[Check]:
    if again is None:
        return []
    same, tried = again["same"], again["of"]
    text = f"{same} of {tried} panels, one a scenario, made again from the options, are the same."
    if same < tried:
        text += " The generator or the features have changed since; pictures show the new ones."
    return [Check("Made again", same == tried, text)]


def _check_areas(name: str, said: Sequence[Mapping[str, Any]], sound: str, not_so: str) -> Check:
    if not said:
        return Check(name, None, "Too few labelled panels to say.")
    bad = [one for one in said if one["gives_away"]]
    if bad:
        listed = "; ".join(
            f"{one['feature']} (AUC {one['auc']:.3f} for {one['scenario']})" for one in bad
        )
        return Check(name, False, f"A number that should not {not_so}: {listed}.")
    most = max(said, key=lambda one: one["auc"])
    limit = max(CHANCE, most["limit"])
    return Check(
        name,
        True,
        f"{sound}: the largest AUC of all tried is {most['auc']:.3f} ({most['feature']} for "
        f"{most['scenario']}), which chance explains (up to {0.5 + limit:.3f} with "
        f"{write_count(most['n_bad'])} panels of it).",
    )


def _check_early(numbers: Mapping[str, Any]) -> list[Check]:
    checks = []
    if (early := numbers["differ_before_the_crack"]) is not None and early["of"]:
        text = "are, before their crack, the good panel of their number to the byte."
        same = early["of"] - early["differ"]
        checks.append(
            Check("Before the crack", same == early["of"], f"{same} of {early['of']} panels {text}")
        )
    if numbers["before_the_crack"]:
        checks.append(
            _check_areas(
                "Frames before the crack",
                numbers["before_the_crack"],
                "No feature of a frame tells which panel will crack",
                "tells a cracked panel before it cracks",
            )
        )
    return checks


def _check_best(best: Sequence[Mapping[str, Any]]) -> Check:
    if not best:
        return Check("Single features", None, "Too few labelled panels to say.")
    perfect = [one for one in best if one["auc"] >= PERFECT]
    if not perfect:
        most = max(best, key=lambda one: one["auc"])
        text = f"None tells a scenario perfectly: {most['feature']} comes to {most['auc']:.3f}."
        return Check("Single features", True, text)
    listed = ", ".join(f"{one['scenario']} ({one['feature']} {one['auc']:.3f})" for one in perfect)
    return Check(
        "Single features",
        False,
        f"One number alone tells {listed} from good panels: a detector proves little on these. "
        "Ask for smaller cracks (--severity, --scenario kink) to find its limit.",
    )


def _check_camera(rows: Sequence[Mapping[str, Any]]) -> list[Check]:
    hidden = [row["scenario"] for row in rows if row.get("shake") and not row["shake"]["visible"]]
    if not hidden:
        return []
    listed = ", ".join(hidden)
    text = f"The shake after a crack is out of this camera's sight: {listed}. See below."
    return [Check("Camera", None, text)]


def _check_rejects(rejected: int) -> Check:
    if not rejected:
        return Check("Rejects", True, "Nothing was left out.")
    return Check("Rejects", None, f"{write_count(rejected)} bundles were left out; see below.")
