"""The detection report's plots of errors, probabilities and training.

Each is a figure of its own, so that the page can place few or many of them beside each other.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from pipelines.fpcb.dataset import UNKNOWN
from pipelines.fpcb.detect_report.tables import said, write_share_1
from pipelines.fpcb.evaluation.intervals import rate
from pipelines.report_page import BLUE, GREY, ORANGE, finish
from pipelines.report_text import is_number

TEAL = "#2f9273"
_SMALL = 310  # height of plots that stand beside others, px
_ANGLE_BINS, _LEAST_IN_BIN = 8, 5
_FAR_FRAMES, _FAR_PERCENT = 10, 5  # errors beyond are counted here
_MOST_DOTS = 2000
_LOGARITHMIC = {"type": "log", "dtick": "D2", "tickformat": "~g"}


def angle_figure(rows: pd.DataFrame) -> go.Figure | None:
    """Draw the share of cracked panels found, by the angle of the kink (or the severity)."""
    bad = rows[rows["label"] == 1]
    column = next((c for c in ("hinge_deg", "severity") if c in bad and bad[c].notna().any()), None)
    if column is None or "called_ng" not in rows:
        return None
    known = bad[bad[column].notna()].sort_values(column, kind="stable")
    count = min(_ANGLE_BINS, max(1, len(known) // _LEAST_IN_BIN))
    parts = [known.iloc[part] for part in np.array_split(np.arange(len(known)), count)]
    shares = [rate(int(part["called_ng"].eq(True).sum()), len(part)) for part in parts]
    what, unit = ("hinge", "°") if column == "hinge_deg" else ("severity", "")
    figure = go.Figure(
        go.Scatter(
            x=[float(part[column].median()) for part in parts],
            y=[one.value for one in shares],
            error_y=_error([one.value for one in shares], shares),
            mode="markers+lines",
            marker={"color": TEAL, "size": 8},
            line={"color": TEAL, "width": 1},
            customdata=[
                [len(part), float(part[column].min()), float(part[column].max())] for part in parts
            ],
            hovertemplate=f"{what} of %{{customdata[1]:.2f}}{unit} to %{{customdata[2]:.2f}}{unit}"
            "<br>%{customdata[0]} panels, %{y:.1%} found<extra></extra>",
        )
    )
    lowest = float(known[column].min())
    title = "angle of the hinge, fully bent (deg)" if column == "hinge_deg" else "severity"
    figure.update_xaxes(title=title, **(_LOGARITHMIC if lowest > 0 else {}))
    figure.update_yaxes(title="cracked panels found", range=[0, 1.06], tickformat=".0%")
    return small(figure)


def calibration_figure(found: Mapping[str, Any] | None) -> go.Figure | None:
    """Draw stated probabilities against what was seen."""
    if not found or not found["bins"]:
        return None
    bins = found["bins"]
    figure = go.Figure()
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", line={"color": GREY, "width": 1, "dash": "dot"},
        hoverinfo="skip",
    )  # fmt: skip
    seen = [one["seen"] for one in bins]
    figure.add_scatter(
        x=[one["stated"] for one in bins],
        y=[one["value"] for one in seen],
        error_y={
            "type": "data", "symmetric": False, "color": TEAL, "thickness": 1.2, "width": 3,
            "array": [one["high"] - one["value"] for one in seen],
            "arrayminus": [one["value"] - one["low"] for one in seen],
        },
        mode="markers",
        marker={"color": TEAL, "size": 8},
        customdata=[one["n"] for one in bins],
        hovertemplate="%{customdata} panels<br>stated %{x:.3f}<br>seen %{y:.3f}<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(title="probability stated", range=[-0.03, 1.03])
    figure.update_yaxes(title="share cracked", range=[-0.03, 1.03])
    return small(figure)


def errors(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the cracked panels that were called NG, with the errors of time and place."""
    wanted = ("found_frame", "found_place", "damage_frame", "crack_place", "scenario", "number")
    if "called_ng" not in rows:
        return pd.DataFrame(columns=[*wanted, "off_frames", "off_place"], dtype=float)
    found = rows[(rows["label"] == 1) & rows["called_ng"].eq(True)].reindex(columns=[*wanted])
    numbers = found[[*wanted[:4]]].astype(float)
    found = found.assign(
        off_frames=numbers["found_frame"] - numbers["damage_frame"],
        off_place=numbers["found_place"] - numbers["crack_place"],
    )
    return found.astype(dict.fromkeys(wanted[:4], float))


def error_figures(found: pd.DataFrame) -> dict[str, go.Figure | None]:
    """Draw errors of time and place, and what was found against what is true; see `errors`."""
    filmed = found[found["damage_frame"] > 0]  # for the others frame 0 is true, and no event
    return {
        "frame": _histogram(filmed["off_frames"], 1.0, _FAR_FRAMES, "frames late (− early)"),
        "place": _histogram(
            100 * found["off_place"], 0.5, _FAR_PERCENT, "% of the length too far along (− short)"
        ),
        "frames": _found_against(found, "damage_frame", "found_frame", "frame"),
        "places": _found_against(found, "crack_place", "found_place", "place along the board"),
    }


def training_figures(history: Sequence[Mapping[str, Any]]) -> list[go.Figure]:
    """Draw loss, validation score and speed of DREAM's training, an epoch a point."""
    epochs = [one.get("epoch", at) for at, one in enumerate(history)]
    drawn = (
        ("loss", {"loss": ("training", BLUE), "val_loss": ("validation", ORANGE)}),
        ("average precision", {"val_ap": ("validation", ORANGE)}),
        ("panels a second", {"panels_per_s": ("training", BLUE)}),
    )
    figures = []
    for title, keys in drawn:
        figure = go.Figure()
        for key, (name, color) in keys.items():
            values = [one.get(key) for one in history]
            kept = [(e, v) for e, v in zip(epochs, values, strict=True) if is_number(v)]
            if kept:
                figure.add_scatter(
                    x=[e for e, _ in kept], y=[v for _, v in kept], name=name,
                    mode="lines+markers", marker={"size": 4}, line={"color": color, "width": 1.8},
                    hovertemplate=f"epoch %{{x}}<br>{name} %{{y:.4g}}<extra></extra>",
                )  # fmt: skip
        if figure.data:
            figure.update_xaxes(title="epoch")
            figure.update_yaxes(title=title, **(_LOGARITHMIC if title == "loss" else {}))
            if title == "panels a second":
                figure.update_yaxes(rangemode="tozero")
            figures.append(small(figure, legend=len(keys) > 1))
    return figures


def small(figure: go.Figure, height: int = _SMALL, legend: bool = False) -> go.Figure:
    """Lay out a plot that stands beside others."""
    finish(figure, height)
    figure.update_layout(showlegend=legend, margin={"t": 46 if legend else 32, "l": 58, "r": 12})
    return figure


def _error(values: Sequence[float | None], ends: Sequence[Any]) -> dict[str, Any]:
    pairs = list(zip(values, ends, strict=True))
    return {
        "type": "data", "symmetric": False, "color": TEAL, "thickness": 1.2, "width": 3,
        "array": [one.high - value for value, one in pairs],
        "arrayminus": [value - one.low for value, one in pairs],
    }  # fmt: skip


def _histogram(values: "pd.Series[float]", width: float, far: int, title: str) -> Any:
    known = values.dropna().to_numpy(dtype=float)
    if not known.size:
        return None
    end = far + width / 2
    edges = np.arange(-end, end + width / 2, width)
    counts, _ = np.histogram(known.clip(-far, far), edges)
    middle = (edges[:-1] + edges[1:]) / 2
    figure = go.Figure(
        go.Bar(
            x=middle,
            y=counts,
            width=0.9 * width,
            marker={"color": BLUE},
            customdata=[write_share_1(count / known.size) for count in counts],
            hovertemplate="%{x:.1f}: %{y} panels (%{customdata})<extra></extra>",
        )
    )
    ticks = np.linspace(-far, far, 5)
    texts = [f"{t:g}".replace("-", "−") for t in ticks]
    texts[0], texts[-1] = f"≤ {texts[0]}", f"≥ {texts[-1]}"
    figure.update_xaxes(title=title, range=[-end, end], tickvals=ticks, ticktext=texts)
    figure.update_yaxes(title="panels", rangemode="tozero")
    return small(figure)


def _found_against(found: pd.DataFrame, true: str, seen: str, what: str) -> go.Figure | None:
    known = found[found[true].notna() & found[seen].notna()]
    if known.empty:
        return None
    known = known.iloc[:: -(-len(known) // _MOST_DOTS)]
    top = 1.0 if what != "frame" else float(known[[true, seen]].to_numpy().max()) + 1
    figure = go.Figure()
    figure.add_scatter(
        x=[0, top], y=[0, top], mode="lines", line={"color": GREY, "width": 1, "dash": "dot"},
        hoverinfo="skip",
    )  # fmt: skip
    figure.add_scatter(
        x=known[true].to_numpy(np.float32),
        y=known[seen].to_numpy(np.float32),
        mode="markers",
        marker={"color": BLUE, "size": 5, "opacity": 0.5},
        customdata=np.stack(
            [known["number"].astype(str), known["scenario"].fillna(UNKNOWN).map(said)], axis=1
        ),
        hovertemplate="panel %{customdata[0]}, %{customdata[1]}<br>true %{x:.4g}<br>"
        "found %{y:.4g}<extra></extra>",
    )
    figure.update_xaxes(title=f"{what}, true")
    figure.update_yaxes(title=f"{what}, found")
    return small(figure)
