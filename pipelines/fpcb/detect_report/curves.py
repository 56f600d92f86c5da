"""The detection report's plots of scores: curves of detectors, and how scores spread."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go

from pipelines.fpcb.dataset import UNKNOWN
from pipelines.fpcb.detect_report.figures import TEAL, small
from pipelines.fpcb.detect_report.tables import detector_order, said, scenario_order
from pipelines.fpcb.quality.figures import violin
from pipelines.report_page import BLUE, GREY, ORANGE, RED
from pipelines.report_text import is_number, label

Floats = npt.NDArray[np.floating]

LINES: dict[str, dict[str, Any]] = {
    "dream": {"color": BLUE, "width": 1.8},
    "patchcore": {"color": ORANGE, "width": 1.8},
    "ensemble": {"color": TEAL, "width": 2.6},
    "best_feature": {"color": GREY, "width": 1.5, "dash": "dash"},
    "mahalanobis": {"color": GREY, "width": 1.5, "dash": "dot"},
}
_BAND = "rgba(47,146,115,0.17)"


def roc_figure(found: Mapping[str, Any], n_good: int) -> go.Figure:
    """Draw ROC curves of detectors; ``found`` as `evaluation.tables.curves` has of a scenario."""
    floor = 0.5 / max(n_good, 1)
    figure = go.Figure()
    for name in _drawn_order(found):
        curve = found[name]["roc"]
        x = np.maximum(np.asarray(curve["false_alarms"], dtype=np.float32), np.float32(floor))
        if name == "ensemble":
            _band(figure, x, curve["recall_low"], curve["recall_high"])
        ends = (curve["recall_low"], curve["recall_high"])
        said_here = "false alarms %{x:.4f}<br>found %{y:.3f}"
        _curve(figure, name, x, curve["recall"], ends, said_here)
    ticks = [10.0**k for k in range(-5, 1) if 10.0**k > 1.5 * floor]
    figure.update_xaxes(
        title="good panels called NG", type="log", range=[np.log10(floor), 0],
        tickvals=[floor, *ticks], ticktext=["0", *(f"{100 * t:g} %" for t in ticks)],
    )  # fmt: skip
    figure.update_yaxes(title="cracked panels found", range=[0, 1.03], tickformat=".0%")
    return small(figure)


def pr_figure(found: Mapping[str, Any]) -> go.Figure:
    """Draw precision-recall curves of detectors."""
    figure = go.Figure()
    for name in _drawn_order(found):
        curve = found[name]["pr"]
        x = np.asarray(curve["recall"], dtype=np.float32)
        ends = (curve["precision_low"], curve["precision_high"])
        if name == "ensemble":
            _band(figure, x, *ends)
        said_here = "found %{x:.3f}<br>precision %{y:.3f}"
        _curve(figure, name, x, curve["precision"], ends, said_here)
    figure.update_xaxes(title="cracked panels found", range=[0, 1.02], tickformat=".0%")
    figure.update_yaxes(title="cracked among those called NG", range=[0, 1.03], tickformat=".0%")
    return small(figure)


def score_figure(
    rows: pd.DataFrame, name: str, threshold: float | None, odds: bool = True
) -> go.Figure | None:
    """Draw the scores of one detector by scenario, its threshold, and the panels on the wrong side.

    The axis is straight among good panels and logarithmic far from them, as the ensemble's members
    are; the ensemble's own score is such a measure already: with ``odds`` the log odds of a crack.
    """
    rows = rows[np.isfinite(rows[name].to_numpy(dtype=float))]
    if rows.empty:
        return None
    scores = rows[name].to_numpy(dtype=float)
    good = scores[(rows["label"] == 0).to_numpy()]
    centre, scale = (0.0, 1.0) if name == "ensemble" else _standard(good if good.size else scores)
    values = scores if name == "ensemble" else np.arcsinh((scores - centre) / scale)
    line = None
    if is_number(threshold):
        line = threshold if name == "ensemble" else float(np.arcsinh((threshold - centre) / scale))
    groups = _groups(rows)
    figure = go.Figure()
    for position, (_, bad, own) in enumerate(groups):
        color = GREY if bad is None else (ORANGE if bad else BLUE)
        violin(figure, values[own], position, color)
        if line is not None and bad is not None:
            wrong = own & ((values <= line) if bad else (values > line))
            _wrong(figure, rows, scores, values, wrong, position, bad)
    if line is not None:
        figure.add_vline(x=line, line={"color": RED, "width": 1.2, "dash": "dash"})
    low, high = float(values.min()), float(values.max())
    low, high = min(low, line or low), max(high, line or high)
    margin = 0.04 * (high - low) or 1.0
    figure.update_xaxes(
        title="log odds of a crack" if name == "ensemble" and odds else "score",
        range=[low - margin, high + margin],
    )
    if name != "ensemble":
        figure.update_xaxes(**_ticks(low, high, centre, scale))
    figure.update_yaxes(
        tickvals=list(range(len(groups))),
        ticktext=[label(said(scenario)) for scenario, _, _ in groups],
        range=[len(groups) - 0.4, -0.6],
        showgrid=False,
    )
    return small(figure, 96 + 30 * len(groups))


def _drawn_order(found: Mapping[str, Any]) -> list[str]:
    """Baselines lie below detectors, and these below the ensemble."""
    return [*reversed(detector_order([*found]))] if "ensemble" not in found else [
        *reversed([name for name in detector_order([*found]) if name != "ensemble"]), "ensemble",
    ]  # fmt: skip


def _curve(
    figure: go.Figure, name: str, x: Floats, y: Sequence[float],
    ends: tuple[Sequence[float], Sequence[float]], text: str,
) -> None:  # fmt: skip
    figure.add_scatter(
        x=x,
        y=np.asarray(y, dtype=np.float32),
        mode="lines",
        line=LINES[name],
        name=said(name),
        customdata=np.stack([*ends], axis=1).astype(np.float32),
        hovertemplate=f"{said(name)}<br>{text} "
        "(%{customdata[0]:.3f}–%{customdata[1]:.3f})<extra></extra>",
    )


def _band(figure: go.Figure, x: Floats, low: Sequence[float], high: Sequence[float]) -> None:
    figure.add_scatter(
        x=np.concatenate([x, x[::-1]]),
        y=np.concatenate([high, low[::-1]]).astype(np.float32),
        mode="lines",
        line={"width": 0},
        fill="toself",
        fillcolor=_BAND,
        hoverinfo="skip",
    )


def _groups(rows: pd.DataFrame) -> list[tuple[str, bool | None, npt.NDArray[np.bool_]]]:
    """Return scenarios, good before cracked before unlabelled, and the rows of each."""
    names = rows["scenario"].fillna(UNKNOWN).to_numpy(dtype=object)
    groups = []
    for bad in (False, True, None):
        of = rows["label"].isna() if bad is None else rows["label"] == float(bad)
        for name in scenario_order([*{str(n) for n in names[of.to_numpy()]}]):
            groups.append((name, bad, of.to_numpy() & (names == name)))
    return groups


def _wrong(
    figure: go.Figure, rows: pd.DataFrame, scores: Floats, values: Floats,
    wrong: npt.NDArray[np.bool_], position: int, bad: bool,
) -> None:  # fmt: skip
    if wrong.any():
        figure.add_scatter(
            x=values[wrong].astype(np.float32),
            y=np.full(int(wrong.sum()), position),
            mode="markers",
            marker={"color": RED, "size": 6, "line": {"color": "#ffffff", "width": 0.8}},
            customdata=np.stack([rows["number"].to_numpy(float)[wrong], scores[wrong]], axis=1),
            hovertemplate=f"{'missed' if bad else 'false alarm'}: panel %{{customdata[0]:.0f}}<br>"
            "score %{customdata[1]:.4g}<extra></extra>",
        )


def _standard(scores: Floats) -> tuple[float, float]:
    centre = float(np.median(scores))
    scale = float(np.quantile(scores, 0.95)) - centre
    return centre, scale or float(scores.std()) or 1.0


def _ticks(low: float, high: float, centre: float, scale: float) -> dict[str, Any]:
    """Return round scores that stand at least a seventh of the axis apart."""
    powers = [m * 10.0**k for k in range(-4, 8) for m in (1, 2, 5)]
    ordered = [0.0, *(sign * value for value in powers[::-1] for sign in (1, -1))]
    chosen: list[tuple[float, float]] = []
    for value in ordered:
        at = float(np.arcsinh((value - centre) / scale))
        near = any(abs(at - other) < (high - low) / 7 for other, _ in chosen)
        if low <= at <= high and not near:
            chosen.append((at, value))
    chosen.sort()
    texts = [f"{value:,.10g}".replace("-", "−") for _, value in chosen]
    return {"tickvals": [at for at, _ in chosen], "ticktext": texts}
