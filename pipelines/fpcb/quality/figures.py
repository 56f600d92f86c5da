"""The quality report's plots of features: their distributions, and what tells a crack."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from pipelines.fpcb.dataset import UNKNOWN
from pipelines.fpcb.features.table import COLUMNS, names
from pipelines.fpcb.quality.checks import KEY_FEATURES
from pipelines.fpcb.quality.data import Rows
from pipelines.fpcb.scenarios import NAMES
from pipelines.report_page import BLUE, ORANGE, finish
from pipelines.report_text import label

_UNITS = {(str(column.level), column.name): column.unit for column in COLUMNS}
_VIOLIN_PANELS = 300
_UNIT_IN_NAME = re.compile(r"_(per_)?(px|deg|rad|m|s)(_s)?[234]?(?=_|$|,)")


def distributions(rows: Rows, features: Sequence[str], nuisances: Sequence[str]) -> go.Figure:
    """Draw features and nuisances by scenario: violins, and the median of each split."""
    order = _scenarios(rows.known)
    columns = [(name, rows.values[:, names("panel").index(name)]) for name in features]
    columns += [(name, rows.known[name].to_numpy(dtype=float)) for name in nuisances]
    n_rows = -(-len(columns) // 3)
    figure = make_subplots(
        n_rows, 3, shared_yaxes=True, horizontal_spacing=0.025, vertical_spacing=0.3 / n_rows
    )
    for place, (name, values) in enumerate(columns):
        row, column = place // 3 + 1, place % 3 + 1
        ends = []
        for position, (scenario, bad) in enumerate(order):
            own = (rows.known["scenario"] == scenario).to_numpy() & ~np.isnan(values)
            if own.any():
                ends.append(np.quantile(values[own], [0.01, 0.99]))
                violin(figure, values[own], position, ORANGE if bad else BLUE, row, column)
                _medians(figure, values, own, rows.known["split"], position, row, column)
        low, high = np.min(ends, axis=0)[0], np.max(ends, axis=0)[1]
        margin = 0.05 * (high - low) or 1.0
        unit = unit_of("panel", name) if name in features else _NUISANCE_UNITS.get(name, "")
        title = label(words(name), 44) + (f" ({unit})" if unit else "")
        figure.update_xaxes(
            title=title,
            exponentformat="power",
            range=[low - margin, high + margin],
            row=row,
            col=column,
        )
    figure.update_yaxes(
        tickvals=list(range(len(order))),
        ticktext=[label(words(name)) for name, _ in order],
        range=[len(order) - 0.4, -0.6],
        showgrid=False,
    )
    _legend(figure)
    return finish(figure, height=90 + n_rows * (90 + 26 * len(order)))


def telling_map(table: pd.DataFrame) -> go.Figure | None:
    """Draw how well single features tell each cracked scenario: the key ones, and the best."""
    if table.empty or not len(table.columns):
        return None
    away = (table - 0.5).abs()
    # Each scenario's own best come first, so that none is crowded out by an easier one.
    rank = away.rank(ascending=False, method="first").min(axis=1)
    best = [name for name in rank.sort_values(kind="stable").index if name not in KEY_FEATURES]
    key = [name for name in KEY_FEATURES if name in table.index]
    shown = [*reversed(best[: len(KEY_FEATURES)]), *reversed(key)]
    values = 0.5 + away.loc[shown]
    figure = go.Figure(
        go.Heatmap(
            z=values.to_numpy(np.float32),
            x=[label(words(name)) for name in values.columns],
            y=[label(words(name), 44) for name in values.index],
            customdata=np.where(table.loc[shown] >= 0.5, "large values tell", "small values tell"),
            texttemplate="%{z:.3f}",
            textfont={"size": 11},
            colorscale=[[0, "#f1f2f3"], [0.5, "#9dbfe2"], [1, "#3f7fc4"]],
            zmin=0.5,
            zmax=1.0,
            showscale=False,
            hovertemplate="%{y}<br>%{x}: AUC %{z:.3f}, %{customdata}<extra></extra>",
            xgap=2,
            ygap=2,
        )
    )
    figure.update_xaxes(side="top", showgrid=False, tickangle=0)
    figure.update_yaxes(showgrid=False)
    finish(figure, height=72 + 24 * len(values))
    return figure.update_layout(margin={"b": 12})


_NUISANCE_UNITS = {
    "n_points": "",
    "noise_px": "px",
    "length_px": "px",
    "metres_per_pixel": "m/px",
    "fps": "1/s",
}


def _scenarios(known: pd.DataFrame) -> list[tuple[str, bool]]:
    """Return the scenarios, good ones first, and whether each is of cracked panels."""
    bad = known.groupby("scenario")["label"].max() == 1
    order = sorted(
        (bool(bad[name]), place, name)
        for place, name in enumerate((*NAMES, UNKNOWN))
        if name in bad
    )
    return [(name, value) for value, _, name in order]


def violin(
    figure: go.Figure,
    values: npt.NDArray[Any],
    position: int,
    color: str,
    row: int | None = None,
    column: int | None = None,
) -> None:
    """Draw how values (n,) spread, as a violin along the x axis at ``position``."""
    every = max(1, -(-len(values) // _VIOLIN_PANELS))
    shown = np.sort(values)[every // 2 :: every].astype(np.float32)
    figure.add_violin(
        x=shown,
        y0=position,
        orientation="h",
        width=0.85,
        points=False,
        spanmode="hard",
        line={"color": color, "width": 1},
        hoverinfo="skip",
        showlegend=False,
        row=row,
        col=column,
    )


_SPLIT_MARKS = {"train": "circle", "val": "diamond", "test": "x"}


def _medians(
    figure: go.Figure,
    values: npt.NDArray[Any],
    own: npt.NDArray[np.bool_],
    splits: "pd.Series[str]",
    position: int,
    row: int,
    column: int,
) -> None:
    for split, symbol in _SPLIT_MARKS.items():
        part = values[own & (splits == split).to_numpy()]
        if part.size:
            figure.add_scatter(
                x=[float(np.median(part))],
                y=[position],
                mode="markers",
                marker=_mark(symbol),
                showlegend=False,
                hovertemplate=f"median of {part.size:,} {split} panels: %{{x:.4g}}<extra></extra>",
                row=row,
                col=column,
            )


def _mark(symbol: str) -> dict[str, Any]:
    return {
        "symbol": symbol,
        "size": 7,
        "color": "#ffffff",
        "line": {"width": 1, "color": "#2b323b"},
    }


def _legend(figure: go.Figure) -> None:
    for name, color in (("good", BLUE), ("cracked", ORANGE)):
        marker = {"symbol": "square", "size": 10, "color": color}
        figure.add_scatter(x=[None], y=[None], mode="markers", marker=marker, name=name)
    for split, symbol in _SPLIT_MARKS.items():
        figure.add_scatter(
            x=[None], y=[None], mode="markers", marker=_mark(symbol), name=f"median of {split}"
        )


def words(name: str) -> str:
    """Return a column's name as words, without its unit."""
    return _UNIT_IN_NAME.sub("", name).replace("_", " ")


def unit_of(level: str, name: str) -> str:
    """Return the unit of a column, nothing where it has none."""
    unit = _UNITS.get((level, name), "")
    return "" if unit == "1" else unit
