"""The quality report's plots: panels step by step, maps, distributions, what tells a crack."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from pipelines.fpcb.dataset import UNKNOWN
from pipelines.fpcb.feature_table import COLUMNS, names
from pipelines.fpcb.features import FeatureConfig, Features, extract
from pipelines.fpcb.kinematics import derivatives
from pipelines.fpcb.panels import PanelBatch
from pipelines.fpcb.places import place_means
from pipelines.fpcb.quality_checks import KEY_FEATURES
from pipelines.fpcb.quality_data import Rows
from pipelines.fpcb.scenarios import NAMES
from pipelines.report_page import BLUE, GREY, ORANGE, RED, finish
from pipelines.report_text import label

Singles = npt.NDArray[np.float32]

UNITS = {(str(column.level), column.name): column.unit for column in COLUMNS}
MAPS = ("velocity", "acceleration", "curvature_excess", "curvature_change")
_ARROWS = 16
_VELOCITY_S, _ACCELERATION_S2 = 0.15, 0.02  # px of arrow for a px/s, a px/s²
_GHOSTS = 8
_VIOLIN_PANELS = 300
_UNIT_IN_NAME = re.compile(r"_(per_)?(px|deg|rad|m|s)(_s)?[234]?(?=_|$|,)")
_MARK = "#5b6573"
_DIVERGING = [[0.0, "#2f6db3"], [0.5, "#f4f4f2"], [1.0, "#c4662a"]]


@dataclass(frozen=True, eq=False, kw_only=True)
class Picture:
    """A panel to look at, and the good panel of the same number where it can be made.

    ``crack_frame`` (when it cracks or jolts), ``damage_frame`` (from when its shape shows it) and
    ``crack_place`` (share of the length) are None where there is none, or it is not known.
    """

    scenario: str
    title: str
    bad: bool
    panel: PanelBatch
    twin: PanelBatch | None
    crack_frame: int | None
    damage_frame: int | None
    crack_place: float | None
    config: FeatureConfig

    @property
    def seconds(self) -> npt.NDArray[np.float64]:
        """Time of each frame."""
        return np.asarray(np.arange(self.panel.n_frames) / self.panel.fps[0])

    @cached_property
    def features(self) -> Features:
        """Features of the panel."""
        return extract(self.panel, self.config)

    @cached_property
    def twin_features(self) -> Features | None:
        """Features of the good panel of the same number."""
        return None if self.twin is None else extract(self.twin, self.config)

    @cached_property
    def vectors(self) -> tuple[Singles, Singles, Singles]:
        """Places (2, n_frames, k), px in the image, their velocity and acceleration, px/s(²)."""
        batch = self.panel
        means = place_means(batch.points, batch.n_points, _ARROWS)
        fps = batch.fps.astype(np.float32)
        velocity, acceleration = derivatives(means, fps, self.config.time_window_frames)
        origin = batch.points[0, :, 0, 0].astype(np.float32)[:, None, None]
        return means[:, 0] + origin, velocity[:, 0], acceleration[:, 0]

    @property
    def color(self) -> str:
        """That of cracked panels, or of good ones."""
        return ORANGE if self.bad else BLUE


def stepped_panel(picture: Picture) -> go.Figure:
    """Draw a panel frame by frame, with its bend and its kink over time beside it."""
    panel, twin = _curve(picture.panel), None if picture.twin is None else _curve(picture.twin)
    place = None
    if picture.crack_place is not None:
        place = round(picture.crack_place * (panel.shape[2] - 1))
    figure = make_subplots(
        2,
        2,
        column_widths=[0.56, 0.44],
        specs=[[{"rowspan": 2}, {}], [None, {}]],
        horizontal_spacing=0.09,
        vertical_spacing=0.12,
    )
    for at in np.linspace(0, len(picture.seconds) - 1, _GHOSTS).astype(int):
        _line(figure, panel[:, at], GREY, 1, "", opacity=0.35, hoverinfo="skip", showlegend=False)
    still = len(figure.data)
    # Open where there is most to see: as it cracks, or midway.
    seen = picture.crack_frame + 1 if picture.crack_frame is not None else len(picture.seconds) // 2
    seen = min(seen, len(picture.seconds) - 1)
    moving = _moving(picture, panel, twin, place, seen)
    for trace in moving:
        figure.add_trace(trace, 1, 1)
    _draw_series(figure, picture)
    cursors = _cursors(figure)
    where = [*range(still, still + len(moving)), *range(len(figure.data), len(figure.data) + 2)]
    for row, (low, high) in enumerate(cursors, start=1):
        figure.add_trace(_cursor(picture.seconds[seen], low, high), row, 2)
    figure.frames = [
        go.Frame(
            name=str(at),
            traces=where,
            data=[
                *_moving(picture, panel, twin, place, at),
                *(_cursor(picture.seconds[at], low, high) for low, high in cursors),
            ],
        )
        for at in range(len(picture.seconds))
    ]
    _image_axes(figure, [panel] if twin is None else [panel, twin])
    finish(figure, height=560)
    _add_player(figure, picture, seen)
    return figure


def motion_maps(picture: Picture) -> go.Figure:
    """Draw frame × place maps of a panel, and of its good twin below: what detectors read."""
    shown = [(picture.features, "this panel")]
    if picture.twin_features is not None and picture.bad:
        shown.append((picture.twin_features, "good panel"))
    figure = make_subplots(
        len(shown), 4, shared_yaxes=True, shared_xaxes=True, horizontal_spacing=0.025,
        vertical_spacing=0.09,
    )  # fmt: skip
    places = (np.arange(picture.config.places) + 0.5) / picture.config.places
    for k, name in enumerate(MAPS):
        maps = [_map(features, name) for features, _ in shown]
        reach = float(max(np.quantile(np.abs(values), 0.995) for values in maps)) or 1.0
        for row, values in enumerate(maps, start=1):
            figure.add_trace(
                go.Heatmap(
                    z=values.T,
                    x=picture.seconds.astype(np.float32),
                    y=places.astype(np.float32),
                    coloraxis=f"coloraxis{k + 1}",
                    hovertemplate="%{x:.2f} s, place %{y:.2f}<br>"
                    f"{words(name)} %{{z:.3g}} {_unit('map', name)}<extra></extra>",
                ),
                row,
                k + 1,
            )
            if row == 1:
                _mark_crack(figure, picture, row, k + 1)
        figure.update_layout({f"coloraxis{k + 1}": _coloraxis(figure, name, k, reach)})
        figure.update_xaxes(title="time (s)", row=len(shown), col=k + 1)
    for row, (_, what) in enumerate(shown, start=1):
        figure.update_yaxes(title=f"{what}<br>place along the board", row=row, col=1)
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(showgrid=False, range=[0, 1])
    finish(figure, height=170 + 190 * len(shown))
    figure.update_layout(margin={"t": 92, "b": 52, "l": 84, "r": 16})
    return figure


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
                _violin(figure, values[own], position, ORANGE if bad else BLUE, row, column)
                _medians(figure, values, own, rows.known["split"], position, row, column)
        low, high = np.min(ends, axis=0)[0], np.max(ends, axis=0)[1]
        margin = 0.05 * (high - low) or 1.0
        unit = _unit("panel", name) if name in features else _NUISANCE_UNITS.get(name, "")
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


def _line(
    figure: go.Figure, points: npt.NDArray[Any], color: str, width: float, name: str, **more: Any
) -> None:
    figure.add_trace(_path(points, color, width, name, **more), 1, 1)


def _path(points: npt.NDArray[Any], color: str, width: float, name: str, **more: Any) -> go.Scatter:
    return go.Scatter(
        x=points[0],
        y=points[1],
        mode="lines",
        line={"color": color, "width": width},
        name=name,
        **{"hovertemplate": "%{x}, %{y} px<extra></extra>", **more},
    )


def _moving(
    picture: Picture,
    panel: npt.NDArray[np.int16],
    twin: npt.NDArray[np.int16] | None,
    place: int | None,
    at: int,
) -> list[go.Scatter]:
    """Return the traces of frame ``at``; the same number of them in every frame."""
    name = "this panel" if twin is not None else "panel"
    traces = [
        _arrows(picture, at, 0, "#3d9a7b", f"velocity × {_VELOCITY_S:g} s"),
        _arrows(picture, at, 1, "#a06cb8", f"acceleration × {_ACCELERATION_S2:g} s²"),
    ]
    if picture.bad and twin is not None:
        traces.append(_path(twin[:, at], BLUE, 2, "the good panel of its number"))
    traces.append(_path(panel[:, at], picture.color, 3, name))
    if place is not None:
        cracked = picture.damage_frame is None or at >= picture.damage_frame
        where = panel[:, at, place : place + 1] if cracked else np.empty((2, 0), np.int16)
        traces.append(
            go.Scatter(
                x=where[0],
                y=where[1],
                mode="markers",
                marker={"symbol": "circle-open", "size": 15, "color": RED, "line": {"width": 2.5}},
                name="crack",
                hovertemplate=f"crack at {picture.crack_place:.2f} of the length<extra></extra>",
                showlegend=True,
            )
        )
    return traces


def _arrows(picture: Picture, at: int, order: int, color: str, name: str) -> go.Scatter:
    base, velocity, acceleration = picture.vectors
    scale = _VELOCITY_S if order == 0 else _ACCELERATION_S2
    tip = base[:, at] + scale * (velocity, acceleration)[order][:, at]
    gap = np.full_like(tip, np.nan)
    line = np.stack([base[:, at], tip, gap], axis=2).reshape(2, -1).round(1)
    return go.Scatter(
        x=line[0],
        y=line[1],
        mode="lines+markers",
        line={"color": color, "width": 1.4},
        marker={
            "symbol": "arrow", "angleref": "previous", "color": color,
            "size": np.tile([0, 7, 0], tip.shape[1]),
        },
        name=name,
        hoverinfo="skip",
    )  # fmt: skip


def _draw_series(figure: go.Figure, picture: Picture) -> None:
    for row, name in enumerate(("bend_angle_deg", "kink_deg"), start=1):
        for found, color, width in (
            (picture.twin_features if picture.bad else None, BLUE, 1.5),
            (picture.features, picture.color, 2),
        ):
            if found is not None:
                figure.add_scatter(
                    x=picture.seconds.astype(np.float32),
                    y=found.frame[0, :, names("frame").index(name)],
                    mode="lines",
                    line={"color": color, "width": width},
                    showlegend=False,
                    hovertemplate=f"%{{x:.2f}} s<br>{words(name)} %{{y:.2f}} deg<extra></extra>",
                    row=row,
                    col=2,
                )
        if picture.crack_frame is not None:
            figure.add_vline(
                x=float(picture.seconds[picture.crack_frame]),
                line={"color": RED, "width": 1, "dash": "dash"},
                row=row,
                col=2,
            )
        figure.update_yaxes(title=f"{words(name)} (deg)", row=row, col=2)
    figure.update_xaxes(title="time (s)", row=2, col=2)


def _cursors(figure: go.Figure) -> list[tuple[float, float]]:
    ends = []
    for axis in ("y2", "y3"):
        values = np.concatenate([t.y for t in figure.data if t.yaxis == axis])
        margin = 0.05 * float(np.ptp(values)) or 1.0
        ends.append((float(values.min()) - margin, float(values.max()) + margin))
    return ends


def _cursor(second: float, low: float, high: float) -> go.Scatter:
    return go.Scatter(
        x=[float(second)] * 2,
        y=[low, high],
        mode="lines",
        line={"color": GREY, "width": 1.5},
        hoverinfo="skip",
        showlegend=False,
    )


def _image_axes(figure: go.Figure, curves: Sequence[npt.NDArray[np.int16]]) -> None:
    low = np.min([curve.min(axis=(1, 2)) for curve in curves], axis=0) - 18
    high = np.max([curve.max(axis=(1, 2)) for curve in curves], axis=0) + 18
    figure.update_xaxes(title="x (px)", range=[int(low[0]), int(high[0])], row=1, col=1)
    # Rows of an image are counted from its top.
    figure.update_yaxes(
        title="y (px)", range=[int(high[1]), int(low[1])], scaleanchor="x", row=1, col=1
    )


def _add_player(figure: go.Figure, picture: Picture, seen: int) -> None:
    step_ms = 1000 / float(picture.panel.fps[0])
    still = {"mode": "immediate", "frame": {"duration": 0, "redraw": False}}
    still["transition"] = {"duration": 0}
    play = still | {"fromcurrent": True, "frame": {"duration": step_ms, "redraw": False}}
    slow = still | {"fromcurrent": True, "frame": {"duration": 5 * step_ms, "redraw": False}}
    buttons = [("▶ play", None, play), ("▶ slowly", None, slow), ("❚❚ stop", [None], still)]
    steps = [
        {
            "label": f"{at} ({second:.2f} s)" + (" · crack" if at == picture.crack_frame else ""),
            "method": "animate",
            "args": [[str(at)], still],
        }
        for at, second in enumerate(picture.seconds)
    ]
    figure.update_layout(
        margin={"b": 118},
        updatemenus=[
            {
                "type": "buttons", "direction": "left", "x": 0, "y": 0, "xanchor": "left",
                "yanchor": "top", "pad": {"t": 58}, "showactive": False,
                "bgcolor": "rgba(128,128,128,0.16)", "borderwidth": 0,
                "buttons": [
                    {"label": text, "method": "animate", "args": [which, how]}
                    for text, which, how in buttons
                ],
            }
        ],
        sliders=[
            {
                "x": 0.3, "len": 0.7, "y": 0, "pad": {"t": 48}, "steps": steps, "active": seen,
                "ticklen": 0, "minorticklen": 0,
                "currentvalue": {"prefix": "frame ", "font": {"color": GREY, "size": 13}},
                "font": {"color": "rgba(0,0,0,0)", "size": 1},
                "borderwidth": 0, "bgcolor": "rgba(128,128,128,0.3)",
            }
        ],
    )  # fmt: skip


def _mark_crack(figure: go.Figure, picture: Picture, row: int, column: int) -> None:
    if picture.crack_frame is not None:
        second = float(picture.seconds[picture.crack_frame])
        figure.add_vline(
            x=second, line={"color": RED, "width": 1.2, "dash": "dash"}, row=row, col=column
        )
    if picture.crack_place is not None:
        figure.add_hline(
            y=picture.crack_place, line={"color": RED, "width": 1.2, "dash": "dot"},
            row=row, col=column,
        )  # fmt: skip


def _coloraxis(figure: go.Figure, name: str, k: int, reach: float) -> dict[str, Any]:
    left, right = figure.layout[f"xaxis{k + 1 if k else ''}"].domain
    return {
        "colorscale": _DIVERGING,
        "cmin": -reach,
        "cmax": reach,
        "colorbar": {
            "orientation": "h", "x": (left + right) / 2, "len": right - left - 0.01, "y": 1.0,
            "yanchor": "bottom", "thickness": 8, "outlinewidth": 0, "nticks": 5,
            "title": {"text": f"{words(name)} ({_unit('map', name)})", "side": "top"},
        },
    }  # fmt: skip


def _map(features: Features, name: str) -> npt.NDArray[np.float32]:
    return features.maps[0, names("map").index(name)].astype(np.float32)


def _curve(batch: PanelBatch) -> npt.NDArray[np.int16]:
    """Return the points of a batch of one panel: (2, n_frames, n_points)."""
    return batch.points[0, :, :, : batch.n_points[0]]


def _scenarios(known: pd.DataFrame) -> list[tuple[str, bool]]:
    """Return the scenarios, good ones first, and whether each is of cracked panels."""
    bad = known.groupby("scenario")["label"].max() == 1
    order = sorted(
        (bool(bad[name]), place, name)
        for place, name in enumerate((*NAMES, UNKNOWN))
        if name in bad
    )
    return [(name, value) for value, _, name in order]


def _violin(
    figure: go.Figure, values: npt.NDArray[Any], position: int, color: str, row: int, column: int
) -> None:
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


_SPLIT_MARKS = {"train": "circle", "val": "diamond", "test": "x-thin-open"}


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
    return {"symbol": symbol, "size": 7, "color": _MARK, "line": {"width": 1.5, "color": _MARK}}


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


def _unit(level: str, name: str) -> str:
    unit = UNITS.get((level, name), "")
    return "" if unit == "1" else unit
