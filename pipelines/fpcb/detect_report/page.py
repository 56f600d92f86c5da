"""``report.html`` of a run folder: what was found, missed and called NG wrongly, and how surely."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cluster.errors import InputError
from cluster.storage import Store
from pipelines.fpcb.detect_report.curves import LINES, pr_figure, roc_figure, score_figure
from pipelines.fpcb.detect_report.figures import (
    angle_figure,
    calibration_figure,
    error_figures,
    errors,
    training_figures,
)
from pipelines.fpcb.detect_report.pictures import scene, seen_panels
from pipelines.fpcb.detect_report.tables import (
    LISTED,
    called_rows,
    confusion_rows,
    count_rows,
    decider_of,
    detector_order,
    estimate,
    found_rows,
    hardest_rows,
    listed_panels,
    measure_rows,
    said,
    scenario_order,
    write_area,
    write_length,
)
from pipelines.fpcb.detect_report.verdicts import verdicts
from pipelines.fpcb.evaluation.curves import ALL_CRACKED
from pipelines.fpcb.features.extraction import FeatureConfig
from pipelines.report_page import figure_json, flat_config, render_page
from pipelines.report_text import is_number, visible, write_count, write_number

REPORT = "report.html"
_CONFIG, _METRICS, _SCORES = "config.json", "metrics.json", "scores.parquet"
_TRAINING, _PICTURES = "training.json", "pictures.npz"
_NAME_CHARACTERS = 120


@dataclass(frozen=True, eq=False, kw_only=True)
class Finished:
    """What a run folder holds for the report; ``rows`` are the panels that the figures are of."""

    run: Store
    config: Mapping[str, Any]
    metrics: Mapping[str, Any]
    rows: pd.DataFrame
    history: Sequence[Mapping[str, Any]]
    pictures: Mapping[str, npt.NDArray[Any]] | None

    @property
    def test(self) -> Mapping[str, Any] | None:
        """Tables of the test split; None where no panel of it has a label."""
        found: Mapping[str, Any] | None = self.metrics.get("test")
        return found or None


def write_detect_report(run: Store) -> str:
    """Write ``report.html`` into a run folder from what is in it, and return its uri.

    Raises
    ------
    InputError
        When the folder is no finished run, or a file of it cannot be read.
    """
    run.write_bytes(REPORT, render(read_run(run)).encode())
    return f"{run.uri}/{REPORT}"


def read_run(run: Store) -> Finished:
    """Read what the report needs.

    Raises
    ------
    InputError
        When the folder is no finished run, or a file of it cannot be read.
    """
    fix = "Run `tenfold fpcb run` again."
    try:
        metrics, config = run.read_json(_METRICS), run.read_json(_CONFIG)
        scores = run.read_table(_SCORES).to_pandas()
        if "label" in scores:  # of any type, where labels are missing
            label = scores["label"].to_numpy(dtype=float, na_value=np.nan)
            scores = scores.assign(label=label)
        history = run.read_json(_TRAINING) if run.exists(_TRAINING) else []
        pictures = run.read_arrays(_PICTURES) if run.exists(_PICTURES) else None
    except FileNotFoundError as error:
        raise InputError(str(run), "no finished run", got=str(error), fix=fix) from error
    except (OSError, ValueError) as error:
        raise InputError(str(run), "a damaged file", got=str(error), fix=fix) from error
    return Finished(
        run=run,
        config=config,
        metrics=metrics,
        rows=_judged(scores, metrics.get("test")),
        history=history,
        pictures=pictures,
    )


def render(found: Finished) -> str:
    """Return the report as one self-contained HTML document."""
    metrics, test, rows = found.metrics, found.test, found.rows
    decider = decider_of(test) if test else None
    data = metrics.get("data") or {}
    splits, counts = count_rows(data.get("counts") or {})
    seen = seen_panels(found.pictures, rows)
    score = decider or "ensemble"
    return render_page(
        Path(__file__).with_name("detect.html"),
        title=visible("/".join(found.run.path.split("/")[-2:])),
        test=test,
        kpis=_kpis(found, decider),
        checks=verdicts(metrics),
        decider=said(score),
        members=_members(metrics),
        measures=measure_rows(test) if test else [],
        validation=measure_rows(metrics["val"]) if metrics.get("val") else [],
        good=called_rows(test, 0) if test else None,
        cracked=called_rows(test, 1) if test else None,
        confusion=confusion_rows(test) if test else [],
        hardest=hardest_rows(test) if test else [],
        found=found_rows(test) if test else [],
        curves=_curves(metrics, test),
        lines={said(n): line for n, line in LINES.items() if n in (metrics.get("curves") or {})},
        scores=_scores(found),
        angle=figure_json(angle_figure(rows)),
        calibration=figure_json(calibration_figure((test or {}).get("calibration"))),
        errors={k: figure_json(v) for k, v in error_figures(errors(rows)).items()},
        scenes=[scene(one, _features(found.config)) for one in seen],
        listed=[
            {"why": why, "rows": listed_panels(rows, score, why)} for why in ("missed", "alarm")
        ],
        most_listed=LISTED,
        training=[figure_json(one) for one in training_figures(found.history)],
        best=metrics.get("training") or {},
        history=found.history,
        stages=metrics.get("stages") or [],
        total_seconds=metrics.get("total_seconds"),
        peak_gib=metrics.get("peak_gib"),
        memory=metrics.get("memory") or {},
        splits=splits,
        counts=counts,
        data=data,
        options=flat_config(found.config),
        name_characters=_NAME_CHARACTERS,
    )


def _judged(scores: pd.DataFrame, test: Mapping[str, Any] | None) -> pd.DataFrame:
    """Return the rows that figures are of: the test split, or all where none is said."""
    split = test["split"] if test else "test"
    if split is None or "split" not in scores:
        return scores
    own = scores["split"] == split
    return scores[own] if test or own.any() or scores["split"].notna().any() else scores


def _kpis(found: Finished, decider: str | None) -> list[tuple[str, str]]:
    """Return the headline: what was found, missed, and called NG wrongly."""
    test, rows = found.test, found.rows
    called = int(rows["called_ng"].eq(True).sum()) if "called_ng" in rows else 0
    panels = ("panels of the test split" if test else "panels scored", write_count(len(rows)))
    if not test or decider is None:
        return [panels, ("called NG", write_count(called))]
    confusion = test["detectors"][decider]["confusion"]
    area = test["detectors"][decider]["cracked"].get(ALL_CRACKED, {}).get("pr_auc")
    errors_of = (test.get("found") or {}).get(ALL_CRACKED) or {}
    frame, place = (errors_of.get(k, {}).get("median_error") for k in ("frame", "place"))
    n_bad, n_good = test["panels"]["n_bad"], test["panels"]["n_good"]
    off = estimate(frame, write_number)["value"]
    return [
        panels,
        ("cracked panels found", f"{write_count(confusion['tp'])} of {write_count(n_bad)}"),
        ("false alarms", f"{write_count(confusion['fp'])} of {write_count(n_good)}"),
        ("median error of the time", off + {"–": "", "1": " frame"}.get(off, " frames")),
        ("median error of the place", estimate(place, write_length)["value"]),
        (f"PR AUC, {said(decider)}", estimate(area, write_area)["value"]),
    ]


def _curves(metrics: Mapping[str, Any], test: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return the curves of each cracked scenario, all of them first."""
    curves = metrics.get("curves") or {}
    scenarios = {scenario for one in curves.values() for scenario in one}
    n_good = test["panels"]["n_good"] if test else 1
    drawn = []
    for scenario in scenario_order([*scenarios]):
        own = {name: one[scenario] for name, one in curves.items() if scenario in one}
        roc, pr = roc_figure(own, n_good), pr_figure(own)
        drawn.append({"scenario": said(scenario), "roc": figure_json(roc), "pr": figure_json(pr)})
    return drawn


def _scores(found: Finished) -> list[dict[str, Any]]:
    """Return the distribution of each detector's scores, the deciding one first."""
    decision = found.metrics.get("decision") or {}
    thresholds = decision.get("thresholds") or {}
    odds = (decision.get("ensemble") or {}).get("kind") == "logistic"
    names = [n for n in detector_order([*found.rows.columns]) if found.rows[n].notna().any()]
    names.sort(key=lambda name: name != "ensemble")
    drawn = []
    for name in names:
        threshold = (thresholds.get(name) or {}).get("value")
        figure = score_figure(found.rows, name, threshold, odds)
        drawn.append({"detector": said(name), "figure": figure_json(figure)})
    return drawn


def _members(metrics: Mapping[str, Any]) -> list[str]:
    ensemble = (metrics.get("decision") or {}).get("ensemble") or {}
    return [said(name) for name in ensemble.get("members") or []]


def _features(config: Mapping[str, Any]) -> FeatureConfig:
    """Return how features were measured, as far as the options say."""
    known = config.get("features")
    if not isinstance(known, Mapping):
        return FeatureConfig()
    names = {one.name for one in fields(FeatureConfig)}
    options: dict[str, Any] = {k: v for k, v in known.items() if k in names and is_number(v)}
    return FeatureConfig(**options)
